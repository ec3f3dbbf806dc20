//! No order waits past its deadline (I8), and one that timed out keeps no credit (I9).

use std::time::Duration;

use anyhow::ensure;
use futures_util::future::try_join_all;
use harness::{Side, System, books, eventually};
use proto::customers::v1::{CreditReleased, CreditReserved};
use proto::orders::v1::{CancellationReason, OrderState};

use crate::client::{Client, Transport, euros};
use crate::events;

const DEADLINE: Duration = Duration::from_secs(60);
const ORDERS: usize = 200;

async fn hasty() -> System {
    let builder = System::builder().env("order-service", "ORDER_DEADLINE_SECONDS", "2");
    builder.start().await.expect("the system starts")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_timed_out_has_its_late_reservation_released() {
    let system = hasty().await;
    let client = Client::new(&system, Transport::Grpc).await.unwrap();
    let customer = client.create_customer("Ada", euros(1_000)).await.unwrap();
    // Nobody reserves in time; and somebody does, but the answer does not come in time.
    for silent in [Side::Customers.service(), Side::Customers.relay()] {
        let process = system.process(silent);
        process.terminate().await.unwrap();
        let order = client.create_order(&customer.customer_id, euros(900)).await;
        let order_id = order.unwrap().order_id;
        let order = client.settled_order(&order_id).await.unwrap();
        assert_eq!(order.state(), OrderState::Cancelled, "without {silent}");
        let reason = order.cancellation_reason();
        assert_eq!(reason, CancellationReason::TimedOut, "without {silent}");
        process.start_again().unwrap();
        process.wait_ready().await.unwrap();

        let books = books::settled(&system, DEADLINE).await.unwrap();
        books.assert_clean();
        assert_eq!(books.customers[0].reserved, 0, "without {silent}");
        let side = Side::Customers;
        let reserved = |event: &CreditReserved| event.order_id == order_id;
        events::find(&system, side, reserved).await.unwrap();
        let released = |event: &CreditReleased| event.order_id == order_id;
        events::find(&system, side, released).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_time_each_order_out_once() {
    let mut system = hasty().await;
    let replica = system.add_replica(Side::Orders).await.unwrap();
    let client = Client::new(&system, Transport::Grpc).await.unwrap();
    let customer = client.create_customer("Ada", euros(1_000)).await.unwrap();
    let service = system.process(Side::Customers.service());
    service.terminate().await.unwrap();
    let orders = (0..ORDERS).map(|_| client.create_order(&customer.customer_id, euros(1)));
    try_join_all(orders).await.unwrap();

    let database = system.database(Side::Orders).await.unwrap();
    let timed_out = eventually("all orders to time out", DEADLINE, async || {
        let pending = "SELECT count(*) FROM orders WHERE state = 'pending'";
        let row = database.query_one(pending, &[]).await?;
        let pending: i64 = row.get(0);
        ensure!(pending == 0, "{pending} are pending");
        Ok(Some(()))
    });
    timed_out.await.unwrap();
    service.start_again().unwrap();
    service.wait_ready().await.unwrap();

    let books = books::settled(&system, DEADLINE).await.unwrap();
    books.assert_clean();
    assert_eq!(books.cancelled("timed_out"), ORDERS);
    let ledger = &books.streams["ORDERS"];
    assert_eq!(ledger.events["orders.v1.OrderCancelled"], ORDERS);
    let mut counted = 0.0;
    for name in [Side::Orders.service(), &replica] {
        let series = "orders_settled_total{reason=\"timed_out\"}";
        let metric = system.process(name).metric(series).await.unwrap();
        counted += metric.unwrap_or_default();
    }
    assert_eq!(counted, ORDERS as f64);
    assert_eq!(books.customers[0].reserved, 0);
}
