//! How many orders are pending, and no more beyond a number.
//!
//! A new order costs one transaction at once and two more before it is settled, so callers can place orders faster
//! than the system settles them. What was taken beyond that would settle ever later, up to its deadline, and then
//! cost a cancellation besides: with the load back to what it was, everybody would wait until all of it is worked
//! off. So whoever comes when so many are pending is refused at once, before anything is done.
//!
//! What counts is the table, which all replicas share. Each counts it now and then, and adds what it has let in
//! since; what the others let in, it sees with its next count. So the number is exceeded by what they let in
//! meanwhile and have in hand, which is bounded in turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use chassis::failure;
use deadpool_postgres::Pool;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::store;

/// Between two counts what has been settled is not known: so much of the number stands idle at most.
pub const COUNT_EVERY: Duration = Duration::from_millis(200);

/// After a failure. Meanwhile what was counted last holds, and no order can be placed anyhow.
const RETRY_AFTER: Duration = Duration::from_secs(1);

const PENDING: &str = "orders_pending";

/// So many are pending already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0} orders wait to be settled already: nothing was done; try again later; the operator raises the \
     limit by PENDING_ORDERS_MAX"
)]
pub struct Full(pub usize);

/// What this replica knows of the pending orders. Clones share it.
#[derive(Clone, Debug)]
pub struct Backlog {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    max: usize,
    /// At the last count, `max` at most.
    counted: AtomicUsize,
    /// All that were ever let in here; wraps around.
    admitted: AtomicUsize,
    /// Of them, those from before the last count.
    before: AtomicUsize,
}

impl Backlog {
    /// For `max` pending orders.
    pub fn new(max: usize) -> Self {
        metrics::describe_gauge!(
            PENDING,
            "orders that are pending at all replicas, counted up to PENDING_ORDERS_MAX"
        );
        Self {
            shared: Arc::new(Shared {
                max,
                counted: AtomicUsize::new(0),
                admitted: AtomicUsize::new(0),
                before: AtomicUsize::new(0),
            }),
        }
    }

    /// Lets one more in.
    ///
    /// # Errors
    /// [`Full`].
    pub fn admit(&self) -> Result<(), Full> {
        let shared = &self.shared;
        let pending = shared.counted.load(Ordering::Relaxed) + self.admitted_since();
        if pending >= shared.max {
            return Err(Full(shared.max));
        }
        shared.admitted.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn admitted_since(&self) -> usize {
        let admitted = self.shared.admitted.load(Ordering::Relaxed);
        admitted.wrapping_sub(self.shared.before.load(Ordering::Relaxed))
    }

    /// Whether nothing was pending and nothing has come since: then nothing needs to be counted.
    fn is_idle(&self) -> bool {
        self.shared.counted.load(Ordering::Relaxed) == 0 && self.admitted_since() == 0
    }

    /// Counts.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn count(&self, pool: &Pool) -> Result<(), Status> {
        let shared = &self.shared;
        // Read first: who is let in while it is counted may be in both figures, and never in none.
        let before = shared.admitted.load(Ordering::Relaxed);
        let mut connection = failure::own_connection(pool).await?;
        let counted = store::count_pending(&mut connection, shared.max).await;
        connection.release();
        let counted = counted.map_err(failure::status)?;
        shared.counted.store(counted, Ordering::Relaxed);
        shared.before.store(before, Ordering::Relaxed);
        metrics::gauge!(PENDING).set(counted as f64);
        Ok(())
    }
}

/// Counts now and then, until `token` is cancelled. What fails is logged, and tried again.
pub async fn run(backlog: Backlog, pool: Pool, token: CancellationToken) {
    let counting = async {
        // What is pending from before is not known yet.
        let mut is_known = false;
        loop {
            if !is_known || !backlog.is_idle() {
                is_known = backlog.count(&pool).await.is_ok();
            }
            let wait = if is_known { COUNT_EVERY } else { RETRY_AFTER };
            tokio::time::sleep(wait).await;
        }
    };
    token.run_until_cancelled(counting).await;
}
