//! Writes the dead letters of one consumer.

use std::time::Duration;

use async_nats::header::{HeaderMap, HeaderName};
use async_nats::jetstream::Context;
use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::stream::{Config, DiscardPolicy, StorageType};
use bytes::Bytes;
use tracing::warn;

use super::{
    ATTEMPTS, DURABLE, ORIGIN_SEQUENCE, ORIGIN_STREAM, ORIGIN_SUBJECT, ORIGINAL_PREFIX,
    PAYLOAD_OMITTED, REASON, STREAM, SUBJECT_PREFIX,
};
use crate::consumer::Received;
use crate::envelope::EVENT_ID;

/// A crash between dead letter and termination leads to the same dead letter again, which JetStream
/// drops within this time; it comes after `ack_wait`.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(3600);

/// Bytes of a reason that are kept. Errors may quote their input.
const REASON_MAX: usize = 1024;

/// Stores the dead letters of one consumer.
#[derive(Debug, Clone)]
pub(crate) struct DeadLetters {
    context: Context,
    durable: String,
}

impl DeadLetters {
    pub(crate) fn new(context: Context, durable: &str) -> Self {
        Self {
            context,
            durable: durable.to_owned(),
        }
    }

    /// Creates the stream where it is missing, with as many replicas as the events' own stream: no less
    /// durable than it. One that exists stays as it is.
    pub(crate) async fn create_stream(&self, replicas: usize) -> Result<(), async_nats::Error> {
        let config = Config {
            name: STREAM.to_owned(),
            description: Some("Events that a consumer could not apply, with the reason".to_owned()),
            subjects: vec![format!("{SUBJECT_PREFIX}>")],
            storage: StorageType::File,
            num_replicas: replicas,
            // Unlimited, and refusing rather than forgetting if an operator sets a limit: a refused
            // dead letter's event is delivered again.
            discard: DiscardPolicy::New,
            duplicate_window: DUPLICATE_WINDOW,
            allow_direct: true,
            ..Config::default()
        };
        self.context.get_or_create_stream(config).await?;
        Ok(())
    }

    /// Stores `received` with `reason`. Ok: JetStream has acknowledged it; the original may go.
    pub(crate) async fn store(
        &self,
        received: &Received,
        reason: &str,
    ) -> Result<(), async_nats::Error> {
        let mut headers = self.headers(received, reason)?;
        let payload = received.message.payload.clone();
        let bytes = payload.len();
        match self.publish(headers.clone(), payload).await {
            Err(error) if error.kind() == PublishErrorKind::MaxPayloadExceeded => {
                warn!(
                    sequence = received.sequence,
                    bytes, "too large for a dead letter: its payload is left out"
                );
                headers.insert(PAYLOAD_OMITTED, bytes.to_string());
                self.publish(headers, Bytes::new()).await?;
            }
            outcome => outcome?,
        }
        Ok(())
    }

    async fn publish(&self, headers: HeaderMap, payload: Bytes) -> Result<(), PublishError> {
        let subject = format!("{SUBJECT_PREFIX}{}", self.durable);
        let acknowledgement = self
            .context
            .publish_with_headers(subject, headers, payload)
            .await?;
        acknowledgement.await?;
        Ok(())
    }

    fn headers(&self, received: &Received, reason: &str) -> Result<HeaderMap, async_nats::Error> {
        let Received {
            stream,
            sequence,
            stored_at,
            ..
        } = received;
        let mut headers = HeaderMap::new();
        for (name, values) in received.message.headers.iter().flat_map(HeaderMap::iter) {
            let name: HeaderName = format!("{ORIGINAL_PREFIX}{name}").parse()?;
            for value in values {
                headers.append(name.clone(), value.clone());
            }
        }
        // The same for each delivery of the message, so that a repeat is one dead letter.
        let id = format!("{}:{stream}:{sequence}:{stored_at}", self.durable);
        headers.insert(EVENT_ID, id);
        headers.insert(REASON, header_text(reason));
        headers.insert(DURABLE, self.durable.as_str());
        headers.insert(ORIGIN_STREAM, stream.as_str());
        headers.insert(ORIGIN_SEQUENCE, sequence.to_string());
        headers.insert(ORIGIN_SUBJECT, received.message.subject.as_str());
        headers.insert(ATTEMPTS, received.attempts.to_string());
        Ok(headers)
    }
}

/// Header values are one line.
pub(super) fn header_text(text: &str) -> String {
    text[..text.floor_char_boundary(REASON_MAX)].replace(['\r', '\n'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_becomes_one_bounded_line() {
        assert_eq!(header_text("a\r\nb"), "a  b");
        let long = header_text(&"é".repeat(REASON_MAX));
        assert!(long.len() <= REASON_MAX && long.ends_with('é'));
        assert_eq!(header_text("short"), "short");
    }
}
