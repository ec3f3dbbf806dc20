//! Cancels orders that are pending past their deadline (I8): the Customer Service is away, or its answer
//! is. If the answer comes after all, `OrderCancelled` releases what it reserved (I9).
//!
//! Any number of replicas sweep at once. Each locks what it takes and passes over what another one holds,
//! so an order is cancelled once, and a sweep never waits for an order that is being settled.

use std::time::{Duration, SystemTime};

use chassis::failure;
use deadpool_postgres::{Client, Pool};
use rand::RngExt as _;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::changes::Changes;
use crate::domain::Input;
use crate::store;

/// Orders that one transaction cancels at most: row locks are held no longer than for a consumer's batch.
pub const BATCH_MAX: usize = 256;

/// On average; what it adds to a deadline. Looking costs a look at an index with nothing in it.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// After a failure: a database that does not answer is not asked more often by all replicas.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Sweeps now and then, until `token` is cancelled. What fails is logged, and tried again.
pub async fn run(pool: Pool, token: CancellationToken) {
    metrics::describe_counter!(
        "order_sweeps_failed_total",
        "looks for orders past their deadline that failed"
    );
    while !token.is_cancelled() {
        let wait = match sweep(&pool).await {
            // There may be more.
            Ok(BATCH_MAX) => continue,
            Ok(_) => SWEEP_EVERY,
            Err(_logged) => {
                metrics::counter!("order_sweeps_failed_total").increment(1);
                RETRY_AFTER
            }
        };
        // Replicas that started together do not look together.
        let jitter = rand::rng().random_range(0.5..1.5);
        tokio::select! {
            () = token.cancelled() => {}
            () = tokio::time::sleep(wait.mul_f64(jitter)) => {}
        }
    }
}

async fn sweep(pool: &Pool) -> Result<usize, Status> {
    let mut connection = failure::own_connection(pool).await?;
    let outcome = time_out(&mut connection, store::now()).await;
    connection.release();
    let cancelled = outcome?;
    if cancelled > 0 {
        tracing::warn!(
            cancelled,
            "orders were pending past their deadline; is the Customer Service, or a relay, away?"
        );
    }
    Ok(cancelled)
}

/// Cancels at most [`BATCH_MAX`] orders whose deadline has passed at `now`, in one transaction; returns
/// how many. Two statements beside the look, whatever the count.
pub async fn time_out(client: &mut Client, now: SystemTime) -> Result<usize, Status> {
    let tx = client.transaction().await.map_err(failure::status)?;
    let overdue = store::lock_overdue(&tx, now, BATCH_MAX).await;
    let mut overdue = overdue.map_err(failed)?;
    let mut changes = Changes::default();
    for order in &mut overdue {
        changes.apply(order, Input::TimeOut, now, None);
    }
    changes.write(&tx).await.map_err(failed)?;
    tx.commit().await.map_err(failure::commit_status)?;
    Ok(overdue.len())
}

fn failed(error: store::Error) -> Status {
    match error {
        store::Error::Postgres(error) => failure::status(error),
        other => failure::internal(&other.to_string()),
    }
}
