//! So many orders are pending at most, whoever placed them; the next one is refused before anything is done.

use std::time::Duration;

use harness::eventually;
use order_service::api::Orders;
use order_service::backlog::{self, Backlog};
use proto::orders::v1::Order;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};
use uuid::Uuid;

use crate::support::{KEPT, PATIENCE, cancel, count, create, database, pending};

const MAX: usize = 3;
const SOON: Duration = Duration::from_secs(30);

async fn place(orders: &Orders) -> Result<Order, Status> {
    create(orders, Uuid::now_v7(), 100).await
}

fn assert_full(answer: Result<Order, Status>) {
    let refused = answer.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    for part in ["3 orders wait", "nothing was done", "PENDING_ORDERS_MAX"] {
        assert!(refused.message().contains(part), "{refused}");
    }
}

#[tokio::test]
async fn one_order_too_many_is_refused_until_another_is_settled() {
    let pool = database().await;
    let backlog = Backlog::new(MAX);
    let orders = Orders::new(pool.clone(), PATIENCE, KEPT).bounded_by(backlog.clone());
    let mut first = None;
    for _ in 0..MAX {
        first = Some(place(&orders).await.unwrap());
    }
    // Nobody has counted yet: it knows of those that it has let in.
    assert_full(place(&orders).await);
    backlog.count(&pool).await.unwrap();
    assert_full(place(&orders).await);
    let connection = pool.get().await.unwrap();
    assert_eq!(count(&connection, "orders").await, 3);
    assert_eq!(count(&connection, "outbox").await, 3);
    drop(connection);

    cancel(&orders, &first.unwrap().order_id).await.unwrap();
    let token = CancellationToken::new();
    let counting = backlog::run(backlog, pool, token.clone());
    let counting = tokio::spawn(counting);
    eventually("room for another", SOON, async || {
        Ok(Some(place(&orders).await?))
    })
    .await
    .unwrap();
    assert_full(place(&orders).await);
    token.cancel();
    counting.await.unwrap();
}

#[tokio::test]
async fn what_was_placed_elsewhere_or_before_counts_too() {
    let pool = database().await;
    for _ in 0..MAX {
        pending(&pool).await;
    }
    let backlog = Backlog::new(MAX);
    let orders = Orders::new(pool.clone(), PATIENCE, KEPT).bounded_by(backlog.clone());
    backlog.count(&pool).await.unwrap();
    assert_full(place(&orders).await);
}
