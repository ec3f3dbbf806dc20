//! One message, or an atomic batch, and the acknowledgement of it.

use std::time::Duration;

use async_nats::{
    Client, Request, RequestErrorKind,
    header::NATS_BATCH_COMMIT_FINAL,
    jetstream::{ErrorCode, publish::PublishAck, response::Response},
};

use crate::{
    error::{Error, Result},
    record::{Headers, Record},
};

const EXPECTED_STREAM: &str = "Nats-Expected-Stream";
const EXPECTED_LAST_SEQUENCE: &str = "Nats-Expected-Last-Sequence";
const BATCH_ID: &str = "Nats-Batch-Id";
const BATCH_SEQUENCE: &str = "Nats-Batch-Sequence";
const BATCH_COMMIT: &str = "Nats-Batch-Commit";

pub(super) const DURING: &str = "append to the stream";

/// How long JetStream may take to acknowledge an append; over that the truth is read again.
const ACK_TIMEOUT: Duration = Duration::from_secs(10);

/// Sends to one stream.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) client: Client,
    pub(super) stream: String,
}

impl Exchange {
    pub(super) fn new(client: Client, stream: &str) -> Self {
        Self {
            client,
            stream: stream.to_owned(),
        }
    }

    /// Sends the records, of which there is at least one, but for the last: that one is returned. It
    /// stores them all, and asks for the acknowledgement.
    pub(super) async fn send(
        &self,
        mut records: Vec<Record>,
        last_sequence: u64,
    ) -> Result<Record> {
        let Some(mut last) = records.pop() else {
            return Err(Error::definite("an append of nothing"));
        };
        let first = records.first_mut().unwrap_or(&mut last);
        first.headers.push_own(EXPECTED_STREAM, &self.stream);
        expect(&mut first.headers, last_sequence);
        if !records.is_empty() {
            let batch = new_batch_id();
            let size = records.len() + 1;
            for (at, mut record) in records.into_iter().enumerate() {
                number(&mut record.headers, &batch, at + 1);
                let sent = self
                    .client
                    .publish_with_headers(record.subject, record.headers.into_map(), record.payload)
                    .await;
                sent.map_err(|e| Error::transient("publish", &e))?;
            }
            number(&mut last.headers, &batch, size);
            last.headers.push_own(BATCH_COMMIT, NATS_BATCH_COMMIT_FINAL);
        }
        Ok(last)
    }

    /// Sends the message that asks for the acknowledgement, and reads it.
    pub(super) async fn acknowledged(&self, record: Record) -> Result<PublishAck> {
        let subject = record.subject;
        let request = Request::new()
            .headers(record.headers.into_map())
            .payload(record.payload)
            .timeout(Some(ACK_TIMEOUT));
        let reply = self.client.send_request(subject.clone(), request).await;
        let reply = reply.map_err(|error| match error.kind() {
            RequestErrorKind::NoResponders => self.nobody(&subject),
            _ => Error::transient(DURING, &error),
        })?;
        match serde_json::from_slice::<Response<PublishAck>>(&reply.payload) {
            Ok(Response::Ok(ack)) => Ok(ack),
            Ok(Response::Err { error }) => Err(self.refused(&error)),
            Err(error) => Err(Error::transient(DURING, &error)),
        }
    }

    /// Nobody listens on the subject.
    pub(super) fn nobody(&self, subject: &str) -> Error {
        Error::Transient(format!(
            "{DURING}: nobody takes `{subject}`: JetStream is not ready, or stream {} was deleted or \
             lost that subject",
            self.stream
        ))
    }

    /// Another writer (10071), a refused batch, a leader change: the truth decides.
    pub(super) fn refused(&self, why: &async_nats::jetstream::Error) -> Error {
        let text = format!("{DURING}: stream {} refused: {why}", self.stream);
        match why.error_code() {
            ErrorCode::ATOMIC_PUBLISH_CONTAINS_DUPLICATE_MESSAGE => Error::Unclear(text),
            _ => Error::Transient(text),
        }
    }
}

/// Unique among the batches that the stream has in hand.
pub(super) fn new_batch_id() -> String {
    format!("{:016x}", rand::random::<u64>())
}

/// States the sequence that the message must follow.
pub(super) fn expect(headers: &mut Headers, last_sequence: u64) {
    headers.push_own(EXPECTED_LAST_SEQUENCE, last_sequence);
}

fn number(headers: &mut Headers, batch: &str, at: usize) {
    headers.push_own(BATCH_ID, batch);
    headers.push_own(BATCH_SEQUENCE, at);
}
