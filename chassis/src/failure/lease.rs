//! A pooled connection that is not lent again before Postgres is done with it.
//!
//! Danger: a request whose deadline passes is dropped at any await, with a statement still running.
//! Lent again at once, its connection would make the next request wait behind that statement; and
//! closed, Postgres would run the statement on, beside the connection that takes its place. Either
//! way the pool would bound nothing (I12) just when the database is slow.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use deadpool_postgres::Object;
use tokio::{runtime::Handle, time::timeout};
use tokio_postgres::Error;

use crate::postgres::Connector;

/// What Postgres may take to end what a request left behind. A cancelled statement ends at once,
/// unless the server is in distress; then the connection is given up.
const SETTLE: Duration = Duration::from_secs(10);

/// A connection of the pool. Dropped without [`Lease::release`], it keeps its place in the pool until
/// what runs on it has been cancelled and has ended; then another one may take the place.
#[derive(Debug)]
pub struct Lease {
    /// Taken only by `release` and `drop`.
    connection: Option<Object>,
}

impl Lease {
    pub(super) fn new(connection: Object) -> Self {
        Self {
            connection: Some(connection),
        }
    }

    /// Gives the connection back. To be called when all its statements have been answered.
    pub fn release(mut self) {
        self.connection = None;
    }
}

impl Deref for Lease {
    type Target = Object;

    fn deref(&self) -> &Object {
        self.connection.as_ref().expect("held until dropped")
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut Object {
        self.connection.as_mut().expect("held until dropped")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else {
            return;
        };
        let Ok(runtime) = Handle::try_current() else {
            drop(Object::take(connection));
            return;
        };
        runtime.spawn(async move {
            if timeout(SETTLE, settle(&connection)).await.is_err() {
                tracing::warn!(waited = ?SETTLE, "a statement of a dropped request does not end");
            }
            // Not lent again: the cancellation may arrive late, and would meet another's statement.
            drop(Object::take(connection));
        });
    }
}

/// Ends the statement in flight, and waits until it and the rollback behind it are answered: they
/// are answered in turn, so the answer to one more is the last. An error says that nothing runs either.
async fn settle(connection: &Object) -> Result<(), Error> {
    let cancel = connection.cancel_token();
    cancel.cancel_query(Connector::unchecked()).await?;
    connection.simple_query("").await.map(drop)
}
