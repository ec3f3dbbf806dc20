//! A dead letter, read back from its stream.

use std::time::SystemTime;

use async_nats::HeaderMap;
use async_nats::header::HeaderName;
use async_nats::jetstream::message::StreamMessage;
use bytes::Bytes;

use super::{
    ATTEMPTS, DIED, DURABLE, ORIGIN_SEQUENCE, ORIGIN_STREAM, ORIGIN_SUBJECT, ORIGINAL_PREFIX,
    PAYLOAD_OMITTED, REASON,
};
use crate::envelope::{AGGREGATE_ID, AGGREGATE_TYPE, EVENT_ID, EVENT_TYPE};

/// What is known of a dead letter without its event's message and headers, so that many of them can be
/// in memory (I12).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// Its sequence in the stream of dead letters: its name.
    pub sequence: u64,
    /// When it was stored there.
    pub time: SystemTime,
    /// The durable consumer that could not apply the event.
    pub durable: String,
    /// Why it could not.
    pub reason: String,
    /// How often the event had been delivered.
    pub attempts: u32,
    /// Where the event came from.
    pub origin: Origin,
    /// The event's id; empty if it came without.
    pub event_id: String,
    /// The event's type; empty if it came without.
    pub event_type: String,
    /// The kind of thing that the event is about; empty if it came without.
    pub aggregate_type: String,
    /// The id of the thing that the event is about; empty if it came without.
    pub aggregate_id: String,
    /// The size of the event's message.
    pub payload_bytes: u64,
    /// Whether the event's message stands at its origin alone.
    pub payload_omitted: bool,
}

/// An event's place in its own stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The stream.
    pub stream: String,
    /// The sequence.
    pub sequence: u64,
    /// The subject.
    pub subject: String,
}

/// A letter with all that it holds.
#[derive(Debug, Clone)]
pub struct Opened {
    /// The letter.
    pub letter: Letter,
    /// The event's headers, as they were delivered.
    pub headers: HeaderMap,
    /// The event's message; none if it was left out of the letter.
    pub payload: Option<Bytes>,
}

impl Letter {
    /// Whether its event has ended the process that applied it, each time, as a redrive then does too.
    #[must_use]
    pub fn ends_its_process(&self) -> bool {
        self.reason.starts_with(DIED)
    }

    /// What `message` tells; headers that somebody has taken away read as empty.
    pub(super) fn of(message: &StreamMessage) -> Self {
        let header = |name: &str| {
            let value = message.headers.get(name);
            value.map_or_else(String::new, |value| value.as_str().to_owned())
        };
        let original = |name: &str| header(&format!("{ORIGINAL_PREFIX}{name}"));
        let omitted = message.headers.get(PAYLOAD_OMITTED);
        let payload_bytes = omitted.map_or(message.payload.len() as u64, |bytes| {
            bytes.as_str().parse().unwrap_or_default()
        });
        Self {
            sequence: message.sequence,
            time: message.time.into(),
            durable: header(DURABLE),
            reason: header(REASON),
            attempts: header(ATTEMPTS).parse().unwrap_or_default(),
            origin: Origin {
                stream: header(ORIGIN_STREAM),
                sequence: header(ORIGIN_SEQUENCE).parse().unwrap_or_default(),
                subject: header(ORIGIN_SUBJECT),
            },
            event_id: original(EVENT_ID),
            event_type: original(EVENT_TYPE),
            aggregate_type: original(AGGREGATE_TYPE),
            aggregate_id: original(AGGREGATE_ID),
            payload_bytes,
            payload_omitted: omitted.is_some(),
        }
    }
}

impl Opened {
    pub(super) fn of(message: &StreamMessage) -> Self {
        let letter = Letter::of(message);
        let mut headers = HeaderMap::new();
        for (name, values) in message.headers.iter() {
            let name = AsRef::<str>::as_ref(name).strip_prefix(ORIGINAL_PREFIX);
            let Some(Ok(name)) = name.map(str::parse::<HeaderName>) else {
                continue;
            };
            for value in values {
                headers.append(name.clone(), value.clone());
            }
        }
        let payload = (!letter.payload_omitted).then(|| message.payload.clone());
        Self {
            letter,
            headers,
            payload,
        }
    }
}
