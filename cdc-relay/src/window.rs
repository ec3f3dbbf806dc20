//! What has been gathered from the WAL and waits for JetStream, bounded in count and bytes (I12).
//!
//! While one batch is on its way the next gathers here; a batch takes whole transactions as far as
//! they fit, and only a transaction larger than a batch is cut.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;
use tokio_postgres::types::PgLsn;

use crate::record::Record;

/// Rows in one append: the server's limit for an atomic batch.
pub const BATCH_RECORDS_MAX: usize = 1000;

/// Bytes in one append: what the server holds in memory until the batch is complete.
pub const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Entries that wait: enough that a batch is full again when the one before it is acknowledged.
const ENTRIES_MAX: usize = 4 * BATCH_RECORDS_MAX;

/// Bytes that wait. A single larger record is let in alone.
const BYTES_MAX: usize = 2 * BATCH_BYTES_MAX;

/// The queue between the reader of the WAL and the appender.
#[derive(Debug, Default)]
pub struct Window {
    state: Mutex<State>,
    room: Notify,
    filled: Notify,
}

#[derive(Debug, Default)]
struct State {
    entries: VecDeque<Entry>,
    bytes: usize,
    /// The reader waits for room: what is here must go, whole or not.
    pressed: bool,
    closed: bool,
}

#[derive(Debug)]
enum Entry {
    Record(Record),
    /// The rows before it are a whole transaction, which ends here.
    Commit(PgLsn),
}

/// What goes to JetStream in one append.
#[derive(Debug, Default)]
pub struct Batch {
    pub records: Vec<Record>,
    /// End of the last transaction that is whole with this batch; `None` in the middle of a large one.
    pub end: Option<PgLsn>,
}

impl Window {
    /// Adds a row; waits while the window is full. Cancel-safe: a cancelled push added nothing.
    pub async fn push(&self, record: Record) {
        self.add(record.bytes(), Entry::Record(record)).await;
    }

    /// Marks the end of a transaction.
    pub async fn commit(&self, end: PgLsn) {
        self.add(0, Entry::Commit(end)).await;
    }

    /// No more comes; what is whole is still given out, the rows of an unfinished transaction are not.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        // Whoever waited for room has gone: nothing is to be cut any more.
        state.pressed = false;
        drop(state);
        self.filled.notify_one();
    }

    /// The next batch; waits until there is one. `None` when the window is closed and drained.
    pub async fn take(&self) -> Option<Batch> {
        loop {
            let filled = self.filled.notified();
            {
                let mut state = self.lock();
                if let Some(batch) = state.batch() {
                    self.room.notify_one();
                    return Some(batch);
                }
                if state.closed {
                    return None;
                }
            }
            filled.await;
        }
    }

    /// How many rows and ends of transactions wait.
    pub fn waiting(&self) -> usize {
        self.lock().entries.len()
    }

    async fn add(&self, bytes: usize, entry: Entry) {
        loop {
            let room = self.room.notified();
            {
                let mut state = self.lock();
                if state.has_room(bytes) {
                    state.bytes += bytes;
                    state.entries.push_back(entry);
                    self.filled.notify_one();
                    return;
                }
                state.pressed = true;
                self.filled.notify_one();
            }
            room.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn has_room(&self, bytes: usize) -> bool {
        self.entries.is_empty()
            || (self.entries.len() < ENTRIES_MAX && self.bytes + bytes <= BYTES_MAX)
    }

    fn batch(&mut self) -> Option<Batch> {
        let (mut records, mut bytes) = (0, 0);
        let (mut fitting, mut whole) = (0, 0);
        let mut full = self.pressed;
        for (at, entry) in self.entries.iter().enumerate() {
            match entry {
                Entry::Commit(_) => whole = at + 1,
                Entry::Record(record) => {
                    if records == BATCH_RECORDS_MAX
                        || (records > 0 && bytes + record.bytes() > BATCH_BYTES_MAX)
                    {
                        full = true;
                        break;
                    }
                    records += 1;
                    bytes += record.bytes();
                }
            }
            fitting = at + 1;
        }
        // Whole transactions if there are any; a part of one only where it fills a batch by itself.
        let taken = match whole {
            0 if full => fitting,
            whole => whole,
        };
        (taken > 0).then(|| self.split(taken))
    }

    fn split(&mut self, count: usize) -> Batch {
        self.pressed = false;
        let mut batch = Batch::default();
        for entry in self.entries.drain(..count) {
            match entry {
                Entry::Commit(end) => batch.end = Some(end),
                Entry::Record(record) => {
                    self.bytes -= record.bytes();
                    batch.records.push(record);
                }
            }
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    fn record(bytes: usize) -> Record {
        Record::of_size(bytes)
    }

    /// Adds what must fit without waiting.
    fn add(window: &Window, rows: usize, end: Option<u64>) {
        for _ in 0..rows {
            window.push(record(10)).now_or_never().unwrap();
        }
        if let Some(end) = end {
            window.commit(PgLsn::from(end)).now_or_never().unwrap();
        }
    }

    /// Rows and end of the next batch, if there is one now.
    fn take(window: &Window) -> Option<(usize, Option<u64>)> {
        let batch = window.take().now_or_never()?.unwrap();
        Some((batch.records.len(), batch.end.map(u64::from)))
    }

    #[test]
    fn a_batch_holds_whole_transactions_and_no_row_of_an_unfinished_one() {
        let window = Window::default();
        add(&window, 3, Some(10));
        add(&window, 2, Some(20));
        add(&window, 4, None);
        assert_eq!(take(&window), Some((5, Some(20))));
        assert_eq!(take(&window), None);
        add(&window, 0, Some(30));
        assert_eq!(take(&window), Some((4, Some(30))));
    }

    #[test]
    fn a_transaction_that_does_not_fit_waits_for_the_next_batch() {
        let window = Window::default();
        add(&window, BATCH_RECORDS_MAX - 1, Some(10));
        add(&window, 2, Some(20));
        assert_eq!(take(&window), Some((BATCH_RECORDS_MAX - 1, Some(10))));
        assert_eq!(take(&window), Some((2, Some(20))));
    }

    #[test]
    fn only_a_transaction_larger_than_a_batch_is_cut() {
        let window = Window::default();
        add(&window, BATCH_RECORDS_MAX, None);
        assert_eq!(take(&window), None, "it may still end here");
        add(&window, 1, None);
        assert_eq!(take(&window), Some((BATCH_RECORDS_MAX, None)));
        add(&window, 0, Some(10));
        assert_eq!(take(&window), Some((1, Some(10))));
    }

    #[test]
    fn a_transaction_without_a_row_of_ours_still_moves_the_ledger() {
        let window = Window::default();
        add(&window, 0, Some(10));
        assert_eq!(take(&window), Some((0, Some(10))));
    }

    #[test]
    fn a_full_window_holds_the_reader_and_gives_what_it_has() {
        let window = Window::default();
        window.push(record(BYTES_MAX / 2)).now_or_never().unwrap();
        assert!(window.push(record(BYTES_MAX)).now_or_never().is_none());
        assert_eq!(take(&window), Some((1, None)));
        window.push(record(BYTES_MAX)).now_or_never().unwrap();
        add(&window, 0, None);
    }

    #[test]
    fn a_closed_window_gives_what_is_whole_and_ends() {
        let window = Window::default();
        add(&window, 1, Some(10));
        add(&window, 1, None);
        window.close();
        assert_eq!(take(&window), Some((1, Some(10))));
        assert!(window.take().now_or_never().unwrap().is_none());
    }
}
