//! A cancelled order gives its credit back (I9), whatever overtakes what.

use std::time::Duration;

use anyhow::{Result, ensure};
use async_nats::jetstream::AckKind;
use async_nats::jetstream::consumer::PullConsumer;
use futures_util::TryStreamExt;
use harness::{Side, System, books, eventually};
use proto::orders::v1::{CancellationReason, CreateOrderRequest, CreateOrderResponse, OrderState};
use uuid::Uuid;

use crate::client::{Client, Transport, euros};
use crate::events;
use crate::shared::on_shared_system;

const DEADLINE: Duration = Duration::from_secs(60);
/// Longer than the service takes to start.
const HELD_BACK: Duration = Duration::from_secs(10);

/// Awaits that the customer has so much left.
async fn available(client: &Client, customer_id: &str, cents: i64) {
    let what = format!("{cents} to be available");
    let given_back = eventually(&what, DEADLINE, async || {
        let found = client.get_customer(customer_id).await?;
        ensure!(found.available == Some(euros(cents)), "{found:?}");
        Ok(Some(()))
    });
    given_back.await.expect("the credit is given back");
}

/// The state of an order's reservation, if it has one.
async fn reservation(system: &System, order_id: &str) -> Result<Option<String>> {
    let database = system.database(Side::Customers).await?;
    let id = Uuid::try_parse(order_id)?;
    let sql = "SELECT state FROM reservations WHERE order_id = $1";
    let row = database.query_opt(sql, &[&id]).await?;
    Ok(row.map(|row| row.get(0)))
}

#[test]
fn an_approved_order_that_is_cancelled_gives_its_credit_to_the_next_one() {
    on_shared_system(async |system| {
        for transport in Transport::ALL {
            let client = Client::new(system, transport).await.unwrap();
            let customer = client.create_customer("Ada", euros(1_000)).await.unwrap();
            let id = &customer.customer_id;
            let order = client.create_order(id, euros(600)).await.unwrap();
            let order = client.settled_order(&order.order_id).await.unwrap();
            assert_eq!(order.state(), OrderState::Approved, "{transport:?}");

            let cancelled = client.cancel_order(&order.order_id).await.unwrap();
            assert_eq!(cancelled.state(), OrderState::Cancelled);
            let reason = cancelled.cancellation_reason();
            assert_eq!(reason, CancellationReason::ByCustomer, "{transport:?}");
            // Again is answered with the order as it is.
            let again = client.cancel_order(&order.order_id).await.unwrap();
            assert_eq!(again, cancelled);
            available(&client, id, 1_000).await;

            let next = client.create_order(id, euros(1_000)).await.unwrap();
            let next = client.settled_order(&next.order_id).await.unwrap();
            assert_eq!(next.state(), OrderState::Approved, "{transport:?}");
        }
    });
}

#[test]
fn a_repeated_request_gets_the_first_answer_over_whichever_transport() {
    on_shared_system(async |system| {
        let clients = Transport::ALL.map(|transport| Client::new(system, transport));
        let clients = futures_util::future::try_join_all(clients).await.unwrap();
        let customer = clients[0].create_customer("Ada", euros(1_000)).await;
        let customer_id = customer.unwrap().customer_id;
        let mut request = CreateOrderRequest {
            wait: None,
            customer_id: customer_id.clone(),
            total: Some(euros(600)),
            request_id: Uuid::now_v7().to_string(),
        };
        let mut answers: Vec<CreateOrderResponse> = Vec::new();
        for client in &clients {
            let answer = client.call("orders.v1.CreateOrder", &request).await;
            answers.push(answer.unwrap());
            // Pending is the first answer, however long ago.
            let order_id = &answers[0].order.as_ref().unwrap().order_id;
            client.settled_order(order_id).await.unwrap();
        }
        assert_eq!(answers[1], answers[0]);
        assert_eq!(answers[2], answers[0]);
        available(&clients[0], &customer_id, 400).await;

        request.total = Some(euros(100));
        for client in &clients {
            let other: Result<CreateOrderResponse, _> =
                client.call("orders.v1.CreateOrder", &request).await;
            let refused = other.unwrap_err().refusal();
            assert_eq!(refused.code, "INVALID_ARGUMENT");
            assert!(refused.message.starts_with("request_id: "), "{refused}");
        }
    });
}

#[test]
fn a_limit_can_be_raised_and_lowered_but_not_below_what_is_reserved() {
    on_shared_system(async |system| {
        for transport in Transport::ALL {
            let client = Client::new(system, transport).await.unwrap();
            let customer = client.create_customer("Ada", euros(100)).await.unwrap();
            let id = &customer.customer_id;
            let raised = client.set_credit_limit(id, euros(1_000)).await.unwrap();
            assert_eq!(raised.available, Some(euros(1_000)));
            let order = client.create_order(id, euros(600)).await.unwrap();
            let order = client.settled_order(&order.order_id).await.unwrap();
            assert_eq!(order.state(), OrderState::Approved, "{transport:?}");

            let refused = client.set_credit_limit(id, euros(590)).await.unwrap_err();
            let refused = refused.refusal();
            assert_eq!(refused.code, "FAILED_PRECONDITION", "{transport:?}");
            assert!(refused.message.contains("10 more than 590"), "{refused}");
            let lowered = client.set_credit_limit(id, euros(600)).await.unwrap();
            assert_eq!(lowered.available, Some(euros(0)), "{transport:?}");
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_is_cancelled_while_it_is_pending_ends_without_credit() {
    let system = System::start().await.unwrap();
    let client = Client::new(&system, Transport::Grpc).await.unwrap();
    let customer = client.create_customer("Ada", euros(1_000)).await.unwrap();
    let service = system.process(Side::Customers.service());
    service.pause().unwrap();
    let mut orders = Vec::new();
    for _ in 0..5 {
        let order = client.create_order(&customer.customer_id, euros(900)).await;
        let order_id = order.unwrap().order_id;
        let cancelled = client.cancel_order(&order_id).await.unwrap();
        assert_eq!(cancelled.state(), OrderState::Cancelled);
        orders.push(order_id);
    }
    service.resume().unwrap();

    let books = books::settled(&system, DEADLINE).await.unwrap();
    books.assert_clean();
    assert_eq!(books.cancelled("by_customer"), 5);
    assert_eq!(books.customers[0].reserved, 0);
    for order_id in &orders {
        let state = reservation(&system, order_id).await.unwrap();
        assert_eq!(state.as_deref(), Some("released"));
    }
    assert_eq!(books.dead_letters, 0);
}

/// The cancel is delivered first: the create is held back at the durable consumer itself, as it is when
/// the replica that had it dies.
#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_that_overtakes_its_create_leaves_nothing_reserved() {
    let system = System::start().await.unwrap();
    let client = Client::new(&system, Transport::Grpc).await.unwrap();
    let customer = client.create_customer("Ada", euros(1_000)).await.unwrap();
    let id = &customer.customer_id;
    let jetstream = async_nats::jetstream::new(client.nats.clone());
    // A service is ready before it: the stream may not be there yet.
    let durable = eventually("the durable consumer", DEADLINE, async || {
        let (name, stream) = (Side::Customers.service(), Side::Orders.stream());
        let found = jetstream.get_consumer_from_stream(name, stream).await;
        Ok(found.ok())
    });
    let durable: PullConsumer = durable.await.unwrap();
    let service = system.process(Side::Customers.service());
    service.terminate().await.unwrap();
    let order = client.create_order(id, euros(900)).await.unwrap();
    client.cancel_order(&order.order_id).await.unwrap();

    let published = eventually("both events to be published", DEADLINE, async || {
        let stored = events::count(&system, Side::Orders).await?;
        ensure!(stored >= 2, "so far {stored}");
        Ok(Some(()))
    });
    published.await.unwrap();
    let fetched = durable.fetch().max_messages(2).messages().await.unwrap();
    let fetched: Vec<_> = fetched.try_collect().await.unwrap();
    assert_eq!(fetched.len(), 2);
    for (message, wait) in fetched.iter().zip([Some(HELD_BACK), None]) {
        message.ack_with(AckKind::Nak(wait)).await.unwrap();
    }
    client.nats.flush().await.unwrap();
    service.start_again().unwrap();
    service.wait_ready().await.unwrap();

    let barred = eventually("the tombstone", DEADLINE, async || {
        reservation(&system, &order.order_id).await
    });
    assert_eq!(barred.await.unwrap(), "released");
    let so_far = service.metric("mailbox_events_applied_total").await;
    assert_eq!(so_far.unwrap(), Some(1.0), "the create was not held back");

    let books = books::settled(&system, DEADLINE).await.unwrap();
    books.assert_clean();
    assert_eq!(books.customers[0].reserved, 0);
    let state = reservation(&system, &order.order_id).await.unwrap();
    assert_eq!(state.as_deref(), Some("released"));
    // To the late create nothing was said.
    assert_eq!(books.streams["CUSTOMERS"].messages(), 1);
    assert_eq!(books.dead_letters, 0);
    let series = "customer_reactions_ignored_total{state=\"released\"}";
    assert_eq!(service.metric(series).await.unwrap(), Some(1.0));
}
