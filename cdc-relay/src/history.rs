//! Whether the stream's last event is one of this server's own, and where to go on after it (I5).
//!
//! The danger: a server that was restored to an earlier point uses the same LSNs again for other
//! rows. Passing them over as stored would lose them. So positions alone prove nothing: the WAL has
//! to bring the stream's last event back, at its place and with its id, before anything is confirmed.

use mailbox::envelope::Position;
use tokio_postgres::types::PgLsn;

use crate::{
    error::{Error, Result},
    wal::System,
};

/// The last event of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub position: Position,
    pub id: String,
}

/// Refuses a stream that another server wrote, or one that is ahead of this server.
pub fn check(stored: &Stored, system: System, wal_end: PgLsn, stream: &str) -> Result<()> {
    let position = stored.position;
    if position.system != system.id {
        return Err(Error::Definite(format!(
            "stream {stream} was written from Postgres system {}, and this one is {}; {}",
            position.system,
            system.id,
            mend(stream)
        )));
    }
    if position.timeline != system.timeline || position.lsn > u64::from(wal_end) {
        return Err(Error::Definite(format!(
            "stream {stream} holds an event at {position}, and this server's WAL ends at timeline {}, \
             {wal_end}: it was restored to an earlier point, or promoted; {}",
            system.timeline,
            mend(stream)
        )));
    }
    Ok(())
}

fn mend(stream: &str) -> String {
    format!(
        "going on could leave events out. Point the relay at the right server, or at a new stream \
         instead of {stream}"
    )
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
        let awaited = stored
            .as_ref()
            .is_some_and(|stored| stored.position.lsn >= u64::from(confirmed));
        Self { stored, awaited }
    }

    /// Whether nothing is left to prove.
    pub fn is_proven(&self) -> bool {
        !self.awaited
    }

    /// Whether the stream holds this row already; `id` is asked for at the stored place alone.
    ///
    /// # Errors
    /// [`Error::Definite`] when the row shows that the stream's last event is not from this WAL.
    pub fn is_stored(
        &mut self,
        position: Position,
        id: impl FnOnce() -> Option<String>,
    ) -> Result<bool> {
        let Some(stored) = &self.stored else {
            return Ok(false);
        };
        if position == stored.position {
            if id().as_ref() != Some(&stored.id) {
                return Err(self.foreign());
            }
            self.awaited = false;
        }
        if position <= stored.position {
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
    /// [`Error::Definite`] when the stored event should have come by then.
    pub fn sent(&self, wal_end: PgLsn) -> Result<()> {
        let is_past = |stored: &Stored| u64::from(wal_end) > stored.position.lsn;
        if self.awaited && self.stored.as_ref().is_some_and(is_past) {
            return Err(self.foreign());
        }
        Ok(())
    }

    fn foreign(&self) -> Error {
        let stored = self.stored.as_ref();
        Error::Definite(format!(
            "the stream's last event, {} at {}, is not in this server's WAL: the server was restored to \
             an earlier point, or the publication left the event out; going on could leave events out. \
             Point the relay at the right server, or at a new stream",
            stored.map_or("?", |stored| &stored.id),
            stored
                .map(|stored| stored.position.to_string())
                .unwrap_or_default(),
        ))
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
}
