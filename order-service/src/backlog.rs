//! How many orders are pending, and no more beyond a number.
//!
//! A new order costs one transaction at once and two more before it is settled, so callers can place orders faster
//! than the system settles them. What was taken beyond that would settle ever later, up to its deadline, and then
//! cost a cancellation besides: with the load back to what it was, everybody would wait until all of it is worked
//! off. So whoever comes when so many are pending is refused at once, before anything is done.
//!
//! What counts is the table, which all replicas share. Each counts it now and then, and adds what it has let in
//! since; what the others let in, it sees with its next count. So the number is exceeded by what they let in
//! meanwhile and have in hand, which is bounded in turn. What was let in and made no order is given back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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

/// One that was let in, to be given back if it makes no order.
#[derive(Debug)]
pub struct Admitted(u64);

#[derive(Debug)]
struct Shared {
    max: usize,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// At the last count, `max` at most.
    counted: usize,
    /// All that were ever let in here: the number of the next.
    admitted: u64,
    /// Since the last count began, and since the one began that is under way.
    since: Since,
    meanwhile: Since,
}

/// Who was let in from a number on.
#[derive(Clone, Copy, Debug, Default)]
struct Since {
    from: u64,
    given_back: u64,
}

impl Known {
    fn pending(&self) -> usize {
        let since = self.admitted - self.since.from - self.since.given_back;
        self.counted
            .saturating_add(usize::try_from(since).unwrap_or(usize::MAX))
    }

    fn admit(&mut self) -> Admitted {
        let number = self.admitted;
        self.admitted += 1;
        Admitted(number)
    }

    fn give_back(&mut self, admitted: Admitted) {
        self.since.give_back(admitted.0);
        self.meanwhile.give_back(admitted.0);
    }

    fn begin_count(&mut self) {
        self.meanwhile = Since {
            from: self.admitted,
            given_back: 0,
        };
    }

    fn end_count(&mut self, counted: usize) {
        self.counted = counted;
        self.since = self.meanwhile;
    }
}

impl Since {
    /// One from before is in this figure no more.
    fn give_back(&mut self, number: u64) {
        self.given_back += u64::from(number >= self.from);
    }
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
                known: Mutex::default(),
            }),
        }
    }

    /// Lets one more in.
    ///
    /// # Errors
    /// [`Full`].
    pub fn admit(&self) -> Result<Admitted, Full> {
        let mut known = self.known();
        if known.pending() >= self.shared.max {
            return Err(Full(self.shared.max));
        }
        Ok(known.admit())
    }

    /// One that was let in made no order: another may come in its stead.
    pub fn give_back(&self, admitted: Admitted) {
        self.known().give_back(admitted);
    }

    /// Whether nothing was pending and nothing has come since: then nothing needs to be counted.
    fn is_idle(&self) -> bool {
        self.known().pending() == 0
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        let known = self.shared.known.lock();
        known.unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn count(&self, pool: &Pool) -> Result<(), Status> {
        // First: who is let in while it is counted may be in both figures, and never in none.
        self.known().begin_count();
        let mut connection = failure::own_connection(pool).await?;
        let counted = store::count_pending(&mut connection, self.shared.max).await;
        connection.release();
        let counted = counted.map_err(failure::status)?;
        self.known().end_count(counted);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_given_back_counts_no_more_whenever_it_was_let_in() {
        let mut known = Known::default();
        let [before, during] = [(); 2].map(|()| known.admit());
        known.give_back(before);
        assert_eq!(known.pending(), 1);
        known.begin_count();
        let [meanwhile, since] = [(); 2].map(|()| known.admit());
        known.give_back(during);
        known.give_back(meanwhile);
        assert_eq!(known.pending(), 1);
        known.end_count(7);
        assert_eq!(known.pending(), 7 + 1);
        known.give_back(since);
        assert_eq!(known.pending(), 7);
    }

    #[test]
    fn who_was_let_in_before_a_count_takes_nobody_out_of_it() {
        let mut known = Known::default();
        let early = known.admit();
        known.begin_count();
        known.end_count(7);
        let _since = known.admit();
        known.give_back(early);
        assert_eq!(known.pending(), 7 + 1);
    }
}
