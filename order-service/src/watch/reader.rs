//! Looks at the orders that are due, many with one query, and tells the hub which have their outcome.
//!
//! It takes a connection for a query and gives it back: however many wait, one is in use at most. While a
//! query runs the next signals gather, so the busier it is, the more orders a query looks at.

use std::time::Duration;

use chassis::failure;
use deadpool_postgres::Pool;
use rand::RngExt as _;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use uuid::Uuid;

use super::Hub;
use crate::domain::OrderId;
use crate::store::{self, Settled};

/// Orders that one query looks at.
const ORDERS_MAX: usize = 1_000;

/// What a lost signal adds to an outcome's way to its watcher. It costs a query for a thousand watched
/// orders, each a step into the index.
pub const LOOK_AT_ALL_EVERY: Duration = Duration::from_secs(5);

/// After a failure. A database that does not answer is not asked more often on account of watchers.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Until `token` is cancelled; at all of them about each `every`. What fails is logged, and tried again.
pub async fn run(hub: Hub, pool: Pool, every: Duration, token: CancellationToken) {
    metrics::describe_counter!(
        "order_watch_queries_total",
        "queries how watched orders stand, by outcome"
    );
    metrics::describe_counter!(
        "order_watch_looks_total",
        "orders that these queries looked at"
    );
    metrics::describe_counter!(
        "order_watch_unreadable_total",
        "looks at orders that this version cannot read, which a newer one may have written"
    );
    metrics::counter!("order_watch_unreadable_total").increment(0);
    // Replicas that started together do not look together.
    let every = every.mul_f64(rand::rng().random_range(0.8..1.2));
    let mut all = tokio::time::interval(every);
    while !token.is_cancelled() {
        tokio::select! {
            () = token.cancelled() => return,
            _ = all.tick() => hub.look_at_all(),
            () = hub.due() => {
                let taken = hub.take_due(ORDERS_MAX);
                if taken.is_empty() {
                    continue;
                }
                if let Err(_logged) = look(&hub, &pool, &taken).await {
                    hub.put_back(&taken, RETRY_AFTER);
                    let wait = tokio::time::sleep(RETRY_AFTER);
                    token.run_until_cancelled(wait).await;
                }
            }
        }
    }
}

async fn look(hub: &Hub, pool: &Pool, taken: &[OrderId]) -> Result<(), Status> {
    let found = settled(pool, taken).await;
    let outcome = if found.is_ok() { "ok" } else { "failed" };
    metrics::counter!("order_watch_queries_total", "outcome" => outcome).increment(1);
    let found = found?;
    metrics::counter!("order_watch_looks_total").increment(taken.len() as u64);
    let unreadable: Vec<OrderId> = found.unreadable.iter().map(|(id, _)| *id).collect();
    report(&found.unreadable);
    hub.seen(taken, &found.orders, &unreadable);
    Ok(())
}

/// One line for all of them: there may be many.
fn report(unreadable: &[(OrderId, store::Error)]) {
    let Some((order_id, why)) = unreadable.first() else {
        return;
    };
    let count = unreadable.len();
    tracing::error!(order_id = %Uuid::from(*order_id), error = %why, count, "watched orders cannot be read");
    metrics::counter!("order_watch_unreadable_total").increment(count as u64);
}

async fn settled(pool: &Pool, taken: &[OrderId]) -> Result<Settled, Status> {
    let connection = failure::own_connection(pool).await?;
    let found = store::settled(&connection, taken).await;
    connection.release();
    found.map_err(|error| match error {
        store::Error::Postgres(error) => failure::status(error),
        other => failure::internal(&other.to_string()),
    })
}
