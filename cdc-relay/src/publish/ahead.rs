//! The next batch is sent while the one before it is on its way, so that the server has it at hand when
//! its turn comes.
//!
//! ```text
//! batch n    ████████ commit ──────▶ acknowledged
//! batch n+1           ░░░░░░░░ sent, not committed ─▶ commit ──────▶ acknowledged
//! ```
//!
//! The danger: two appends in flight are no fence (I5). If the first were refused, and a rival stored
//! just as many in its place, the second would fit again. So only what stores nothing goes ahead: an
//! atomic batch without its last message, which waits for the acknowledgement of the batch before it.

use std::{pin::pin, time::Instant};

use async_nats::jetstream::publish::PublishAck;
use tokio_postgres::types::PgLsn;

use super::{APPEND_TIMEOUT, Appender, DURING, Last, pace::Way, while_connected};
use crate::{
    error::{Error, Result},
    history::Stored,
    record::Record,
    window::Batch,
};

/// What follows a batch that has been appended.
#[derive(Debug)]
pub enum Next {
    /// Nothing of it has been sent.
    Taken(Batch),
    Sent(Box<Sent>),
}

impl Next {
    /// End of its last whole transaction.
    pub fn end(&self) -> Option<PgLsn> {
        match self {
            Self::Taken(batch) => batch.end,
            Self::Sent(sent) => sent.end,
        }
    }

    /// How many rows it has, published or not.
    pub fn rows(&self) -> usize {
        match self {
            Self::Taken(batch) => batch.records.len() + batch.offenders.len(),
            Self::Sent(sent) => usize::try_from(sent.last.count).unwrap_or(usize::MAX),
        }
    }
}

/// A batch of which all but the last message has been sent. Nothing of it is stored.
#[derive(Debug)]
pub struct Sent {
    end: Option<PgLsn>,
    last: Last,
    commit: Record,
    /// It might have gone apart: how long it takes is worth knowing.
    is_compared: bool,
}

impl Sent {
    /// Its last row.
    pub fn last_row(&self) -> Stored {
        Stored::row(self.last.position, Some(&self.last.id))
    }
}

impl Appender {
    /// Sends all but the last message of `batch`, to stand behind `last_sequence`; a batch that cannot
    /// be sent ahead is given back.
    async fn send_ahead(&self, batch: Batch, last_sequence: u64) -> Result<Next> {
        let way = self.way(&batch, Instant::now());
        let Some(last) = Last::of(&batch.records) else {
            return Ok(Next::Taken(batch));
        };
        if way != Way::Together || !batch.offenders.is_empty() {
            return Ok(Next::Taken(batch));
        }
        let is_compared = self.may_go_apart(&batch);
        let sending = self.exchange.send(batch.records, last_sequence);
        Ok(Next::Sent(Box::new(Sent {
            end: batch.end,
            last,
            commit: Error::within(DURING, APPEND_TIMEOUT, sending).await?,
            is_compared,
        })))
    }

    /// Appends a batch as one, and sends ahead what `following` gives meanwhile.
    pub(super) async fn append_whole(
        &mut self,
        batch: Batch,
        following: impl Future<Output = Batch>,
    ) -> Result<Option<Next>> {
        let begun = Instant::now();
        let Some(last) = Last::of(&batch.records) else {
            return Ok(None);
        };
        let sent = Sent {
            end: batch.end,
            last,
            is_compared: self.may_go_apart(&batch),
            commit: {
                let sending = self.exchange.send(batch.records, self.last_sequence);
                Error::within(DURING, APPEND_TIMEOUT, sending).await?
            },
        };
        self.commit(sent, begun, following).await
    }

    /// Commits a batch that was sent ahead, and sends ahead what `following` gives meanwhile.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub async fn append_sent(
        &mut self,
        sent: Sent,
        following: impl Future<Output = Batch>,
    ) -> Result<Option<Next>> {
        self.commit(sent, Instant::now(), following).await
    }

    async fn commit(
        &mut self,
        sent: Sent,
        begun: Instant,
        following: impl Future<Output = Batch>,
    ) -> Result<Option<Next>> {
        let count = sent.last.count;
        let committing = self.exchange.acknowledged(sent.commit);
        let committing = while_connected(&self.exchange.client, committing);
        let (ack, next) = self.meanwhile(committing, following, count).await?;
        self.acknowledged(&ack, sent.last)?;
        if sent.is_compared {
            let count = usize::try_from(count).unwrap_or(usize::MAX);
            self.pace
                .learn(Way::Together, count, begun, begun.elapsed());
        }
        Ok(next)
    }

    /// Waits for the acknowledgement of `count` events. What has begun to be sent ahead by then is sent.
    async fn meanwhile(
        &self,
        committing: impl Future<Output = Result<PublishAck>>,
        following: impl Future<Output = Batch>,
        count: u64,
    ) -> Result<(PublishAck, Option<Next>)> {
        let mut committing = pin!(committing);
        let batch = tokio::select! {
            ack = &mut committing => return Ok((ack?, None)),
            batch = following => batch,
        };
        let sending = self.send_ahead(batch, self.last_sequence + count);
        let (ack, next) = tokio::try_join!(committing, sending)?;
        Ok((ack, Some(next)))
    }
}
