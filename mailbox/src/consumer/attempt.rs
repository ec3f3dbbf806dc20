//! One attempt: claim, handle and commit, in one transaction (I4).

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use deadpool_postgres::{Object, Pool};
use futures_util::FutureExt;
use futures_util::future::try_join;
use tokio::time::{Instant, timeout_at};
use tokio_postgres::error::SqlState;
use uuid::Uuid;

use super::Handler;
use super::failure::Failure;
use crate::inbox::{self, Claimed, Delivery};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Postgres answers COMMIT of a failed transaction with a rollback, and the client takes that for success: a
/// handler that swallowed an SQL error would get its event acknowledged and lost (I10). So something is asked
/// first, which a failed transaction refuses; sent as one query, what follows a refusal is not executed.
const COMMIT_UNLESS_FAILED: &str = "SELECT 1; COMMIT";

/// Why an attempt failed. The first three concern its events, the last one concerns none; of those between
/// nobody knows.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Setback {
    /// The handler, or Postgres, refuses the events.
    #[error("{0}")]
    Definite(String),
    /// The handler is broken: it panicked, or ignored a failed statement. Whether on account of its
    /// events, only repetition tells.
    #[error("{0}")]
    Fault(String),
    /// This version does not know what the events are; another one may.
    #[error("{0}")]
    Unknown(String),
    /// It was given up because of the time that it took.
    #[error("not finished within {0:?}")]
    Late(Duration),
    /// Another attempt may succeed.
    #[error("{}", chain(.0.as_ref()))]
    Transient(BoxError),
    /// The connection was lost while the events were applied, and the server took no leave, as one does that
    /// shuts down: a network that fails, or an event that kills its backend, here or in another session, which
    /// Postgres ends with it. Only repetition tells.
    #[error("the connection to Postgres was lost amid it: {}", chain(.0.as_ref()))]
    Broken(BoxError),
    /// Postgres does not answer: no attempt can succeed until it does.
    #[error("Postgres is unavailable: {}", chain(.0.as_ref()))]
    Unavailable(BoxError),
}

impl Setback {
    /// The value of the label `kind`.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Definite(_) => "definite",
            _ => "transient",
        }
    }

    /// Another transaction was in the way, and has ended or will soon: the same events may succeed as
    /// they are.
    pub(super) fn is_conflict(&self) -> bool {
        self.state().is_some_and(|state| {
            state.code().starts_with("40") || *state == SqlState::LOCK_NOT_AVAILABLE
        })
    }

    /// Time ran out, here or in Postgres.
    pub(super) fn is_late(&self) -> bool {
        matches!(self, Self::Late(_))
            || self
                .state()
                .is_some_and(|state| *state == SqlState::QUERY_CANCELED)
    }

    /// A server that shuts down in order says so before it closes the connection. One that ends all sessions
    /// because one has crashed, or at once, says so too, but by a notice, which no error shows: for those that
    /// had no part in it that is [`Setback::Broken`], as for the one that has.
    fn is_farewell(&self) -> bool {
        self.state()
            .is_some_and(|state| *state == SqlState::ADMIN_SHUTDOWN)
    }

    /// What Postgres said, if it was Postgres, and what it said passes.
    fn state(&self) -> Option<&SqlState> {
        let Self::Transient(error) = self else {
            return None;
        };
        let postgres = error.downcast_ref::<tokio_postgres::Error>();
        postgres.and_then(tokio_postgres::Error::code)
    }
}

impl From<Failure> for Setback {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Definite(reason) => Self::Definite(reason),
            Failure::Unknown(reason) => Self::Unknown(reason),
            Failure::Transient(error) => Self::Transient(error),
        }
    }
}

/// An error with its causes: `db error` alone tells nobody anything.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(error.source(), |e| e.source())
        .fold(error.to_string(), |text, e| format!("{text}: {e}"))
}

/// Applies those of `deliveries` that are new to `consumer`. Returns their ids in order of delivery,
/// committed; or nothing has happened, unless the connection broke during the commit: the next
/// attempt's claim finds out.
pub(crate) async fn attempt<H: Handler>(
    pool: &Pool,
    consumer: &str,
    within: Duration,
    handler: &H,
    deliveries: Vec<Delivery>,
) -> Result<Vec<Uuid>, Setback> {
    let deadline = Instant::now() + within;
    let late = |_| Setback::Unavailable(format!("no connection within {within:?}").into());
    let mut client = timeout_at(deadline, pool.get())
        .await
        .map_err(late)?
        .map_err(|e| Setback::Unavailable(e.into()))?;
    let outcome = timeout_at(
        deadline,
        transact(&mut client, consumer, within, handler, deliveries),
    )
    .await;
    match outcome {
        Ok(Err(setback)) if setback.is_farewell() => Err(Setback::Unavailable(setback.into())),
        Ok(Err(setback)) if client.is_closed() => Err(Setback::Broken(setback.into())),
        Ok(outcome) => outcome,
        Err(_elapsed) => {
            // A statement may still be running on it. Postgres does not notice that it is closed while
            // it waits for a lock: what ends the transaction, and its claims, is the time limit on
            // statements.
            drop(Object::take(client));
            Err(Setback::Late(within))
        }
    }
}

async fn transact<H: Handler>(
    client: &mut tokio_postgres::Client,
    consumer: &str,
    within: Duration,
    handler: &H,
    deliveries: Vec<Delivery>,
) -> Result<Vec<Uuid>, Setback> {
    let tx = client.transaction().await.map_err(from_postgres)?;
    // In one round trip; sent in this order.
    let limit = limit_statements(within);
    let limited = tx.batch_execute(&limit);
    let ((), claimed) = try_join(limited, inbox::claim(&tx, consumer, deliveries))
        .await
        .map_err(from_postgres)?;
    let applied = if claimed.is_empty() {
        Ok(())
    } else {
        handle(handler, &tx, &claimed).await
    };
    let committed = match applied {
        Ok(()) => commit(&tx).await,
        Err(setback) => Err(setback),
    };
    if let Err(setback) = committed {
        claimed.iter().for_each(Claimed::record_failure);
        // Awaited, so that the next attempt does not wait for these claims. If it fails, the
        // connection is gone, and the transaction with it.
        let _ = tx.rollback().await;
        return Err(setback);
    }
    // It has ended. Dropped, it would send a ROLLBACK; it owns nothing but the way to the client.
    std::mem::forget(tx);
    Ok(claimed.iter().map(|event| event.id).collect())
}

async fn commit(tx: &tokio_postgres::Transaction<'_>) -> Result<(), Setback> {
    match tx.batch_execute(COMMIT_UNLESS_FAILED).await {
        Err(error) if error.code() == Some(&SqlState::IN_FAILED_SQL_TRANSACTION) => {
            Err(Setback::Fault(
                "the handler reported success after a statement had failed in its transaction"
                    .into(),
            ))
        }
        committed => committed.map_err(from_postgres),
    }
}

/// Makes Postgres itself give up a statement that nobody waits for any more.
fn limit_statements(within: Duration) -> String {
    // Postgres's range; 0 would mean no limit.
    let milliseconds = within.as_millis().clamp(1, i32::MAX as u128);
    format!("SET LOCAL statement_timeout = {milliseconds}")
}

/// Runs the handler, and takes a panic for a failure.
async fn handle<H: Handler>(
    handler: &H,
    tx: &tokio_postgres::Transaction<'_>,
    claimed: &[Claimed],
) -> Result<(), Setback> {
    let outcome = AssertUnwindSafe(handler.handle(tx, claimed))
        .catch_unwind()
        .await;
    match outcome {
        Ok(outcome) => Ok(outcome?),
        Err(panic) => Err(Setback::Fault(format!(
            "the handler panicked: {}",
            panic_text(panic.as_ref())
        ))),
    }
}

fn from_postgres(error: tokio_postgres::Error) -> Setback {
    Failure::from_postgres(error).into()
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a text")
}
