//! Two kinds of failure, kept apart by the type: *definite*, which waits for somebody to act and says
//! how, and *transient*, which the relay mends by itself by starting over from the stream's truth.

use std::{error::Error as StdError, fmt::Display, io, time::Duration};

use tokio::time::timeout;

use crate::{config::Table, heal::Cause, record::Invalid};

/// Why a session of the relay ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Trying again does not help until somebody acts: the text says what is wrong and what to do.
    #[error("{0}")]
    Definite(String),
    /// A peer went away, timed out or was busy: start over.
    #[error("{0}")]
    Transient(String),
    /// Another relay holds the slot; this one waits as its standby.
    #[error("the replication slot is held by another relay: {0}")]
    SlotHeld(String),
    /// The slot was created amid other transactions' DDL, and Postgres (15.18 at least, now and then)
    /// cannot decode the WAL that it holds.
    #[error(
        "{0}: the slot cannot be decoded, and never will be. Drop it: the relay makes a new one, and publishes from the table what the stream lacks"
    )]
    Undecodable(String),
    /// Large transactions cannot wait for their commit on the local disk: full, not writable, too many.
    #[error("the spool of large transactions: {0}")]
    Spool(String),
    /// Slot, server or stream are not what they were: what the stream lacks is to be published from the
    /// table, behind a new slot.
    #[error("{0}")]
    Heal(Cause),
    /// JetStream refused messages that came together, and does not say which of them is wrong, as with an
    /// id that the stream has already: the next session sends them one by one, to find out.
    #[error("{0}; sending the next ones one by one, to find out which")]
    Unclear(String),
    /// Somebody else was quicker to create something.
    #[error("{0}")]
    AlreadyExists(String),
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub fn definite(what: impl Display) -> Self {
        Self::Definite(what.to_string())
    }

    /// The table lacks a column, or has it in a type that cannot be read.
    pub fn no_outbox(table: &Table, why: &Invalid) -> Self {
        Self::Definite(format!(
            "table {} is no outbox as the columns are mapped: {why}. Mend the table, its publication or \
             the CDC_COLUMN_… settings",
            table.quoted()
        ))
    }

    /// Where the attempt failed, and every cause behind it.
    pub fn transient(during: &str, source: &(dyn StdError + 'static)) -> Self {
        let mut text = format!("{during}: {source}");
        let mut cause = source.source();
        while let Some(source) = cause {
            let source_text = source.to_string();
            if !text.ends_with(&source_text) {
                text.push_str(": ");
                text.push_str(&source_text);
            }
            cause = source.source();
        }
        Self::Transient(text)
    }

    /// What Postgres refused, sorted by its SQLSTATE.
    pub fn postgres(during: &str, code: &str, message: &str) -> Self {
        let text = format!("{during}: Postgres says {code}: {message}");
        match code {
            // object_in_use: the slot has an active walsender.
            "55006" => Self::SlotHeld(message.to_owned()),
            "42710" => Self::AlreadyExists(text),
            "XX000" if message.contains("could not map filenode") => Self::Undecodable(text),
            // WAL that the slot should have kept: it was restored without it, or removed by hand.
            "58P01" if message.contains("WAL segment") => Self::Heal(Cause::SlotLost(text)),
            // Unusable slot; no slot left; a file that is gone: all need hands.
            "55000" | "53400" | "58P01" => Self::Definite(text),
            // Wrong password, missing right, missing object.
            _ if code.starts_with("28") || code.starts_with("42") || code.starts_with("3D") => {
                Self::Definite(text)
            }
            _ => Self::Transient(text),
        }
    }

    /// The same, from the SQL connection.
    pub fn sql(during: &str, error: &tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(db) => {
                let hint = db.hint().map(|hint| format!(" ({hint})"));
                let message = format!("{}{}", db.message(), hint.unwrap_or_default());
                Self::postgres(during, db.code().code(), &message)
            }
            None => Self::transient(during, error),
        }
    }

    /// `work`, or a transient failure when it takes longer than `limit`.
    pub async fn within<T>(
        during: &str,
        limit: Duration,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        timeout(limit, work).await.unwrap_or_else(|_| {
            Err(Self::Transient(format!(
                "{during}: no answer within {limit:?}"
            )))
        })
    }

    pub fn io(during: &str, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
                Self::Definite(format!("{during}: {error}"))
            }
            _ => Self::transient(during, error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_slot_is_neither_definite_nor_a_plain_failure() {
        let error = Error::postgres("start replication", "55006", "slot is active for PID 7");
        assert!(matches!(error, Error::SlotHeld(_)));
    }

    #[test]
    fn a_slot_that_cannot_be_decoded_is_told_from_other_internal_errors() {
        let message = "could not map filenode \"base/5/2619\" to relation OID";
        let undecodable = Error::postgres("read", "XX000", message);
        assert!(matches!(undecodable, Error::Undecodable(_)));
        let other = Error::postgres("read", "XX000", "something else");
        assert!(matches!(other, Error::Transient(_)));
    }

    #[test]
    fn missing_rights_wait_for_hands_and_a_crash_does_not() {
        let denied = Error::postgres("create the slot", "42501", "permission denied");
        assert!(matches!(denied, Error::Definite(_)));
        let crash = Error::postgres("read", "57P02", "terminating connection");
        assert!(matches!(crash, Error::Transient(_)));
    }
}
