//! The dead letters of one consumer, to be looked at and taken away.
//!
//! They are read through the stream's leader: by a direct get a replica could show what is gone.

use std::error::Error as StdError;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::context::{GetStreamErrorKind, PublishError, PublishErrorKind};
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{
    Config, DiscardPolicy, RawMessageErrorKind, StorageType, Stream,
};
use async_nats::jetstream::{self, Context, ErrorCode};
use bytes::Bytes;
use tracing::warn;

use super::writer::header_text;
use super::{
    DISCARD_REASON, DISCARDED_PREFIX, DISCARDED_SEQUENCE, DISCARDED_STREAM, Letter, Opened,
    PAYLOAD_OMITTED, STREAM, SUBJECT_PREFIX,
};
use crate::envelope::EVENT_ID;

/// For how long it can be looked up what was discarded, and why; and got back by hand.
const DISCARDED_FOR: Duration = Duration::from_secs(90 * 24 * 3600);

/// A discard whose answer was lost is made again within this time, and leaves one trace.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(3600);

/// JetStream does not do its work: nothing is known of what was asked for. It can be asked for again.
#[derive(Debug, thiserror::Error)]
#[error("the dead letters cannot be reached: {0}")]
pub struct Error(#[source] Box<dyn StdError + Send + Sync>);

impl Error {
    fn new(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self(error.into())
    }
}

/// The dead letters of one durable consumer.
#[derive(Debug, Clone)]
pub struct Letters {
    context: Context,
    durable: String,
}

impl Letters {
    /// Those of `durable`. None need exist.
    #[must_use]
    pub fn new(client: async_nats::Client, durable: &str) -> Self {
        Self {
            context: jetstream::new(client),
            durable: durable.to_owned(),
        }
    }

    /// The durable consumer whose letters these are.
    #[must_use]
    pub fn durable(&self) -> &str {
        &self.durable
    }

    /// Up to `max` letters behind the sequence `after`, the oldest first.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn page(&self, after: u64, max: usize) -> Result<Vec<Letter>, Error> {
        let mut letters = Vec::new();
        let Some(stream) = self.stream(STREAM).await? else {
            return Ok(letters);
        };
        let mut after = after;
        while letters.len() < max {
            let next = stream
                .raw_message_builder()
                .sequence(after.saturating_add(1))
                .next_by_subject(self.subject())
                .send()
                .await;
            match next {
                Ok(message) => {
                    after = message.sequence;
                    letters.push(Letter::of(&message));
                }
                Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => break,
                Err(error) => return Err(Error::new(error)),
            }
        }
        Ok(letters)
    }

    /// One letter with all that it holds; None if there is none of this consumer.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn open(&self, sequence: u64) -> Result<Option<Opened>, Error> {
        let found = self.find(sequence).await?;
        Ok(found.map(|(_, message)| Opened::of(&message)))
    }

    /// The event's message: from the letter, or, where that was too small for it, from its own stream;
    /// None if it is not there any more.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn payload(&self, opened: &Opened) -> Result<Option<Bytes>, Error> {
        if let Some(payload) = &opened.payload {
            return Ok(Some(payload.clone()));
        }
        let origin = &opened.letter.origin;
        let Some(stream) = self.stream(&origin.stream).await? else {
            return Ok(None);
        };
        let found = raw(&stream, origin.sequence).await?;
        // A stream that was made anew has other events at the same places.
        Ok(found
            .filter(|message| {
                let id = message.headers.get(EVENT_ID);
                id.map(|id| id.as_str()) == opened.headers.get(EVENT_ID).map(|id| id.as_str())
                    && message.payload.len() as u64 == opened.letter.payload_bytes
            })
            .map(|message| message.payload))
    }

    /// Takes a letter away without its event being applied: it goes to [`DISCARDED_STREAM`] first, with
    /// `reason`. None if there is none of this consumer.
    ///
    /// # Errors
    /// [`Error`]; the letter may be gone nevertheless, with its trace.
    pub async fn discard(&self, sequence: u64, reason: &str) -> Result<Option<Letter>, Error> {
        let Some((stream, message)) = self.find(sequence).await? else {
            return Ok(None);
        };
        let letter = Letter::of(&message);
        let replicas = stream
            .get_info()
            .await
            .map_err(Error::new)?
            .config
            .num_replicas;
        self.keep_discarded(message, replicas, reason)
            .await
            .map_err(Error::new)?;
        self.delete(&stream, sequence).await?;
        warn!(
            sequence,
            durable = letter.durable,
            event_id = letter.event_id,
            event_type = letter.event_type,
            aggregate_id = letter.aggregate_id,
            origin_stream = letter.origin.stream,
            origin_sequence = letter.origin.sequence,
            dead_because = letter.reason,
            reason,
            "a dead letter was discarded: its event will not be applied"
        );
        Ok(Some(letter))
    }

    async fn keep_discarded(
        &self,
        message: StreamMessage,
        replicas: usize,
        reason: &str,
    ) -> Result<(), async_nats::Error> {
        let config = Config {
            name: DISCARDED_STREAM.to_owned(),
            description: Some("Dead letters that were discarded, with the reason".to_owned()),
            subjects: vec![format!("{DISCARDED_PREFIX}>")],
            storage: StorageType::File,
            num_replicas: replicas,
            max_age: DISCARDED_FOR,
            discard: DiscardPolicy::New,
            duplicate_window: DUPLICATE_WINDOW,
            allow_direct: true,
            ..Config::default()
        };
        self.context.get_or_create_stream(config).await?;
        let mut headers = message.headers;
        let id = headers
            .get(EVENT_ID)
            .map_or("", |id| id.as_str())
            .to_owned();
        headers.insert(EVENT_ID, format!("{id}:{}", message.sequence));
        headers.insert(DISCARD_REASON, header_text(reason));
        headers.insert(DISCARDED_SEQUENCE, message.sequence.to_string());
        let payload = message.payload;
        let (sequence, bytes) = (message.sequence, payload.len());
        match self.publish_discarded(headers.clone(), payload).await {
            Err(error) if error.kind() == PublishErrorKind::MaxPayloadExceeded => {
                warn!(
                    sequence,
                    bytes,
                    "too large to be kept with the reason of its discard: its payload is left out"
                );
                headers.insert(PAYLOAD_OMITTED, bytes.to_string());
                self.publish_discarded(headers, Bytes::new()).await?;
            }
            outcome => outcome?,
        }
        Ok(())
    }

    async fn publish_discarded(
        &self,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<(), PublishError> {
        let subject = format!("{DISCARDED_PREFIX}{}", self.durable);
        let sent = self.context.publish_with_headers(subject, headers, payload);
        sent.await?.await?;
        Ok(())
    }

    /// Only when its event is committed, or when it stands among the discarded ones (I10).
    pub(super) async fn delete(&self, stream: &Stream<()>, sequence: u64) -> Result<(), Error> {
        match stream.delete_message(sequence).await {
            Ok(_) => Ok(()),
            // Another call was quicker.
            Err(_) if raw(stream, sequence).await?.is_none() => Ok(()),
            Err(error) => Err(Error::new(error)),
        }
    }

    /// The letter of that sequence, if it is one of this consumer.
    pub(super) async fn find(
        &self,
        sequence: u64,
    ) -> Result<Option<(Stream<()>, StreamMessage)>, Error> {
        let Some(stream) = self.stream(STREAM).await? else {
            return Ok(None);
        };
        let found = raw(&stream, sequence).await?;
        Ok(found
            .filter(|message| message.subject.as_str() == self.subject())
            .map(|message| (stream, message)))
    }

    async fn stream(&self, name: &str) -> Result<Option<Stream<()>>, Error> {
        match self.context.get_stream(name).await {
            Ok(_) => {}
            Err(error) => {
                return match error.kind() {
                    GetStreamErrorKind::JetStream(e)
                        if e.error_code() == ErrorCode::STREAM_NOT_FOUND =>
                    {
                        Ok(None)
                    }
                    _ => Err(Error::new(error)),
                };
            }
        }
        let stream = self.context.get_stream_no_info(name).await;
        stream.map(Some).map_err(Error::new)
    }

    fn subject(&self) -> String {
        format!("{SUBJECT_PREFIX}{}", self.durable)
    }
}

/// Sequences begin with 1; 0 would be refused as a malformed request.
async fn raw(stream: &Stream<()>, sequence: u64) -> Result<Option<StreamMessage>, Error> {
    if sequence == 0 {
        return Ok(None);
    }
    match stream.get_raw_message(sequence).await {
        Ok(message) => Ok(Some(message)),
        Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
        Err(error) => Err(Error::new(error)),
    }
}
