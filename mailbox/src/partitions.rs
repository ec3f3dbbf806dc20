//! Keeps daily partitions ahead of time for outbox and inbox.
//!
//! Without them rows go to the default partitions: nothing fails, but such rows cannot be retired by
//! dropping a table. A day whose first row is in the default partition stays there.

use std::time::Duration;

use deadpool_postgres::Pool;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error, GenericClient};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Days for which partitions exist, today included: how long maintenance may fail unnoticed.
pub const DAYS_AHEAD: i32 = 7;

/// Cheap when there is nothing to do, and far more often than days pass.
const MAINTAIN_EVERY: Duration = Duration::from_secs(3600);

/// After a failure, such as a lock that could not be had.
const RETRY_AFTER: Duration = Duration::from_secs(60);

/// As the owner of the tables: who runs this makes none.
const ENSURE: &str = "SELECT public.mailbox_prepare_days($1)";

/// Marks of processes that died, left behind by events that were settled since or went with their stream.
const FORGET_MARKS: &str =
    "DELETE FROM public.inbox_marks WHERE last_begun < now() - interval '30 days'";

/// Makes sure that outbox and inbox have a partition for today (UTC) and those after it, `days` in all;
/// returns how many were created. Concurrent calls wait for each other.
///
/// # Errors
/// The migrations have not run, a lock was not had within 5 s, or the connection is lost.
pub async fn ensure(client: &Client, days: i32) -> Result<i32, Error> {
    ensure_by(client, days).await
}

async fn ensure_by(client: &impl GenericClient, days: i32) -> Result<i32, Error> {
    let rows = client.query_typed(ENSURE, &[(&days, Type::INT4)]).await?;
    Ok(rows.iter().map(|row| row.get::<_, i32>(0)).sum())
}

/// Calls [`ensure`] now and then hourly, until `token` is cancelled. Failures are logged and tried
/// again: the default partitions take the rows meanwhile.
pub async fn maintain(pool: Pool, token: CancellationToken) {
    loop {
        let outcome = tokio::select! {
            () = token.cancelled() => return,
            outcome = maintain_once(&pool) => outcome,
        };
        let wait = match outcome {
            Ok(0) => MAINTAIN_EVERY,
            Ok(created) => {
                info!(created, "created partitions of outbox and inbox");
                MAINTAIN_EVERY
            }
            Err(error) => {
                warn!(%error, "could not create partitions of outbox and inbox; trying again in a minute");
                RETRY_AFTER
            }
        };
        tokio::select! {
            () = token.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

async fn maintain_once(pool: &Pool) -> Result<i32, Box<dyn std::error::Error + Send + Sync>> {
    let mut client = pool.get().await?;
    let tx = client.transaction().await?;
    // A new partition makes Postgres read the whole default partition. If that once took longer than
    // the pool lets a statement take, it would for ever: the more rows go there, the longer.
    tx.batch_execute("SET LOCAL statement_timeout = 0").await?;
    let created = ensure_by(&*tx, DAYS_AHEAD).await?;
    tx.batch_execute(FORGET_MARKS).await?;
    tx.commit().await?;
    Ok(created)
}
