//! Applies the events of dead letters once more: each in a transaction that claims it by its own id, so
//! that it is applied once, however often it is asked for, and by how many at a time.

use std::time::Duration;

use deadpool_postgres::Pool;
use tracing::{info, warn};

use super::{Error, Letters, Opened};
use crate::consumer::{Handler, Setback, attempt};
use crate::envelope;
use crate::inbox::Delivery;

/// What became of one letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Its event is applied. The text, if any, says why the letter still stands.
    Applied(Option<String>),
    /// Its event was applied before. The text, if any, says why the letter still stands.
    AlreadyApplied(Option<String>),
    /// Its event was not applied, for this reason; the letter stands.
    Failed(String),
    /// There is no such letter of this consumer.
    NotFound,
}

/// Applies dead letters to the database that their consumer applies events to.
#[derive(Debug, Clone)]
pub struct Redrive<H> {
    letters: Letters,
    pool: Pool,
    handler: H,
    within: Duration,
}

impl<H: Handler> Redrive<H> {
    /// By the consumer's own `handler`, which gets `within` for each.
    pub fn new(letters: Letters, pool: Pool, handler: H, within: Duration) -> Self {
        Self {
            letters,
            pool,
            handler,
            within,
        }
    }

    /// The letters.
    pub fn letters(&self) -> &Letters {
        &self.letters
    }

    /// Applies one letter's event, alone, and deletes the letter after the commit. A crash in between
    /// leaves a letter whose event has been applied; the next redrive finds its claim, and deletes it.
    ///
    /// # Errors
    /// [`Error`]: the letter cannot be read; nothing was done.
    pub async fn redrive(&self, sequence: u64) -> Result<Outcome, Error> {
        let Some((stream, message)) = self.letters.find(sequence).await? else {
            return Ok(Outcome::NotFound);
        };
        let opened = Opened::of(&message);
        let event = match self.event(&opened).await? {
            Ok(event) => event,
            Err(why) => return Ok(Outcome::Failed(why)),
        };
        let event_id = event.id;
        let durable = self.letters.durable();
        let attempt = attempt(&self.pool, durable, self.within, &self.handler, vec![event]);
        let applied = match attempt.await {
            Ok(applied) => applied,
            Err(setback) => {
                warn!(%event_id, sequence, durable, kind = Setback::kind(&setback), reason = %setback, "a dead letter failed again");
                return Ok(Outcome::Failed(setback.to_string()));
            }
        };
        let deleted = self.letters.delete(&stream, sequence).await;
        let stands = deleted.err().map(|error| error.to_string());
        info!(%event_id, sequence, durable, repeat = applied.is_empty(), ?stands, "a dead letter was applied");
        Ok(if applied.is_empty() {
            Outcome::AlreadyApplied(stands)
        } else {
            Outcome::Applied(stands)
        })
    }

    async fn event(&self, opened: &Opened) -> Result<Result<Delivery, String>, Error> {
        let Some(payload) = self.letters.payload(opened).await? else {
            let origin = &opened.letter.origin;
            return Ok(Err(format!(
                "the event's message was too large for the letter, and the stream {} does not hold it at \
                 {} any more",
                origin.stream, origin.sequence
            )));
        };
        let event = envelope::decode(Some(&opened.headers), payload);
        Ok(event.map_err(|malformed| format!("malformed envelope: {malformed}")))
    }
}
