//! Faults in a row, event by event. JetStream's count of deliveries cannot tell: it counts transient
//! failures, stops and deaths of replicas as well.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::config::MAX_ACK_PENDING;
use super::received::Received;

/// Events with faults that are remembered. No more can wait for another attempt at a time, so what
/// goes first has most likely been settled by another replica.
const REMEMBERED_MAX: usize = MAX_ACK_PENDING;

/// What this process has seen of faults, by the message's sequence and time of storage.
#[derive(Debug, Default)]
pub(super) struct Faults(Mutex<Rows>);

type Key = (u64, i128);
type Rows = BTreeMap<Key, u32>;

impl Faults {
    /// One more; returns how many there have been in a row.
    pub(super) fn count(&self, received: &Received) -> u32 {
        count(&mut self.rows(), key(received))
    }

    /// It ended otherwise: the row begins anew.
    pub(super) fn forget(&self, received: &Received) {
        self.rows().remove(&key(received));
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(received: &Received) -> Key {
    (received.sequence, received.stored_at)
}

fn count(rows: &mut Rows, key: Key) -> u32 {
    if rows.len() >= REMEMBERED_MAX && !rows.contains_key(&key) {
        rows.pop_first();
    }
    let row = rows.entry(key).or_default();
    *row = row.saturating_add(1);
    *row
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_counted_apart_and_only_so_many() {
        let mut rows = Rows::new();
        assert_eq!(count(&mut rows, (7, 1)), 1);
        assert_eq!(count(&mut rows, (7, 1)), 2);
        assert_eq!(count(&mut rows, (7, 2)), 1, "of a stream made anew");
        for sequence in 0..2 * REMEMBERED_MAX as u64 {
            count(&mut rows, (100 + sequence, 1));
        }
        assert_eq!(rows.len(), REMEMBERED_MAX);
    }
}
