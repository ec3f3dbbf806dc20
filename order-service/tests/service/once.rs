//! A request with an id takes effect once, and each retry gets the first answer.

use std::time::Duration;

use chassis::auth::Caller;
use deadpool_postgres::Pool;
use mailbox::requests;
use order_service::api::Orders;
use proto::orders::v1::order_service_server::OrderService as _;
use proto::orders::v1::{CancelOrderRequest, CreateOrderRequest, Order, OrderState};
use tonic::{Code, Status};
use uuid::{ContextV7, Timestamp, Uuid};

use crate::reactions::reserved;
use crate::support::{KEPT, PATIENCE, apply, count, database, database_in, get, money, postgres};

async fn create(
    pool: &Pool,
    request_id: &str,
    customer: Uuid,
    total: i64,
) -> Result<Order, Status> {
    let request = CreateOrderRequest {
        wait: None,
        customer_id: customer.to_string(),
        total: money(total, "USD"),
        request_id: request_id.to_owned(),
    };
    let orders = Orders::new(pool.clone(), PATIENCE, KEPT);
    let created = orders.create_order(Caller::Operator.asks(request)).await?;
    Ok(created.into_inner().order.unwrap())
}

async fn cancel(pool: &Pool, request_id: &str, order_id: &str) -> Result<Order, Status> {
    let request = CancelOrderRequest {
        order_id: order_id.to_owned(),
        request_id: request_id.to_owned(),
    };
    let orders = Orders::new(pool.clone(), PATIENCE, KEPT);
    let cancelled = orders.cancel_order(Caller::Operator.asks(request)).await?;
    Ok(cancelled.into_inner().order.unwrap())
}

fn new_id() -> String {
    Uuid::now_v7().to_string()
}

/// A UUIDv7 that was drawn so many seconds from now.
pub(crate) fn drawn(seconds: i64) -> String {
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let at = now.checked_add_signed(seconds).unwrap();
    Uuid::new_v7(Timestamp::from_unix(ContextV7::new(), at, 0)).to_string()
}

#[track_caller]
fn is_refused(outcome: Result<Order, Status>, part: &str) {
    let refused = outcome.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    assert!(refused.message().starts_with("request_id: "), "{refused}");
    assert!(refused.message().contains(part), "{refused}");
}

#[tokio::test]
async fn a_repeated_create_makes_one_order_and_gets_the_first_answer() {
    let pool = database().await;
    let (id, customer) = (new_id(), Uuid::now_v7());
    let first = create(&pool, &id, customer, 100).await.unwrap();
    apply(&pool, vec![reserved(&first)]).await.unwrap();
    cancel(&pool, "", &first.order_id).await.unwrap();

    // Whatever has happened since, and in whichever case the id is written.
    assert_eq!(create(&pool, &id, customer, 100).await.unwrap(), first);
    let upper = id.to_uppercase();
    assert_eq!(create(&pool, &upper, customer, 100).await.unwrap(), first);
    assert_eq!(first.state(), OrderState::Pending);
    let client = pool.get().await.unwrap();
    assert_eq!(count(&client, "orders").await, 1);
    assert_eq!(count(&client, "outbox").await, 3);
    // Without an id each is an order of its own.
    create(&pool, "", customer, 100).await.unwrap();
    create(&pool, "", customer, 100).await.unwrap();
    assert_eq!(count(&client, "orders").await, 3);
}

#[tokio::test]
async fn a_repeated_cancel_gets_the_first_answer() {
    let pool = database().await;
    let order = create(&pool, "", Uuid::now_v7(), 100).await.unwrap();
    let id = new_id();
    let first = cancel(&pool, &id, &order.order_id).await.unwrap();
    let client = pool.get().await.unwrap();
    // Something that the first answer does not show.
    let later = "UPDATE orders SET update_time = update_time + interval '1 hour'";
    client.batch_execute(later).await.unwrap();
    assert_eq!(cancel(&pool, &id, &order.order_id).await.unwrap(), first);
    let orders = Orders::new(pool.clone(), PATIENCE, KEPT);
    assert_ne!(get(&orders, &order.order_id).await.unwrap(), first);
    assert_eq!(count(&client, "outbox").await, 2);
}

#[tokio::test]
async fn an_id_of_another_request_is_refused() {
    let pool = database().await;
    let (id, customer) = (new_id(), Uuid::now_v7());
    let order = create(&pool, &id, customer, 100).await.unwrap();
    is_refused(create(&pool, &id, customer, 101).await, "another request");
    is_refused(
        create(&pool, &id, Uuid::now_v7(), 100).await,
        "another request",
    );
    is_refused(cancel(&pool, &id, &order.order_id).await, "another request");
    let other = create(&pool, "", customer, 100).await.unwrap();
    let id = new_id();
    cancel(&pool, &id, &order.order_id).await.unwrap();
    is_refused(cancel(&pool, &id, &other.order_id).await, "another request");
    let client = pool.get().await.unwrap();
    assert_eq!(count(&client, "orders WHERE state = 'pending'").await, 1);
}

#[tokio::test]
async fn of_many_tries_at_once_one_takes_effect_and_all_get_its_answer() {
    let pool = database_in(postgres().await, 8).await;
    for _ in 0..10 {
        let (id, customer) = (new_id(), Uuid::now_v7());
        let tries = (0..8).map(|_| {
            let (pool, id) = (pool.clone(), id.clone());
            tokio::spawn(async move {
                loop {
                    // As clients do: a busy machine may not have a connection in time.
                    match create(&pool, &id, customer, 100).await {
                        Err(busy) if busy.code() == Code::Unavailable => {}
                        answer => break answer,
                    }
                }
            })
        });
        let mut answers = Vec::new();
        for one in tries.collect::<Vec<_>>() {
            answers.push(one.await.unwrap().unwrap());
        }
        assert!(answers.iter().all(|one| *one == answers[0]), "{answers:?}");
    }
    let client = pool.get().await.unwrap();
    assert_eq!(count(&client, "orders").await, 10);
    assert_eq!(count(&client, "outbox").await, 10);
}

#[tokio::test]
async fn what_is_refused_is_decided_anew() {
    let pool = database().await;
    let (id, customer) = (new_id(), Uuid::now_v7());
    let refused = create(&pool, &id, customer, 0).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    create(&pool, &id, customer, 1).await.unwrap();
    let (id, nobody) = (new_id(), new_id());
    let refused = cancel(&pool, &id, &nobody).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    let client = pool.get().await.unwrap();
    assert_eq!(count(&client, "requests").await, 1);
}

#[tokio::test]
async fn an_id_tells_its_age_and_one_that_may_be_forgotten_is_refused() {
    let pool = database().await;
    let customer = Uuid::now_v7();
    for id in ["x", "5b1c1e2a-6d3e-4a44-9a51-3c5b8e0d2f17", &new_id()[1..]] {
        is_refused(create(&pool, id, customer, 1).await, "must be a UUIDv7");
    }
    let kept = KEPT.as_secs() as i64;
    is_refused(
        create(&pool, &drawn(-kept - 5), customer, 1).await,
        "too long ago",
    );
    is_refused(
        create(&pool, &drawn(2 * 3600), customer, 1).await,
        "in the future",
    );
    create(&pool, &drawn(60 - kept), customer, 1).await.unwrap();
    create(&pool, &drawn(60), customer, 1).await.unwrap();
    let client = pool.get().await.unwrap();
    // In partitions, which can be dropped, and not in what is left over.
    assert_eq!(count(&client, "requests").await, 2);
    assert_eq!(count(&client, "requests_default").await, 0);
}

#[tokio::test]
async fn answers_are_kept_for_their_time_and_retired_by_partition() {
    let pool = database().await;
    let (id, customer) = (drawn(-5 * 86_400), Uuid::now_v7());
    create(&pool, &id, customer, 1).await.unwrap();
    create(&pool, &new_id(), customer, 1).await.unwrap();
    let client = pool.get().await.unwrap();
    assert_eq!(requests::maintain_once(&pool, KEPT).await.unwrap(), 0);
    assert_eq!(count(&client, "requests").await, 2);

    let two_days = Duration::from_secs(2 * 86_400);
    let dropped = requests::maintain_once(&pool, two_days).await.unwrap();
    assert_eq!(dropped, 5);
    assert_eq!(count(&client, "requests").await, 1);
    assert_eq!(requests::maintain_once(&pool, two_days).await.unwrap(), 0);
    // Nobody takes the old id for a new one meanwhile.
    let orders = Orders::new(pool.clone(), PATIENCE, two_days);
    let request = CreateOrderRequest {
        wait: None,
        customer_id: customer.to_string(),
        total: money(1, "USD"),
        request_id: id,
    };
    let outcome = orders.create_order(Caller::Operator.asks(request)).await;
    is_refused(
        outcome.map(|one| one.into_inner().order.unwrap()),
        "too long ago",
    );
}

/// By those who keep more: after their setting was raised, or beside a replica that keeps less.
#[tokio::test]
async fn what_was_forgotten_is_refused_however_long_answers_are_kept_by_now() {
    let pool = database().await;
    let five_days_ago = || drawn(-5 * 86_400);
    let (id, customer) = (five_days_ago(), Uuid::now_v7());
    let order = create(&pool, &id, customer, 1).await.unwrap();
    let two_days = Duration::from_secs(2 * 86_400);
    let client = pool.get().await.unwrap();
    for _ in 0..2 {
        requests::maintain_once(&pool, two_days).await.unwrap();
        is_refused(create(&pool, &id, customer, 1).await, "too long ago");
        // The day is not made anew, as if nothing had been in it.
        assert_eq!(requests::maintain_once(&pool, KEPT).await.unwrap(), 0);
        is_refused(create(&pool, &id, customer, 1).await, "too long ago");
        let unknown = cancel(&pool, &five_days_ago(), &order.order_id).await;
        is_refused(unknown, "too long ago");
    }
    assert_eq!(count(&client, "orders WHERE state = 'pending'").await, 1);
    assert_eq!(count(&client, "orders").await, 1);

    // What neither of them has forgotten takes effect, once.
    let id = drawn(-86_400);
    let first = create(&pool, &id, customer, 1).await.unwrap();
    assert_eq!(create(&pool, &id, customer, 1).await.unwrap(), first);
    assert_eq!(count(&client, "orders").await, 2);
}
