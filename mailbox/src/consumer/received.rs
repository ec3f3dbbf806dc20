//! A message in hand, and the four things that can be told to JetStream about it.

use std::time::Duration;

use async_nats::jetstream::{AckKind, Message};
use tracing::warn;

use crate::envelope::{self, Malformed};
use crate::inbox::Delivery;

/// A message together with what JetStream says about it.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) message: Message,
    pub(crate) stream: String,
    /// The message's place in its stream.
    pub(crate) sequence: u64,
    /// When it was stored, in nanoseconds since 1970: with the sequence, one message for ever, also
    /// when the stream is deleted and made anew.
    pub(crate) stored_at: i128,
    /// Deliveries so far, this one included; counted by JetStream over all replicas.
    pub(crate) attempts: u32,
}

impl Received {
    /// None if it is no message of a stream, which JetStream never delivers.
    pub(crate) fn new(message: Message) -> Option<Self> {
        let info = message.info().ok()?;
        Some(Self {
            stream: info.stream.to_owned(),
            sequence: info.stream_sequence,
            stored_at: info.published.unix_timestamp_nanos(),
            attempts: u32::try_from(info.delivered).unwrap_or(u32::MAX),
            message,
        })
    }

    pub(crate) fn decode(&self) -> Result<Delivery, Malformed> {
        envelope::decode(self.message.headers.as_ref(), self.message.payload.clone())
    }

    /// The event's id as it stands in the header, for logs.
    pub(crate) fn event_id(&self) -> &str {
        let headers = self.message.headers.as_ref();
        headers
            .and_then(|h| h.get(envelope::EVENT_ID))
            .map_or("", |id| id.as_str())
    }

    /// Applied. Only after the commit (I4).
    pub(crate) async fn acknowledge(&self) {
        self.tell(AckKind::Ack).await;
    }

    /// Stored as a dead letter. Only after that (I10).
    pub(crate) async fn terminate(&self) {
        self.tell(AckKind::Term).await;
    }

    /// Deliver it again, to whichever replica, and not before `delay`.
    pub(crate) async fn deliver_again(&self, delay: Duration) {
        self.tell(AckKind::Nak(Some(delay))).await;
    }

    /// Still being worked on: `ack_wait` begins anew.
    pub(crate) async fn renew(&self) {
        self.tell(AckKind::Progress).await;
    }

    /// None of these is needed for correctness: what does not arrive leads to another delivery.
    async fn tell(&self, kind: AckKind) {
        if let Err(error) = self.message.ack_with(kind).await {
            warn!(sequence = self.sequence, ?kind, %error, "could not tell JetStream; the message will be delivered again");
        }
    }
}
