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

use crate::{quarantine::Item, record::Record};

/// Rows in one append: the server's limit for an atomic batch.
pub const BATCH_RECORDS_MAX: usize = 1000;

/// Bytes in one append: what the server holds in memory until the batch is complete.
pub const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Entries that wait, ends of transactions included: enough that a batch is full again when the one
/// before it is acknowledged, also where each transaction has one row.
const ENTRIES_MAX: usize = 6 * BATCH_RECORDS_MAX;

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
    /// Ends of transactions among the entries.
    commits: usize,
    /// The reader waits for room: what is here must go, whole or not.
    pressed: bool,
    closed: bool,
}

#[derive(Debug)]
enum Entry {
    Record(Record),
    /// A row that cannot be published, in its place.
    Offender(Box<Item>),
    /// The rows before it are a whole transaction, which ends here.
    Commit(PgLsn),
}

impl Entry {
    /// Of a row; an end has none.
    fn bytes(&self) -> Option<usize> {
        match self {
            Self::Record(record) => Some(record.bytes()),
            Self::Offender(item) => Some(item.bytes()),
            Self::Commit(_) => None,
        }
    }
}

/// What goes to JetStream in one append.
#[derive(Debug, Default)]
pub struct Batch {
    pub records: Vec<Record>,
    /// Rows that cannot be published, each with the number of records before it.
    pub offenders: Vec<(usize, Box<Item>)>,
    /// End of the last transaction that is whole with this batch; `None` in the middle of a large one.
    pub end: Option<PgLsn>,
    /// Each of its transactions is one event: nothing has to appear together.
    pub is_of_singles: bool,
}

impl Window {
    /// Adds a row; waits while the window is full. Cancel-safe: a cancelled push added nothing.
    pub async fn push(&self, record: Record) {
        self.add(record.bytes(), Entry::Record(record)).await;
    }

    /// Adds a row that cannot be published.
    pub async fn push_offender(&self, item: Box<Item>) {
        self.add(item.bytes(), Entry::Offender(item)).await;
    }

    /// Marks the end of a transaction: in its last event, how many it has.
    pub async fn commit(&self, end: PgLsn) {
        if let Some(last) = self.lock().last_record() {
            last.end_transaction();
        }
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

    /// The next batch once it is a full one; waits for ever where none comes. Cancel-safe.
    pub async fn take_full(&self) -> Batch {
        loop {
            let filled = self.filled.notified();
            {
                let mut state = self.lock();
                if state.is_full()
                    && let Some(batch) = state.batch()
                {
                    self.room.notify_one();
                    return batch;
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
                    state.add(bytes, entry);
                    if state.has_batch() {
                        self.filled.notify_one();
                    }
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
        // Two always have: the last row of an unfinished transaction waits for what follows it.
        self.entries.len() < 2
            || (self.entries.len() < ENTRIES_MAX && self.bytes + bytes <= BYTES_MAX)
    }

    fn add(&mut self, bytes: usize, entry: Entry) {
        self.bytes += bytes;
        self.commits += usize::from(matches!(entry, Entry::Commit(_)));
        self.entries.push_back(entry);
    }

    /// The last one of the transaction that is open, if it is still here.
    fn last_record(&mut self) -> Option<&mut Record> {
        for entry in self.entries.iter_mut().rev() {
            match entry {
                Entry::Record(record) => return Some(record),
                Entry::Offender(_) => {}
                Entry::Commit(_) => break,
            }
        }
        None
    }

    /// Whether [`Self::batch`] may find one: it looks at every entry, and is asked only then.
    fn has_batch(&self) -> bool {
        self.commits > 0
            || self.pressed
            || self.entries.len() > BATCH_RECORDS_MAX
            || self.bytes > BATCH_BYTES_MAX
    }

    /// More than a batch waits.
    fn is_full(&self) -> bool {
        self.entries.len() - self.commits > BATCH_RECORDS_MAX || self.bytes > BATCH_BYTES_MAX
    }

    fn batch(&mut self) -> Option<Batch> {
        if !self.has_batch() {
            return None;
        }
        let (mut records, mut bytes) = (0, 0);
        let (mut fitting, mut whole) = (0, 0);
        let mut full = self.pressed;
        for (at, entry) in self.entries.iter().enumerate() {
            if let Some(size) = entry.bytes() {
                if records == BATCH_RECORDS_MAX || (records > 0 && bytes + size > BATCH_BYTES_MAX) {
                    full = true;
                    break;
                }
                records += 1;
                bytes += size;
            } else {
                whole = at + 1;
            }
            fitting = at + 1;
        }
        // Whole transactions if there are any; a part of one only where it fills a batch by itself,
        // without the last row that is here: whether it ends the transaction is not known yet.
        let taken = match whole {
            0 if full => fitting.min(self.entries.len() - 1),
            whole => whole,
        };
        (taken > 0).then(|| self.split(taken))
    }

    fn split(&mut self, count: usize) -> Batch {
        self.pressed = false;
        let mut batch = Batch {
            records: Vec::with_capacity(count),
            offenders: Vec::new(),
            end: None,
            is_of_singles: true,
        };
        let mut rows = 0;
        for entry in self.entries.drain(..count) {
            match entry {
                Entry::Commit(end) => {
                    self.commits -= 1;
                    batch.end = Some(end);
                    rows = 0;
                }
                Entry::Record(record) => {
                    rows += 1;
                    batch.is_of_singles &= rows == 1;
                    self.bytes -= record.bytes();
                    batch.records.push(record);
                }
                Entry::Offender(item) => {
                    self.bytes -= item.bytes();
                    batch.offenders.push((batch.records.len(), item));
                }
            }
        }
        batch
    }
}

#[cfg(test)]
mod tests;
