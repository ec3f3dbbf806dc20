//! Where there is no room for a new order, a repeat of a request that was granted still gets the first answer.

use std::task::Poll;

use chassis::auth::Caller;
use deadpool_postgres::Pool;
use futures_util::future::join_all;
use futures_util::poll;
use harness::eventually;
use order_service::api::Orders;
use order_service::backlog::Backlog;
use proto::orders::v1::order_service_server::OrderService as _;
use proto::orders::v1::{CreateOrderRequest, Order, OrderState};
use tonic::{Code, Status};
use uuid::Uuid;

use crate::reactions::reserved;
use crate::replica::{Replica, SOON};
use crate::support::{KEPT, PATIENCE, apply, count, database, money, pending};

/// So many retries are looked up at once.
const LOOK_MAX: usize = 256;

fn request(total: i64) -> CreateOrderRequest {
    CreateOrderRequest {
        customer_id: Uuid::now_v7().to_string(),
        total: money(total, "USD"),
        request_id: Uuid::now_v7().to_string(),
        wait: None,
    }
}

async fn create(orders: &Orders, asked: &CreateOrderRequest) -> Result<Order, Status> {
    let request = Caller::Operator.asks(asked.clone());
    let created = orders.create_order(request).await?;
    Ok(created.into_inner().order.unwrap())
}

/// A service with room for one pending order.
async fn for_one() -> (Orders, Backlog, Pool) {
    let pool = database().await;
    let backlog = Backlog::new(1);
    let orders = Orders::new(pool.clone(), PATIENCE, KEPT).bounded_by(backlog.clone());
    (orders, backlog, pool)
}

#[track_caller]
fn is_full(answer: Result<Order, Status>) {
    let refused = answer.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
}

#[tokio::test]
async fn a_retry_gets_the_first_answer_while_too_many_orders_are_pending() {
    let (orders, backlog, pool) = for_one().await;
    let asked = request(100);
    let first = create(&orders, &asked).await.unwrap();
    is_full(create(&orders, &request(100)).await);
    assert_eq!(create(&orders, &asked).await.unwrap(), first);
    backlog.count(&pool).await.unwrap();
    assert_eq!(create(&orders, &asked).await.unwrap(), first);

    let other = CreateOrderRequest {
        total: money(101, "USD"),
        ..asked.clone()
    };
    let refused = create(&orders, &other).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    assert!(refused.message().starts_with("request_id: "), "{refused}");
    let without = CreateOrderRequest {
        request_id: String::new(),
        ..asked
    };
    is_full(create(&orders, &without).await);
    let client = pool.get().await.unwrap();
    assert_eq!(count(&client, "orders").await, 1);
}

#[tokio::test]
async fn retries_at_once_get_their_own_answers() {
    let pool = database().await;
    let backlog = Backlog::new(10);
    let orders = Orders::new(pool.clone(), PATIENCE, KEPT).bounded_by(backlog);
    let mut granted = Vec::new();
    for total in 1..=10 {
        let asked = request(total);
        let first = create(&orders, &asked).await.unwrap();
        granted.push((asked, first));
    }
    let mut asked: Vec<_> = granted.iter().map(|(asked, _)| asked.clone()).collect();
    // Twice each, one of another body, and one that is new.
    asked.extend(asked.clone());
    asked.push(CreateOrderRequest {
        total: money(7, "EUR"),
        ..asked[3].clone()
    });
    asked.push(request(1));
    let mut answers = join_all(asked.iter().map(|asked| create(&orders, asked))).await;
    is_full(answers.pop().unwrap());
    let refused = answers.pop().unwrap().unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
    let firsts = || granted.iter().map(|(_, first)| first.clone());
    let expected: Vec<_> = firsts().chain(firsts()).collect();
    assert_eq!(answers, expected);
}

#[tokio::test]
async fn refusals_are_bounded_in_number_and_time_while_the_database_takes_its_time() {
    let (orders, _, pool) = for_one().await;
    let asked = request(100);
    let first = create(&orders, &asked).await.unwrap();
    let beside = pool.get().await.unwrap();
    beside
        .batch_execute("BEGIN; LOCK TABLE requests IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    let mut looks = Vec::new();
    for _ in 0..LOOK_MAX {
        let mut one = Box::pin(create(&orders, &asked));
        assert!(poll!(&mut one).is_pending());
        looks.push(one);
    }
    // At once, as who has no id to look for.
    let Poll::Ready(answer) = poll!(Box::pin(create(&orders, &asked))) else {
        panic!("it waits for a look");
    };
    is_full(answer);
    // Nobody waits for as long as the table is held.
    let refused = tokio::time::timeout(SOON, join_all(looks)).await.unwrap();
    refused.into_iter().for_each(is_full);
    beside.batch_execute("COMMIT").await.unwrap();
    assert_eq!(create(&orders, &asked).await.unwrap(), first);
}

#[tokio::test]
async fn a_retry_that_is_let_in_takes_no_place_among_the_pending_orders() {
    let pool = database().await;
    let backlog = Backlog::new(3);
    let orders = Orders::new(pool.clone(), PATIENCE, KEPT).bounded_by(backlog.clone());
    let asked = request(100);
    let first = create(&orders, &asked).await.unwrap();
    for _ in 0..5 {
        assert_eq!(create(&orders, &asked).await.unwrap(), first);
    }
    backlog.count(&pool).await.unwrap();
    for _ in 0..5 {
        assert_eq!(create(&orders, &asked).await.unwrap(), first);
    }
    create(&orders, &request(100)).await.unwrap();
    create(&orders, &request(100)).await.unwrap();
    is_full(create(&orders, &request(100)).await);
}

#[tokio::test]
async fn a_retry_that_waits_where_nobody_more_can_is_told_how_its_order_stands() {
    let replica = Replica::start(1).await;
    let mut asked = request(100);
    let first = create(&replica.orders, &asked).await.unwrap();
    let watched = pending(&replica.pool).await;
    let _watching = replica.watch(&watched.order_id).await.unwrap();
    asked.wait = Some(proto::Duration {
        seconds: 20,
        nanos: 0,
    });
    assert_eq!(create(&replica.orders, &asked).await.unwrap(), first);
    apply(&replica.pool, vec![reserved(&first)]).await.unwrap();
    let approved = create(&replica.orders, &asked).await.unwrap();
    assert_eq!(approved.order_id, first.order_id);
    assert_eq!(approved.state(), OrderState::Approved);
    asked.request_id = Uuid::now_v7().to_string();
    is_full(create(&replica.orders, &asked).await);
}

#[tokio::test]
async fn a_retry_waits_for_the_outcome_while_too_many_orders_are_pending() {
    let replica = Replica::start(2).await;
    let backlog = Backlog::new(1);
    let orders = Orders::new(replica.pool.clone(), PATIENCE, KEPT)
        .watched_by(replica.hub.clone())
        .bounded_by(backlog);
    let mut asked = request(100);
    let first = create(&orders, &asked).await.unwrap();
    asked.wait = Some(proto::Duration {
        seconds: 20,
        nanos: 0,
    });
    let approve = async {
        eventually("somebody to wait", SOON, async || {
            Ok((replica.hub.watchers() == 1).then_some(()))
        })
        .await
        .unwrap();
        apply(&replica.pool, vec![reserved(&first)]).await.unwrap();
        let order_id: Uuid = first.order_id.parse().unwrap();
        replica.hub.signal(order_id.into());
    };
    let (retried, ()) = tokio::join!(create(&orders, &asked), approve);
    let retried = retried.unwrap();
    assert_eq!(retried.order_id, first.order_id);
    assert_eq!(retried.state(), OrderState::Approved);
}
