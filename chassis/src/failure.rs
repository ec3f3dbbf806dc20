//! What is told when the database does not do its work: callers learn whether to try again, the log
//! learns why. No SQL and no name of a host reaches a caller.

use std::error::Error;
use std::time::Duration;

use deadpool_postgres::Pool;
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tonic::Status;

pub use lease::Lease;

mod lease;

/// A request waits so long for a free connection. More requests than that need cannot be served in
/// time anyway; to tell early lets their callers go elsewhere.
const POOL_WAIT: Duration = Duration::from_secs(2);

/// Requests that may wait, for each connection there is. Together they are served within a fraction of a
/// second; where more came than that, all would wait until nobody waits for their answers, and what was begun
/// for them would be thrown away, with its connection: far more than is served would be refused in the end.
const WAITING_PER_CONNECTION: usize = 16;

const UNAVAILABLE: &str = "the database does not answer in time: nothing was done; try again later";
const BUSY: &str = "too many requests wait for the database: nothing was done; try again later";
const UNKNOWN_OUTCOME: &str = "the database went away while the change was being committed: \
                               look whether it was made before trying again";
const INTERNAL: &str = "the request failed in a way that trying again does not mend; \
                        the service's log says why";

/// A connection for a request, or `UNAVAILABLE`: at once where too many wait already, and else when there is
/// none within a bounded time. Give it back by [`Lease::release`] when its statements have been answered.
pub async fn connection(pool: &Pool) -> Result<Lease, Status> {
    let status = pool.status();
    if status.waiting >= status.max_size * WAITING_PER_CONNECTION {
        return Err(Status::unavailable(BUSY));
    }
    own_connection(pool).await
}

/// The same for the service's own work, which is not refused because requests are waiting.
pub async fn own_connection(pool: &Pool) -> Result<Lease, Status> {
    match timeout(POOL_WAIT, pool.get()).await {
        Ok(Ok(connection)) => Ok(Lease::new(connection)),
        Ok(Err(error)) => {
            tracing::warn!(error = chain(&error), "no connection to Postgres");
            Err(Status::unavailable(UNAVAILABLE))
        }
        Err(_) => {
            tracing::warn!(waited = ?POOL_WAIT, "no free connection to Postgres");
            Err(Status::unavailable(UNAVAILABLE))
        }
    }
}

/// The status for a statement that failed before anything was committed.
pub fn status(error: tokio_postgres::Error) -> Status {
    let why = chain(&error);
    if passes(&error) {
        tracing::warn!(error = why, "a statement failed for now");
        Status::unavailable(UNAVAILABLE)
    } else {
        internal(&why)
    }
}

/// Whether time may mend it, by SQLSTATE: connection (08), serialization and deadlock (40), resources
/// (53), locks (55), time-out and shutdown (57), and a server that is read-only, because it is a standby
/// now; and what has no SQLSTATE, which is the connection.
fn passes(error: &tokio_postgres::Error) -> bool {
    error.code().is_none_or(|state| {
        let class = state.code().get(..2).unwrap_or_default();
        ["08", "40", "53", "55", "57"].contains(&class)
            || *state == SqlState::READ_ONLY_SQL_TRANSACTION
    })
}

/// The status for a commit that failed. Without an answer from Postgres nobody knows the outcome.
pub fn commit_status(error: tokio_postgres::Error) -> Status {
    if error.as_db_error().is_some() {
        return status(error);
    }
    tracing::warn!(
        error = chain(&error),
        "the outcome of a commit is not known"
    );
    Status::unavailable(UNKNOWN_OUTCOME)
}

/// The status for what neither the caller nor time mends.
pub fn internal(why: &str) -> Status {
    tracing::error!(error = why, "a request failed for good");
    Status::internal(INTERNAL)
}

/// An error with its causes in one line: tokio-postgres tells the reason only in the cause.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}
