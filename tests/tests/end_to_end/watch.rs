//! Who waits for an order hears of its outcome through the whole saga, at whichever replica.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures_util::future::try_join_all;
use harness::{Side, System, books};
use proto::orders::v1::order_service_client::OrderServiceClient;
use proto::orders::v1::{
    CancellationReason, CreateOrderRequest, CreateOrderResponse, GetOrderRequest, GetOrderResponse,
    Order, OrderState, WatchOrderRequest,
};
use tokio::time::timeout;
use tonic::Code;

use crate::client::{Client, Transport, euros};
use crate::shared::on_shared_system;

const DEADLINE: Duration = Duration::from_secs(60);

fn seconds(seconds: i64) -> Option<proto::Duration> {
    Some(proto::Duration { seconds, nanos: 0 })
}

/// All that a watch at one replica tells of an order, to its end.
async fn watched(system: &System, replica: &str, order_id: &str) -> Result<Vec<Order>> {
    let mut orders = OrderServiceClient::new(system.channel(replica)?);
    let order_id = order_id.to_owned();
    let told = orders.watch_order(WatchOrderRequest { order_id }).await?;
    let mut told = told.into_inner();
    let mut states = Vec::new();
    while let Some(next) = timeout(DEADLINE, told.message()).await?? {
        states.push(next.order.context("told of no order")?);
    }
    Ok(states)
}

#[test]
fn a_watch_goes_from_pending_to_the_outcome_and_ends() {
    on_shared_system(async |system| {
        let client = Client::new(system, Transport::Grpc).await.unwrap();
        let customer = client.create_customer("Ada", euros(1_000)).await.unwrap();
        let replica = Side::Orders.service();
        for (cents, outcome) in [(900, OrderState::Approved), (200, OrderState::Cancelled)] {
            let order = client.create_order(&customer.customer_id, euros(cents));
            let order = order.await.unwrap();
            let told = watched(system, replica, &order.order_id).await.unwrap();
            let last = told.last().unwrap();
            assert_eq!(last.state(), outcome);
            assert_eq!(client.get_order(&order.order_id).await.unwrap(), *last);
            // The order may be quicker than the watch.
            assert!(told.len() == 1 || told[0] == order, "{told:?}");
            // Who comes later is told at once.
            let told = watched(system, replica, &order.order_id).await.unwrap();
            assert_eq!(told, std::slice::from_ref(last));
        }
    });
}

#[test]
fn an_answer_waits_for_the_outcome_over_every_transport() {
    on_shared_system(async |system| {
        for transport in Transport::ALL {
            let client = Client::new(system, transport).await.unwrap();
            let customer = client.create_customer("Ada", euros(1_000)).await.unwrap();
            let request = CreateOrderRequest {
                customer_id: customer.customer_id,
                total: Some(euros(1_001)),
                request_id: String::new(),
                wait: seconds(8),
            };
            let created: CreateOrderResponse = client
                .call("orders.v1.CreateOrder", &request)
                .await
                .unwrap();
            let order = created.order.unwrap();
            let reason = order.cancellation_reason();
            assert_eq!(
                reason,
                CancellationReason::CreditLimitExceeded,
                "{transport:?}"
            );
            let request = GetOrderRequest {
                order_id: order.order_id.clone(),
                wait: seconds(8),
            };
            let found: GetOrderResponse =
                client.call("orders.v1.GetOrder", &request).await.unwrap();
            assert_eq!(found.order.unwrap(), order, "{transport:?}");
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_at_two_replicas_outlive_nats_and_hear_of_the_deadline() {
    let builder = System::builder().env("order-service", "ORDER_DEADLINE_SECONDS", "4");
    let mut system = builder.start().await.unwrap();
    let replica = system.add_replica(Side::Orders).await.unwrap();
    let client = Client::new(&system, Transport::Grpc).await.unwrap();
    let customer = client.create_customer("Ada", euros(1_000)).await.unwrap();
    let silent = system.process(Side::Customers.service());
    silent.terminate().await.unwrap();
    let order = client.create_order(&customer.customer_id, euros(900)).await;
    let order_id = order.unwrap().order_id;
    let replicas = [Side::Orders.service(), replica.as_str()];
    let watching = replicas.map(|name| watched(&system, name, &order_id));
    let without_nats = async {
        // It is away when the deadline passes, and stays away.
        tokio::time::sleep(Duration::from_secs(1)).await;
        system.nats().kill().await
    };
    let (told, killed) = tokio::join!(try_join_all(watching), without_nats);
    killed.unwrap();
    for told in told.unwrap() {
        let last = told.last().unwrap();
        assert_eq!(told[0].state(), OrderState::Pending);
        assert_eq!(last.cancellation_reason(), CancellationReason::TimedOut);
    }
    system.nats().start_again().await.unwrap();
    silent.start_again().unwrap();
    silent.wait_ready().await.unwrap();
    books::settled(&system, DEADLINE)
        .await
        .unwrap()
        .assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_replica_sends_its_watchers_to_another() {
    let mut system = System::start().await.unwrap();
    let replica = system.add_replica(Side::Orders).await.unwrap();
    let client = Client::new(&system, Transport::Grpc).await.unwrap();
    let customer = client.create_customer("Ada", euros(1_000)).await.unwrap();
    let silent = system.process(Side::Customers.service());
    silent.terminate().await.unwrap();
    let order = client.create_order(&customer.customer_id, euros(900)).await;
    let order_id = order.unwrap().order_id;
    let mut orders = OrderServiceClient::new(system.channel(&replica).unwrap());
    let request = WatchOrderRequest {
        order_id: order_id.clone(),
    };
    let mut watching = orders.watch_order(request).await.unwrap().into_inner();
    watching.message().await.unwrap().unwrap();
    let ending = Instant::now();
    let (ended, terminated) = tokio::join!(
        timeout(DEADLINE, watching.message()),
        system.process(&replica).terminate()
    );
    assert_eq!(ended.unwrap().unwrap_err().code(), Code::Unavailable);
    terminated.unwrap();
    // Nobody waited for the time to drain to be over.
    assert!(ending.elapsed() < Duration::from_secs(10));

    silent.start_again().unwrap();
    let elsewhere = watched(&system, Side::Orders.service(), &order_id).await;
    let told = elsewhere.unwrap();
    assert_eq!(told.last().unwrap().state(), OrderState::Approved);
}
