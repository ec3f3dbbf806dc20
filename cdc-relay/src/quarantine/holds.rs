//! Which aggregates are held, and which rows were dealt with before this session; both bounded (I12).

use std::collections::{HashMap, HashSet};

use mailbox::envelope::Position;

use super::key::{Bucket, Key};
use crate::{
    error::{Error, Result},
    history::place,
};

/// Aggregates that may be held at a time: about 1 MB. So many are no longer accidents of single rows,
/// but a mistake in the configuration or in a service, and going on would fill the quarantine with all
/// that comes.
pub const HELD_MAX: usize = 10_000;

/// Rows beyond the place to resume at that may stand in quarantine. They are of the batches that were
/// in hand when the session ended: far fewer.
const KNOWN_MAX: usize = 50_000;

/// Open items, by bucket.
#[derive(Debug, Default)]
pub(super) struct Holds {
    buckets: HashMap<Bucket, Hold>,
    /// Items that hold nothing but themselves.
    alone: u64,
}

#[derive(Debug)]
struct Hold {
    /// Rows before this one were published before the hold began.
    since: Position,
    /// Sequence in quarantine before which none of them stands.
    from: u64,
    open: u64,
}

impl Holds {
    /// No row has to be looked at.
    pub(super) fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// Whether this row has to wait.
    pub(super) fn holds(&self, bucket: Bucket, position: Position) -> bool {
        let hold = self.buckets.get(&bucket);
        // Rows of another system have no order to these: rather wait.
        hold.is_some_and(|hold| {
            position.system != hold.since.system || place(position) >= place(hold.since)
        })
    }

    /// Whether another item may be opened.
    ///
    /// # Errors
    /// [`Error::Definite`] when too many aggregates are held.
    pub(super) fn room_for(&self, bucket: Bucket) -> Result<()> {
        let is_new = !bucket.is_alone() && !self.buckets.contains_key(&bucket);
        if is_new && self.buckets.len() >= HELD_MAX {
            return Err(Error::Definite(format!(
                "{HELD_MAX} aggregates are held in quarantine, and here is another row that cannot be \
                 published: that many are one mistake, not many. Look at `cdc-relay quarantine list`, mend \
                 the cause, and release or discard what stands there; the relay goes on by itself then"
            )));
        }
        Ok(())
    }

    /// An item of the row at `position` stands at `sequence`.
    pub(super) fn opened(&mut self, bucket: Bucket, position: Position, sequence: u64) {
        if bucket.is_alone() {
            self.alone += 1;
            return;
        }
        let hold = self.buckets.entry(bucket).or_insert(Hold {
            since: position,
            from: sequence,
            open: 0,
        });
        hold.open += 1;
    }

    /// An item is decided; the last one of a bucket ends its hold.
    pub(super) fn closed(&mut self, bucket: Bucket) {
        if bucket.is_alone() {
            self.alone = self.alone.saturating_sub(1);
            return;
        }
        if let Some(hold) = self.buckets.get_mut(&bucket) {
            hold.open = hold.open.saturating_sub(1);
            if hold.open == 0 {
                self.buckets.remove(&bucket);
            }
        }
    }

    /// Items that wait.
    pub(super) fn open(&self) -> u64 {
        self.alone + self.buckets.values().map(|hold| hold.open).sum::<u64>()
    }

    /// Aggregates that wait.
    pub(super) fn held(&self) -> usize {
        self.buckets.len()
    }

    pub(super) fn is_held(&self, bucket: Bucket) -> bool {
        self.buckets.contains_key(&bucket)
    }

    /// Where to look for a bucket's first open item.
    pub(super) fn first(&self, bucket: Bucket) -> u64 {
        self.buckets.get(&bucket).map_or(1, |hold| hold.from)
    }

    /// All before `sequence` are decided.
    pub(super) fn passed(&mut self, bucket: Bucket, sequence: u64) {
        if let Some(hold) = self.buckets.get_mut(&bucket) {
            hold.from = sequence;
        }
    }
}

/// Rows behind the place to resume at that stand in quarantine already, decided or not.
#[derive(Debug, Default)]
pub(super) struct Known {
    rows: HashMap<Key, Position>,
    end: Option<Position>,
}

impl Known {
    pub(super) fn is_empty(&self) -> bool {
        self.end.is_none()
    }

    /// The last of them: once the WAL has brought that again, all before it is done.
    pub(super) fn end(&self) -> Option<Position> {
        self.end
    }

    /// Notes a row.
    ///
    /// # Errors
    /// [`Error::Definite`] when there are more than can be.
    pub(super) fn add(&mut self, key: Key, position: Position) -> Result<()> {
        if self.rows.len() >= KNOWN_MAX {
            return Err(Error::Definite(format!(
                "more than {KNOWN_MAX} rows in quarantine stand behind the stream's last event: the \
                 quarantine is of another history of this database. Give the relay another \
                 CDC_QUARANTINE_STREAM"
            )));
        }
        self.rows.insert(key, position);
        if self.end.is_none_or(|end| place(end) < place(position)) {
            self.end = Some(position);
        }
        Ok(())
    }

    /// Forgets the rows up to where the session resumes: the WAL does not bring them again.
    pub(super) fn forget(&mut self, up_to: Position) {
        self.rows
            .retain(|_, position| place(*position) > place(up_to));
        if self.rows.is_empty() {
            self.end = None;
        }
    }

    /// Whether this row was dealt with before.
    pub(super) fn contains(&mut self, key: &Key, position: Position) -> bool {
        if self.end.is_some_and(|end| place(position) > place(end)) {
            *self = Self::default();
            return false;
        }
        self.rows.contains_key(key)
    }
}

/// Work that waits for the appender: buckets to go on with, and single items.
#[derive(Debug, Default)]
pub(super) struct Ready {
    waiting: HashSet<(Bucket, Option<Key>)>,
}

/// Requests that wait in memory; more wait in the stream.
const READY_MAX: usize = 1_000;

impl Ready {
    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= READY_MAX
    }

    /// Rows of one aggregate go in their order, so the bucket is the work.
    pub(super) fn add(&mut self, bucket: Bucket, key: &Key) {
        let key = bucket.is_alone().then(|| key.clone());
        self.waiting.insert((bucket, key));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn pop(&mut self) -> Option<(Bucket, Option<Key>)> {
        let next = self.waiting.iter().next()?.clone();
        self.waiting.take(&next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(lsn: u64, index: u32) -> Position {
        Position {
            system: 7,
            timeline: 1,
            lsn,
            index,
        }
    }

    #[test]
    fn a_hold_takes_later_rows_of_its_bucket_and_ends_with_its_last_item() {
        let (a, b) = (Bucket::of("a", "1"), Bucket::of("b", "1"));
        let mut holds = Holds::default();
        holds.opened(a, at(20, 1), 1);
        holds.opened(a, at(30, 0), 2);
        assert!(!holds.holds(a, at(20, 0)), "it was published before");
        assert!(holds.holds(a, at(20, 2)) && holds.holds(a, at(90, 0)));
        assert!(!holds.holds(b, at(90, 0)));
        holds.closed(a);
        assert!(holds.holds(a, at(90, 0)));
        holds.closed(a);
        assert!(!holds.holds(a, at(90, 0)) && holds.is_empty());
    }

    #[test]
    fn a_row_without_an_aggregate_holds_nothing_but_counts() {
        let mut holds = Holds::default();
        holds.opened(Bucket::ALONE, at(20, 0), 1);
        assert!(!holds.holds(Bucket::ALONE, at(30, 0)));
        assert_eq!((holds.open(), holds.held()), (1, 0));
    }

    #[test]
    fn too_many_held_aggregates_stop_the_relay_and_say_how_to_go_on() {
        let mut holds = Holds::default();
        for id in 0..HELD_MAX {
            let bucket = Bucket::of("a", &id.to_string());
            holds.room_for(bucket).unwrap();
            holds.opened(bucket, at(20, 0), 1);
        }
        let why = holds.room_for(Bucket::of("b", "1")).unwrap_err();
        assert!(
            why.to_string().contains("cdc-relay quarantine list"),
            "{why}"
        );
        holds.room_for(Bucket::of("a", "1")).unwrap();
        holds.room_for(Bucket::ALONE).unwrap();
    }

    #[test]
    fn known_rows_are_those_and_no_others() {
        let mut known = Known::default();
        let key = |lsn, id| Key::of(at(lsn, 0), Some(id));
        known.add(key(10, "x"), at(10, 0)).unwrap();
        known.add(key(20, "a"), at(20, 0)).unwrap();
        known.forget(at(15, 0));
        assert!(!known.contains(&key(10, "x"), at(10, 0)));
        assert!(!known.contains(&key(20, "other"), at(20, 0)));
        assert!(known.contains(&key(20, "a"), at(20, 0)));
        assert!(!known.contains(&key(30, "c"), at(30, 0)));
        assert!(known.is_empty(), "the WAL has passed them");
    }
}
