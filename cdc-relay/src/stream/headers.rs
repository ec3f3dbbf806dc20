//! Reads the headers of a stream's messages from a place to its end, as the leader has the end.
//!
//! Danger: a consumer may be on a server of the cluster that has fallen behind, and counts as pending what
//! it has there. Whoever takes that for the end finds events missing that are not, and publishes them again.

use std::{fmt, time::Duration};

use async_nats::jetstream::{
    Message,
    consumer::{
        DeliverPolicy,
        pull::{Ordered, OrderedConfig},
    },
    stream::{RawMessageErrorKind, Stream},
};
use futures_util::StreamExt as _;
use tokio::time::timeout;

use crate::error::{Error, Result};

/// How long the next message may take: the last ones may have expired or been replaced meanwhile, and a
/// server may have to catch up.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(30);

/// Messages in the order of the stream, without their payloads.
pub struct Headers<'a, I> {
    stream: &'a Stream<I>,
    messages: Ordered,
    filters: Vec<String>,
    /// What the reading is for, in errors.
    during: &'static str,
    /// The sequence of the last message, and what the consumer had behind it.
    at: u64,
    pending: u64,
}

impl<I> fmt::Debug for Headers<'_, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Headers")
            .field("at", &self.at)
            .field("pending", &self.pending)
            .finish_non_exhaustive()
    }
}

impl<'a, I> Headers<'a, I> {
    /// Those behind sequence `after`, on the subjects that `filters` take; all, where there are none.
    pub async fn behind(
        stream: &'a Stream<I>,
        after: u64,
        filters: Vec<String>,
        during: &'static str,
    ) -> Result<Self> {
        let config = OrderedConfig {
            deliver_policy: DeliverPolicy::ByStartSequence {
                start_sequence: after + 1,
            },
            filter_subjects: filters.clone(),
            headers_only: true,
            ..OrderedConfig::default()
        };
        let consumer = stream.create_consumer(config).await;
        let mut consumer = consumer.map_err(|e| Error::transient(during, &e))?;
        let info = consumer.info().await;
        let pending = info.map_err(|e| Error::transient(during, &e))?.num_pending;
        let messages = consumer.messages().await;
        let messages = messages.map_err(|e| Error::transient(during, &e))?;
        Ok(Self {
            stream,
            messages,
            filters,
            during,
            at: after,
            pending,
        })
    }

    /// The next message and its sequence; `None` where the leader has no more either.
    pub async fn next(&mut self) -> Result<Option<(u64, Message)>> {
        let (stream, filters, during) = (self.stream, &self.filters, self.during);
        if self.pending == 0 && !leader_has_more(stream, filters, self.at, during).await? {
            return Ok(None);
        }
        let next = timeout(MESSAGE_TIMEOUT, self.messages.next()).await;
        let Ok(Some(message)) = next else {
            return Err(Error::Transient(format!(
                "{during}: the stream ended early"
            )));
        };
        let message = message.map_err(|e| Error::transient(during, &e))?;
        let info = message.info();
        let info = info.map_err(|e| Error::Transient(e.to_string()))?;
        (self.at, self.pending) = (info.stream_sequence, info.pending);
        Ok(Some((self.at, message)))
    }
}

/// Asks the leader, whatever the consumer's server knows. Takes no `&Headers`: that is not `Sync`.
async fn leader_has_more<I>(
    stream: &Stream<I>,
    filters: &[String],
    after: u64,
    during: &str,
) -> Result<bool> {
    let all = [">".to_owned()];
    let filters = if filters.is_empty() { &all } else { filters };
    for filter in filters {
        let found = stream.get_first_raw_message_by_subject(filter, after + 1);
        match found.await {
            Ok(_) => return Ok(true),
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => {}
            Err(error) => return Err(Error::transient(during, &error)),
        }
    }
    Ok(false)
}
