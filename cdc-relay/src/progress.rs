//! The ledger: received ≥ published ≥ acknowledged. Confirming past acknowledged loses events.
//!
//! ```text
//! WAL ──begin/received──▶ window ──published──▶ JetStream ──acknowledged──▶ confirmed to Postgres
//! ```
//!
//! It alone says what may be confirmed (I2), and lets an idle relay confirm past WAL that holds
//! nothing of its own (I3).

use std::collections::VecDeque;

use tokio_postgres::types::PgLsn;

/// How far the relay has come; each position is the end of a transaction's commit record.
///
/// Every mutator asserts what it relies on: a broken ledger must stop the relay, not lose events.
#[derive(Debug)]
pub struct Progress {
    received: PgLsn,
    published: PgLsn,
    acknowledged: PgLsn,
    /// Where the session began, as long as nothing may be confirmed past it.
    held: Option<PgLsn>,
    /// A transaction has begun and not ended, and its rows may be on their way: when it committed.
    open: Option<i64>,
    /// End and time of the commits that are not acknowledged: as many as the window holds at most.
    in_hand: VecDeque<(PgLsn, i64)>,
    /// Rows that are not acknowledged.
    rows: u64,
    /// The furthest that the server has said it has sent; only lag is measured by it.
    wal_end: PgLsn,
}

impl Progress {
    /// A new session; `confirmed` is what the slot has confirmed already. Unless it `is_proven` that
    /// the stream belongs to this WAL, nothing more is confirmed before [`Self::prove`].
    pub fn resume(confirmed: PgLsn, is_proven: bool) -> Self {
        Self {
            held: (!is_proven).then_some(confirmed),
            received: confirmed,
            published: confirmed,
            acknowledged: confirmed,
            open: None,
            in_hand: VecDeque::new(),
            rows: 0,
            wal_end: confirmed,
        }
    }

    /// The stream is known to belong to this WAL.
    pub fn prove(&mut self) {
        self.held = None;
    }

    /// A transaction begins to arrive, which committed at `time`, in microseconds of Postgres' epoch.
    pub fn begin(&mut self, time: i64) {
        assert!(self.open.is_none(), "a transaction began inside another");
        self.open = Some(time);
    }

    /// A row of it has arrived that the stream lacks.
    pub fn row(&mut self) {
        self.rows += 1;
    }

    /// So many rows are done with.
    pub fn rows_done(&mut self, count: usize) {
        self.rows = self.rows.saturating_sub(count as u64);
    }

    /// A transaction has arrived whole, and stands in the window.
    pub fn received(&mut self, end: PgLsn) {
        assert!(
            end >= self.received,
            "received {end} after {}",
            self.received
        );
        let time = self.open.take();
        let time = time.expect("a transaction ended that had not begun");
        self.in_hand.push_back((end, time));
        self.received = end;
        self.wal_end = self.wal_end.max(end);
    }

    /// Everything up to `end` has been handed to JetStream.
    pub fn published(&mut self, end: PgLsn) {
        assert!(
            end <= self.received,
            "published {end} before it was received"
        );
        assert!(
            end >= self.published,
            "published {end} after {}",
            self.published
        );
        self.published = end;
    }

    /// JetStream has acknowledged everything up to `end`.
    pub fn acknowledged(&mut self, end: PgLsn) {
        assert!(
            end <= self.published,
            "acknowledged {end} before it was published"
        );
        assert!(
            end >= self.acknowledged,
            "acknowledged {end} after {}",
            self.acknowledged
        );
        self.acknowledged = end;
        while self.in_hand.front().is_some_and(|first| first.0 <= end) {
            self.in_hand.pop_front();
        }
    }

    /// The server has sent everything up to `wal_end`. With nothing in flight, the WAL up to there
    /// holds no event of ours, so it may be confirmed (I3).
    pub fn confirm_idle(&mut self, wal_end: PgLsn) {
        self.wal_end = self.wal_end.max(wal_end);
        if self.is_idle() && wal_end > self.acknowledged {
            self.received = wal_end;
            self.published = wal_end;
            self.acknowledged = wal_end;
        }
    }

    /// Nothing is on its way between Postgres and JetStream.
    pub fn is_idle(&self) -> bool {
        self.open.is_none() && self.received == self.acknowledged
    }

    /// What Postgres may be told to forget (I2).
    pub fn confirmable(&self) -> PgLsn {
        self.held.unwrap_or(self.acknowledged)
    }

    /// Rows that have arrived and are not done with.
    pub fn lag_rows(&self) -> u64 {
        self.rows
    }

    /// When the oldest transaction committed that is not acknowledged.
    pub fn oldest(&self) -> Option<i64> {
        self.in_hand.front().map(|first| first.1).or(self.open)
    }

    /// Bytes of WAL between what the server has sent and what may be confirmed.
    pub fn lag_bytes(&self) -> u64 {
        u64::from(self.wal_end).saturating_sub(self.acknowledged.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lsn(at: u64) -> PgLsn {
        PgLsn::from(at)
    }

    #[test]
    fn only_what_is_acknowledged_may_be_confirmed() {
        let mut progress = Progress::resume(lsn(10), true);
        progress.begin(0);
        progress.received(lsn(20));
        assert_eq!(progress.confirmable(), lsn(10));
        progress.published(lsn(20));
        assert_eq!(progress.confirmable(), lsn(10));
        progress.acknowledged(lsn(20));
        assert_eq!(progress.confirmable(), lsn(20));
    }

    #[test]
    fn a_keepalive_confirms_only_with_nothing_in_flight() {
        let mut progress = Progress::resume(lsn(10), true);
        progress.confirm_idle(lsn(15));
        assert_eq!(progress.confirmable(), lsn(15));
        progress.begin(0);
        progress.confirm_idle(lsn(16));
        assert_eq!(progress.confirmable(), lsn(15), "inside a transaction");
        progress.received(lsn(20));
        progress.confirm_idle(lsn(30));
        assert_eq!(progress.confirmable(), lsn(15), "before it is acknowledged");
        progress.published(lsn(20));
        progress.acknowledged(lsn(20));
        progress.confirm_idle(lsn(30));
        assert_eq!(progress.confirmable(), lsn(30));
    }

    #[test]
    fn nothing_is_confirmed_while_the_streams_history_is_in_doubt() {
        let mut progress = Progress::resume(lsn(10), false);
        progress.begin(0);
        progress.received(lsn(20));
        progress.published(lsn(20));
        progress.acknowledged(lsn(20));
        progress.confirm_idle(lsn(30));
        assert_eq!(progress.confirmable(), lsn(10));
        progress.prove();
        assert_eq!(progress.confirmable(), lsn(30));
    }

    #[test]
    fn an_old_keepalive_does_not_go_back() {
        let mut progress = Progress::resume(lsn(10), true);
        progress.confirm_idle(lsn(5));
        assert_eq!(progress.confirmable(), lsn(10));
    }

    #[test]
    #[should_panic(expected = "before it was published")]
    fn an_acknowledgement_of_what_was_not_published_stops_the_relay() {
        let mut progress = Progress::resume(lsn(10), true);
        progress.begin(0);
        progress.received(lsn(20));
        progress.acknowledged(lsn(20));
    }
}
