//! Why applying an event failed, and what follows from it.

use std::error::Error;

use tokio_postgres::error::SqlState;

/// What keeps claims out of days that were dropped (`retention`).
const FORGOTTEN: &str = "inbox_forgotten";

/// Why a handler could not apply its events.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// It would fail for ever: the event goes to the dead letters, with this reason.
    #[error("{0}")]
    Definite(String),
    /// This version does not know the event's type or version; another one may, that shares the consumer
    /// while an upgrade rolls. It is delivered again for a while, and then goes to the dead letters.
    #[error("{0}")]
    Unknown(String),
    /// It may succeed later: the event is delivered again, and never dead-lettered.
    #[error(transparent)]
    Transient(Box<dyn Error + Send + Sync>),
}

impl Failure {
    /// Decides by SQLSTATE. Data that Postgres refuses (classes 22 and 23: data exception, integrity
    /// constraint violation) stays refused. All else is transient, also what is unknown here: an event
    /// that is tried too often does less harm than one that is set aside too soon.
    #[must_use]
    pub fn from_postgres(error: tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(db) if db.constraint() == Some(FORGOTTEN) => Self::Definite(
                "the inbox has forgotten the day of this event's id, so nobody can tell whether it was \
                 applied before: look whether its effect is there"
                    .into(),
            ),
            Some(db) if is_definite(db.code()) => {
                let detail = db.detail().map(|d| format!(" ({d})")).unwrap_or_default();
                Self::Definite(format!("{}: {}{detail}", db.code().code(), db.message()))
            }
            _ => Self::Transient(Box::new(error)),
        }
    }
}

/// 40 (serialization, deadlock), 53 (resources), 55 (locks), 57 (shutdown) and 08 (connection) pass;
/// 42 (a statement that is wrong) is mended by a deployment, not by setting events aside.
fn is_definite(state: &SqlState) -> bool {
    matches!(state.code().get(..2), Some("22" | "23"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_refused_data_is_definite() {
        for code in ["22003", "22P02", "23505", "23514"] {
            assert!(is_definite(&SqlState::from_code(code)), "{code}");
        }
        for code in [
            "40001", "40P01", "53300", "55P03", "57P01", "08006", "42P01", "25P02", "XX000",
            "P0001", "",
        ] {
            assert!(!is_definite(&SqlState::from_code(code)), "{code}");
        }
    }
}
