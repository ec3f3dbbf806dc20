//! Whether the stream's last event is one of this server's own, and where to go on after it (I5).
//!
//! The danger: a server that was restored to an earlier point uses the same LSNs again for other
//! rows. Passing them over as stored would lose them. So positions alone prove nothing: the WAL has
//! to bring the stream's last event back, at its place and with its id, before anything is confirmed.
//!
//! A promotion begins a new timeline at some LSN of the old one. What was committed before that LSN is
//! part of both; what the old primary wrote behind it is not, and the new one gives its LSNs out again.

use std::{fmt, str::FromStr};

use mailbox::envelope::Position;
use tokio_postgres::types::PgLsn;

use crate::{
    error::{Error, Result},
    heal::Cause,
    wal::System,
};

/// Stands for the id of a row that has none to be read: its place alone tells it.
pub const NO_ID: &str = "-";

/// Stands for the id where a position names no row: a place before all that the slot was to bring when it
/// was written. A server that was restarted may bring rows from before it again, and none will be there.
pub const PLACE: &str = "(place)";

/// The last event of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub position: Position,
    pub id: String,
}

impl Stored {
    /// A row that is done with, if its id may stand in a header; else its place alone.
    pub fn row(position: Position, id: Option<&str>) -> Self {
        let fits = |id: &&str| !id.is_empty() && !id.contains(char::is_control);
        Self {
            position,
            id: id.filter(fits).unwrap_or(NO_ID).to_owned(),
        }
    }
}

impl fmt::Display for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.position, self.id)
    }
}

impl FromStr for Stored {
    type Err = ();

    /// Reads `{position} {id}`.
    fn from_str(text: &str) -> std::result::Result<Self, ()> {
        let (position, id) = text.split_once(' ').ok_or(())?;
        Ok(Self {
            position: position.parse().map_err(|_| ())?,
            id: id.to_owned(),
        })
    }
}

/// An earlier timeline of this server, and where the next one left it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ancestor {
    pub timeline: u32,
    pub left_at: PgLsn,
}

/// What a server has in its WAL: its own timeline up to the end, and parts of those before it.
#[derive(Clone, Debug)]
pub struct History {
    pub system: System,
    pub ancestors: Vec<Ancestor>,
    pub wal_end: PgLsn,
    /// Somebody says that this is the primary, though the stream has seen a later timeline.
    pub is_trusted: bool,
}

impl History {
    /// Whether the stream's last event can be in this server's WAL, by its position alone.
    ///
    /// # Errors
    /// [`Error::Heal`] when this server has lost it. [`Error::Definite`] for a stream that another
    /// server wrote, and for one on a later timeline: this server may be a primary that was replaced.
    pub fn check(&self, stored: &Stored, stream: &str) -> Result<()> {
        let (position, here) = (stored.position, self.system);
        if position.system != here.id {
            return Err(Error::Definite(format!(
                "stream {stream} was written from Postgres system {}, and this one is {}; going on could \
                 leave events out. Point the relay at the right server, or at a new stream",
                position.system, here.id
            )));
        }
        if position.timeline > here.timeline && !self.is_trusted {
            return Err(Error::Definite(format!(
                "stream {stream} was last written from timeline {}, and this server is on timeline {}: it \
                 is a former primary, or was restored from before a promotion. Point the relay at the \
                 primary; if this is the primary, `cdc-relay reconcile --publish` makes the stream follow it",
                position.timeline, here.timeline
            )));
        }
        let end = self.end_of(position.timeline);
        // A commit at the very end is not there: its record would reach beyond it.
        if end.is_some_and(|end| position.lsn < u64::from(end)) {
            return Ok(());
        }
        let end = end.map_or_else(
            || {
                format!(
                    "timeline {} is none of this server's past",
                    position.timeline
                )
            },
            |end| {
                format!(
                    "this server has timeline {} up to {end} only",
                    position.timeline
                )
            },
        );
        Err(Error::Heal(Cause::OtherHistory(format!(
            "stream {stream} ends with event {} at {position}, and {end}: the server was restored to an \
             earlier point, or a standby was promoted that had not received the event",
            stored.id
        ))))
    }

    fn end_of(&self, timeline: u32) -> Option<PgLsn> {
        if timeline == self.system.timeline {
            return Some(self.wal_end);
        }
        let mut ancestors = self.ancestors.iter();
        ancestors
            .find(|one| one.timeline == timeline)
            .map(|one| one.left_at)
    }
}

/// The order of one history, whichever timeline a row was read on.
pub(crate) fn place(position: Position) -> (u64, u32) {
    (position.lsn, position.index)
}

/// Tells the rows that the stream holds from those that it lacks.
#[derive(Debug)]
pub struct Resume {
    stored: Option<Stored>,
    /// The slot still has the stored event: it must come before anything new does.
    awaited: bool,
}

impl Resume {
    /// Goes on after `stored`; the slot brings every commit from `confirmed` on.
    pub fn after(stored: Option<Stored>, confirmed: PgLsn) -> Self {
        let is_due =
            |stored: &Stored| stored.id != PLACE && stored.position.lsn >= u64::from(confirmed);
        let awaited = stored.as_ref().is_some_and(is_due);
        Self { stored, awaited }
    }

    /// Whether nothing is left to prove.
    pub fn is_proven(&self) -> bool {
        !self.awaited
    }

    /// Whether the stream holds this row already; `id` is asked for at the stored place alone.
    ///
    /// # Errors
    /// [`Error::Heal`] when the row shows that the stream's last event is not from this WAL.
    pub fn is_stored(
        &mut self,
        position: Position,
        id: impl FnOnce() -> Option<String>,
    ) -> Result<bool> {
        let Some(stored) = &self.stored else {
            return Ok(false);
        };
        let (here, there) = (place(position), place(stored.position));
        if here == there {
            if self.awaited && stored.id != NO_ID && id().as_ref() != Some(&stored.id) {
                return Err(self.foreign());
            }
            self.awaited = false;
        }
        if here <= there {
            return Ok(true);
        }
        if self.awaited {
            return Err(self.foreign());
        }
        Ok(false)
    }

    /// The server has sent all up to `wal_end`.
    ///
    /// # Errors
    /// [`Error::Heal`] when the stored event should have come by then.
    pub fn sent(&self, wal_end: PgLsn) -> Result<()> {
        let is_past = |stored: &Stored| u64::from(wal_end) > stored.position.lsn;
        if self.awaited && self.stored.as_ref().is_some_and(is_past) {
            return Err(self.foreign());
        }
        Ok(())
    }

    fn foreign(&self) -> Error {
        let (id, position) = match &self.stored {
            Some(stored) => (stored.id.as_str(), stored.position.to_string()),
            None => ("?", String::new()),
        };
        Error::Heal(Cause::OtherHistory(format!(
            "the stream's last event, {id} at {position}, is not in this server's WAL: the server was \
             restored to an earlier point, or the publication left the event out"
        )))
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

    fn resume(confirmed: u64) -> Resume {
        let stored = Stored {
            position: at(100, 1),
            id: "b".to_owned(),
        };
        Resume::after(Some(stored), PgLsn::from(confirmed))
    }

    #[test]
    fn rows_up_to_the_stored_one_are_there_and_later_ones_are_not() {
        let mut resume = resume(50);
        assert!(!resume.is_proven());
        assert!(
            resume
                .is_stored(at(60, 0), || Some("x".to_owned()))
                .unwrap()
        );
        assert!(
            resume
                .is_stored(at(100, 0), || Some("a".to_owned()))
                .unwrap()
        );
        assert!(
            resume
                .is_stored(at(100, 1), || Some("b".to_owned()))
                .unwrap()
        );
        assert!(resume.is_proven());
        assert!(
            !resume
                .is_stored(at(100, 2), || Some("c".to_owned()))
                .unwrap()
        );
        assert!(
            !resume
                .is_stored(at(200, 0), || Some("d".to_owned()))
                .unwrap()
        );
    }

    #[test]
    fn another_row_at_the_stored_place_is_another_history() {
        assert!(
            resume(50)
                .is_stored(at(100, 1), || Some("other".to_owned()))
                .is_err()
        );
    }

    #[test]
    fn a_wal_that_passes_the_stored_place_without_it_is_another_history() {
        assert!(
            resume(50)
                .is_stored(at(101, 0), || Some("new".to_owned()))
                .is_err()
        );
        assert!(resume(50).sent(PgLsn::from(100)).is_ok());
        assert!(resume(50).sent(PgLsn::from(101)).is_err());
    }

    #[test]
    fn what_the_slot_has_confirmed_past_is_not_awaited() {
        let mut resume = resume(101);
        assert!(resume.is_proven());
        assert!(resume.sent(PgLsn::from(500)).is_ok());
        assert!(
            !resume
                .is_stored(at(200, 0), || Some("d".to_owned()))
                .unwrap()
        );
    }

    #[test]
    fn a_place_without_a_row_is_not_awaited_and_what_is_before_it_is_there() {
        let stored = Stored {
            position: at(100, 0),
            id: PLACE.to_owned(),
        };
        // The server was restarted, and has forgotten how far the slot was confirmed.
        let mut resume = Resume::after(Some(stored), PgLsn::from(50));
        let mut is_stored = |lsn| resume.is_stored(at(lsn, 0), || Some("x".to_owned()));
        assert!(is_stored(60).unwrap());
        assert!(!is_stored(101).unwrap());
        assert!(resume.sent(PgLsn::from(500)).is_ok());
    }

    #[test]
    fn a_promoted_server_brings_the_stored_row_on_its_own_timeline() {
        let mut resume = resume(50);
        let promoted = Position {
            timeline: 2,
            ..at(100, 1)
        };
        assert!(resume.is_stored(promoted, || Some("b".to_owned())).unwrap());
        assert!(resume.is_proven());
    }

    fn promoted() -> History {
        History {
            system: System { id: 7, timeline: 3 },
            ancestors: vec![
                Ancestor {
                    timeline: 1,
                    left_at: PgLsn::from(100),
                },
                Ancestor {
                    timeline: 2,
                    left_at: PgLsn::from(200),
                },
            ],
            wal_end: PgLsn::from(300),
            is_trusted: false,
        }
    }

    #[track_caller]
    fn stands(timeline: u32, lsn: u64, expected: &str) {
        let position = Position {
            timeline,
            ..at(lsn, 0)
        };
        let id = "x".to_owned();
        let found = match promoted().check(&Stored { position, id }, "S") {
            Ok(()) => "here",
            Err(Error::Heal(_)) => "lost",
            Err(_) => "refused",
        };
        assert_eq!(found, expected, "{position}");
    }

    #[test]
    fn an_event_is_of_this_history_only_before_its_timeline_was_left() {
        stands(1, 99, "here");
        stands(1, 100, "lost");
        stands(2, 199, "here");
        stands(2, 200, "lost");
        stands(3, 299, "here");
        stands(3, 300, "lost");
        stands(4, 1, "refused");
    }

    #[test]
    fn a_timeline_that_is_no_ancestor_is_another_history() {
        let mut history = promoted();
        history.ancestors.remove(0);
        let stored = Stored {
            position: at(1, 0),
            id: "x".to_owned(),
        };
        assert!(matches!(history.check(&stored, "S"), Err(Error::Heal(_))));
    }
}
