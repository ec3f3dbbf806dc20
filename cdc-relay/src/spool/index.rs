//! Where each subtransaction's rows begin in the file, so that a rollback finds what it takes back.
//!
//! Ids of subtransactions grow, and a rollback takes back all that has been written since its
//! subtransaction began: the file is cut at the first row whose id is not lower. Only the ids that
//! were the highest so far are kept, and of these no more than [`ENTRIES_MAX`]: beyond that every
//! second one is dropped, and the place between two is found by reading the file.

/// How many places are kept for one transaction: with a rollback to a savepoint amid a million others
/// a few thousand rows are read again. The tests make do with few.
const ENTRIES_MAX: usize = if cfg!(test) { 8 } else { 512 };

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    xid: u32,
    /// Where its first row begins.
    offset: u64,
    /// Nothing was dropped between this entry and the one before it.
    is_next: bool,
}

/// The places of one transaction's subtransactions, in the order of ids and of the file.
#[derive(Debug, Default)]
pub(super) struct Index {
    entries: Vec<Entry>,
}

/// Where the file is to be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// Nothing has an id as high.
    Nowhere,
    At(u64),
    /// At the first row with an id as high, from `from` on and no later than at `to`.
    Between {
        from: u64,
        to: u64,
    },
}

/// Whether `a` is older than `b`: ids are counted around.
pub(super) fn precedes(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() < 0
}

impl Index {
    /// A row of this id begins at `offset`, the end of the file.
    pub(super) fn note(&mut self, xid: u32, offset: u64) {
        if self
            .entries
            .last()
            .is_some_and(|last| !precedes(last.xid, xid))
        {
            return;
        }
        self.entries.push(Entry {
            xid,
            offset,
            is_next: true,
        });
        if self.entries.len() == ENTRIES_MAX {
            self.thin();
        }
    }

    /// Where to cut when the subtransaction of this id, and so all that began after it, is rolled back.
    pub(super) fn cut(&self, xid: u32) -> Cut {
        let at = self.at(xid);
        match (at.checked_sub(1), self.entries.get(at)) {
            (_, None) => Cut::Nowhere,
            (Some(before), Some(entry)) if !entry.is_next => Cut::Between {
                from: self.entries[before].offset,
                to: entry.offset,
            },
            (_, Some(entry)) => Cut::At(entry.offset),
        }
    }

    /// The file was cut for this id; the highest that is left was found at `highest`, if it was looked for.
    pub(super) fn was_cut(&mut self, xid: u32, highest: Option<(u32, u64)>) {
        self.entries.truncate(self.at(xid));
        let Some((xid, offset)) = highest else { return };
        if self
            .entries
            .last()
            .is_none_or(|last| precedes(last.xid, xid))
        {
            self.entries.push(Entry {
                xid,
                offset,
                is_next: false,
            });
        }
    }

    fn at(&self, xid: u32) -> usize {
        self.entries
            .partition_point(|entry| precedes(entry.xid, xid))
    }

    /// Drops every second entry, never the first or the last.
    fn thin(&mut self) {
        let last = self.entries.len() - 1;
        let mut at = 0;
        let mut dropped = false;
        self.entries.retain_mut(|entry| {
            let keep = at % 2 == 0 || at == last;
            if keep {
                entry.is_next &= !dropped;
            }
            dropped = !keep;
            at += 1;
            keep
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollback_cuts_where_its_subtransaction_began() {
        let mut index = Index::default();
        for (xid, offset) in [(10, 0), (10, 5), (11, 10), (10, 15), (13, 20)] {
            index.note(xid, offset);
        }
        assert_eq!(index.cut(14), Cut::Nowhere);
        assert_eq!(index.cut(13), Cut::At(20));
        assert_eq!(index.cut(12), Cut::At(20));
        assert_eq!(index.cut(11), Cut::At(10));
        assert_eq!(index.cut(10), Cut::At(0));
        index.was_cut(11, None);
        assert_eq!(index.cut(11), Cut::Nowhere);
        index.note(15, 10);
        assert_eq!(index.cut(12), Cut::At(10));
    }

    #[test]
    fn ids_are_counted_around() {
        let mut index = Index::default();
        for (xid, offset) in [(u32::MAX - 1, 0), (u32::MAX, 10), (3, 20), (4, 30)] {
            index.note(xid, offset);
        }
        assert_eq!(index.cut(3), Cut::At(20));
        assert_eq!(index.cut(u32::MAX), Cut::At(10));
    }

    #[test]
    fn a_million_subtransactions_take_no_more_room_than_the_entries_that_are_kept() {
        let mut index = Index::default();
        for xid in 0..1_000_000 {
            index.note(xid, u64::from(xid) * 10);
            assert!(index.entries.len() < ENTRIES_MAX);
        }
        for xid in [1, 17, 500_000, 999_998] {
            match index.cut(xid) {
                Cut::At(offset) => assert_eq!(offset, u64::from(xid) * 10),
                Cut::Between { from, to } => {
                    let offset = u64::from(xid) * 10;
                    assert!(from < offset && offset <= to, "{from} {to}");
                }
                Cut::Nowhere => panic!("{xid} was forgotten"),
            }
        }
        assert_eq!(
            index.cut(999_999),
            Cut::At(9_999_990),
            "the newest are exact"
        );
    }
}
