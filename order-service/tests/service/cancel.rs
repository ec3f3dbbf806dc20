//! What clients are told who cancel an order, and what becomes of it.

use std::time::Duration;

use deadpool_postgres::Pool;
use harness::eventually;
use mailbox::inbox::Delivery;
use order_service::api::Orders;
use proto::orders::v1::{CancellationReason, Order, OrderApproved, OrderCancelled, OrderState};
use tonic::Code;
use uuid::Uuid;

use crate::reactions::{exceeded, ignored, reserved, state};
use crate::support::{
    KEPT, PATIENCE, apply, cancel, count, database, events, get, handle, pending,
};

const DEADLINE: Duration = Duration::from_secs(30);

fn told(order: &Order) -> OrderCancelled {
    OrderCancelled {
        order_id: order.order_id.clone(),
        customer_id: order.customer_id.clone(),
        total: order.total.clone(),
        reason: CancellationReason::ByCustomer.into(),
    }
}

#[tokio::test]
async fn an_order_is_cancelled_while_it_is_pending_and_when_it_is_approved() {
    let pool = database().await;
    let orders = Orders::new(pool.clone(), PATIENCE, KEPT);
    let (waits, goes_ahead) = (pending(&pool).await, pending(&pool).await);
    apply(&pool, vec![reserved(&goes_ahead)]).await.unwrap();

    for order in [&waits, &goes_ahead] {
        let answered = cancel(&orders, &order.order_id).await.unwrap();
        assert_eq!(answered.state(), OrderState::Cancelled);
        assert_eq!(
            answered.cancellation_reason(),
            CancellationReason::ByCustomer
        );
        assert_eq!(get(&orders, &order.order_id).await.unwrap(), answered);
    }
    let client = pool.get().await.unwrap();
    let cancelled: Vec<OrderCancelled> = events(&client).await;
    assert_eq!(cancelled, [told(&waits), told(&goes_ahead)]);

    // Neither without the other.
    let third = pending(&pool).await;
    let break_outbox = "ALTER TABLE outbox ADD CONSTRAINT nothing_fits CHECK (false) NOT VALID";
    client.batch_execute(break_outbox).await.unwrap();
    let refused = cancel(&orders, &third.order_id).await.unwrap_err();
    assert_eq!(refused.code(), Code::Internal);
    assert_eq!(get(&orders, &third.order_id).await.unwrap(), third);
}

#[tokio::test]
async fn a_cancelled_order_is_answered_as_it_is_and_nobody_is_told_again() {
    let before = ignored("cancelled", "cancel");
    let pool = database().await;
    let orders = Orders::new(pool.clone(), PATIENCE, KEPT);
    let (ours, refused) = (pending(&pool).await, pending(&pool).await);
    apply(&pool, vec![exceeded(&refused)]).await.unwrap();
    let refused = get(&orders, &refused.order_id).await.unwrap();
    let ours = cancel(&orders, &ours.order_id).await.unwrap();

    for order in [ours, refused] {
        // With the first reason, and the first time.
        assert_eq!(cancel(&orders, &order.order_id).await.unwrap(), order);
    }
    let client = pool.get().await.unwrap();
    assert_eq!(events::<OrderCancelled>(&client).await.len(), 2);
    // Of this process: the tests beside this one count there too.
    assert!(ignored("cancelled", "cancel") - before >= 2);
}

#[tokio::test]
async fn an_order_that_is_not_there_cannot_be_cancelled() {
    let pool = database().await;
    let orders = Orders::new(pool.clone(), PATIENCE, KEPT);
    let id = Uuid::now_v7().to_string();
    let refused = cancel(&orders, &id).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    assert!(refused.message().contains(&id));
    let refused = cancel(&orders, "x").await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(count(&pool.get().await.unwrap(), "outbox").await, 0);
}

#[tokio::test]
async fn an_answer_to_a_cancelled_order_changes_nothing() {
    const LATE: &str = "customers.v1.CreditReserved";
    let before = ignored("cancelled", LATE);
    let pool = database().await;
    let orders = Orders::new(pool.clone(), PATIENCE, KEPT);
    let order = pending(&pool).await;
    let cancelled = cancel(&orders, &order.order_id).await.unwrap();
    apply(&pool, vec![reserved(&order)]).await.unwrap();

    assert_eq!(get(&orders, &order.order_id).await.unwrap(), cancelled);
    let client = pool.get().await.unwrap();
    assert_eq!(events::<OrderApproved>(&client).await, []);
    // At least: other tests count in the same process.
    assert!(ignored("cancelled", LATE) > before);
}

/// Applies an answer in one transaction, and cancels in another, which must be seen waiting for the first.
async fn cancel_behind(pool: &Pool, order: &Order, answer: Delivery) -> Order {
    let orders = Orders::new(pool.clone(), PATIENCE, KEPT);
    let mut client = pool.get().await.unwrap();
    let pid = "SELECT pg_backend_pid()";
    let holder: i32 = client.query_one(pid, &[]).await.unwrap().get(0);
    let tx = client.transaction().await.unwrap();
    handle(&tx, vec![answer]).await.unwrap();

    let id = order.order_id.clone();
    let cancelling = tokio::spawn(async move { cancel(&orders, &id).await });
    let observer = pool.get().await.unwrap();
    eventually("the cancel to wait", DEADLINE, async || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE $1 = ANY (pg_blocking_pids(pid))";
        let row = observer.query_one(sql, &[&holder]).await?;
        Ok((row.get::<_, i64>(0) > 0).then_some(()))
    })
    .await
    .unwrap();
    tx.commit().await.unwrap();
    cancelling.await.unwrap().unwrap()
}

#[tokio::test]
async fn a_cancel_finds_what_the_answer_that_was_being_applied_has_done() {
    let pool = database().await;
    let (good, bad) = (pending(&pool).await, pending(&pool).await);
    let cancelled = cancel_behind(&pool, &good, reserved(&good)).await;
    assert_eq!(
        cancelled.cancellation_reason(),
        CancellationReason::ByCustomer
    );
    let client = pool.get().await.unwrap();
    assert_eq!(events::<OrderApproved>(&client).await.len(), 1);
    assert_eq!(events::<OrderCancelled>(&client).await, [told(&good)]);

    // Refused in the meantime: cancelled already, for that reason, and once.
    let cancelled = cancel_behind(&pool, &bad, exceeded(&bad)).await;
    let refused = CancellationReason::CreditLimitExceeded;
    assert_eq!(cancelled.cancellation_reason(), refused);
    assert_eq!(state(&pool, &bad).await, (OrderState::Cancelled, refused));
    assert_eq!(events::<OrderCancelled>(&client).await.len(), 2);
}
