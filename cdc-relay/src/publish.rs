//! Appends to the stream by compare-and-swap: each append states the sequence that it expects to
//! follow, so that nothing overtakes a failed one, and a second relay that believes it is alone is
//! refused (I5).
//!
//! ```text
//! truth: last sequence, last position ──▶ append(expects last sequence) ──ok──▶ last sequence + n
//!     ▲                                                   │
//!     └──────────── any error or time-out ────────────────┘   never retried blindly
//! ```
//!
//! The danger: a time-out does not mean *not stored*. Whoever gets an error from [`Appender::append`]
//! must drop the appender and open another, which reads the truth again.

use std::{sync::atomic::Ordering, time::Duration};

use async_nats::{
    Client, HeaderMap, Request, RequestErrorKind,
    connection::State,
    header::{
        NATS_BATCH_COMMIT, NATS_BATCH_COMMIT_FINAL, NATS_BATCH_ID, NATS_BATCH_SEQUENCE,
        NATS_EXPECTED_LAST_SEQUENCE, NATS_EXPECTED_STREAM,
    },
    jetstream::{publish::PublishAck, response::Response},
};
use metrics::{counter, histogram};
use tokio::time::sleep;
use uuid::Uuid;

use crate::{
    error::{Error, Result},
    record::Record,
    stream::Truth,
};

/// How long JetStream may take to acknowledge an append; over that the truth is read again.
const ACK_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an append may take in all: a stuck socket holds the messages before the acknowledgement.
const APPEND_TIMEOUT: Duration = Duration::from_secs(15);

/// How often an append in flight looks whether its connection is still the one that it went out on.
const CONNECTION_CHECK: Duration = Duration::from_millis(100);

/// Who writes to the stream, at its end as it was read last.
#[derive(Debug)]
pub struct Appender {
    client: Client,
    stream: String,
    last_sequence: u64,
}

/// What the stream can take. A record is checked before it is sent: an atomic batch that lacks a
/// message is refused as a whole, without a word about which.
#[derive(Clone, Debug)]
pub struct Limits {
    stream: String,
    subjects: Vec<String>,
    bytes_max: usize,
}

impl Limits {
    pub fn of(client: &Client, truth: &Truth) -> Self {
        Self {
            stream: truth.stream.clone(),
            subjects: truth.subjects.clone(),
            bytes_max: client.max_payload(),
        }
    }

    /// # Errors
    /// Why the record cannot be appended, and what would mend it.
    pub fn check(&self, record: &Record) -> Result<(), String> {
        let bytes = record.bytes() + HEADERS_OF_AN_APPEND + self.stream.len();
        if bytes > self.bytes_max {
            return Err(format!(
                "it takes {bytes} bytes with its headers, and the NATS server takes {}: raise its \
                 `max_payload`, or make the event smaller",
                self.bytes_max
            ));
        }
        if self
            .subjects
            .iter()
            .any(|pattern| covers(pattern, &record.subject))
        {
            return Ok(());
        }
        Err(format!(
            "it goes to `{}`, which stream {} does not take (it takes {}): add the subject to the \
             stream, or mend CDC_SUBJECT",
            record.subject,
            self.stream,
            self.subjects.join(", "),
        ))
    }
}

impl Appender {
    /// Appends after `truth`.
    pub fn after(client: Client, truth: &Truth) -> Self {
        Self {
            client,
            stream: truth.stream.clone(),
            last_sequence: truth.last_sequence,
        }
    }

    /// Appends all of `records` or nothing, in their order, and waits until JetStream has
    /// acknowledged them. One alone goes as a plain publish, which is quicker; more go as an atomic
    /// batch.
    ///
    /// # Errors
    /// After any, what was stored is not known: drop the appender and read the truth again.
    pub async fn append(&mut self, records: Vec<Record>) -> Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        let count = records.len();
        let expected = self.last_sequence + count as u64;
        let ack = self.send(records).await?;
        // A duplicate at the very place that was asked for is this message, stored by an attempt
        // that timed out. Elsewhere, it is another event of the same id.
        if ack.duplicate && ack.sequence != expected {
            return Err(Error::Definite(format!(
                "stream {} already holds an event of the same id at sequence {}: ids in the outbox \
                 must be unique",
                self.stream, ack.sequence
            )));
        }
        if ack.sequence != expected {
            return Err(Error::Transient(format!(
                "stream {} stored at sequence {}, not at {expected}",
                self.stream, ack.sequence
            )));
        }
        self.last_sequence = expected;
        counter!("cdc_relay_published_total").increment(count as u64);
        histogram!("cdc_relay_batch_size").record(count as f64);
        Ok(())
    }

    /// Sends, and waits for the acknowledgement; no longer than the connection lasts.
    async fn send(&self, records: Vec<Record>) -> Result<PublishAck> {
        let connection = self.connection();
        let exchange = Error::within(
            "append to the stream",
            APPEND_TIMEOUT,
            self.exchange(records),
        );
        tokio::select! {
            ack = exchange => ack,
            () = self.lost(connection) => Err(Error::Transient(
                "append to the stream: the connection to NATS was lost, and the acknowledgement with it"
                    .to_owned(),
            )),
        }
    }

    /// Which connection this is, if there is one: they are counted.
    fn connection(&self) -> Option<u64> {
        let count = self.client.statistics().connects.load(Ordering::Relaxed);
        (self.client.connection_state() == State::Connected).then_some(count)
    }

    async fn lost(&self, connection: Option<u64>) {
        while connection.is_some() && self.connection() == connection {
            sleep(CONNECTION_CHECK).await;
        }
    }

    async fn exchange(&self, mut records: Vec<Record>) -> Result<PublishAck> {
        let mut first = HeaderMap::new();
        first.insert(NATS_EXPECTED_STREAM, self.stream.as_str());
        first.insert(NATS_EXPECTED_LAST_SEQUENCE, self.last_sequence.to_string());
        let Some(mut last) = records.pop() else {
            return Err(Error::definite("an append of nothing"));
        };
        if !records.is_empty() {
            let batch = Uuid::now_v7().simple().to_string();
            let size = records.len() + 1;
            for (at, mut record) in records.into_iter().enumerate() {
                number(&mut record.headers, &batch, at + 1);
                if at == 0 {
                    merge(&mut record.headers, &mut first);
                }
                let Record {
                    subject,
                    headers,
                    payload,
                    ..
                } = record;
                let sent = self
                    .client
                    .publish_with_headers(subject, headers, payload)
                    .await;
                sent.map_err(|e| Error::transient("publish", &e))?;
            }
            number(&mut last.headers, &batch, size);
            last.headers
                .insert(NATS_BATCH_COMMIT, NATS_BATCH_COMMIT_FINAL);
        }
        merge(&mut last.headers, &mut first);
        self.acknowledged(last).await
    }

    /// Sends the message that asks for the acknowledgement, and reads it.
    async fn acknowledged(&self, record: Record) -> Result<PublishAck> {
        let during = "append to the stream";
        let subject = record.subject;
        let request = Request::new()
            .headers(record.headers)
            .payload(record.payload)
            .timeout(Some(ACK_TIMEOUT));
        let reply = self.client.send_request(subject.clone(), request).await;
        let reply = reply.map_err(|error| match error.kind() {
            RequestErrorKind::NoResponders => Error::Transient(format!(
                "{during}: nobody takes `{subject}`: JetStream is not ready, or stream {} was \
                 deleted or lost that subject",
                self.stream
            )),
            _ => Error::transient(during, &error),
        })?;
        match serde_json::from_slice::<Response<PublishAck>>(&reply.payload) {
            Ok(Response::Ok(ack)) => Ok(ack),
            // Another writer (10071), a refused batch, a leader change: the truth decides.
            Ok(Response::Err { error }) => Err(Error::Transient(format!(
                "{during}: stream {} refused: {error}",
                self.stream
            ))),
            Err(error) => Err(Error::transient(during, &error)),
        }
    }
}

/// Room for the headers that [`Appender::append`] adds itself.
const HEADERS_OF_AN_APPEND: usize = 256;

fn number(headers: &mut HeaderMap, batch: &str, at: usize) {
    headers.insert(NATS_BATCH_ID, batch);
    headers.insert(NATS_BATCH_SEQUENCE, at.to_string());
}

/// Moves the append's own headers to its first message; later ones get none.
fn merge(headers: &mut HeaderMap, first: &mut HeaderMap) {
    for (name, values) in std::mem::take(first).iter() {
        for value in values {
            headers.insert(name.clone(), value.clone());
        }
    }
}

/// Whether a stream's subject pattern takes the subject.
fn covers(pattern: &str, subject: &str) -> bool {
    let mut tokens = subject.split('.');
    for wanted in pattern.split('.') {
        match (wanted, tokens.next()) {
            (">", Some(_)) => return true,
            ("*", Some(_)) => {}
            (wanted, Some(token)) if wanted == token => {}
            _ => return false,
        }
    }
    tokens.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::covers;

    #[test]
    fn patterns_cover_what_nats_says_they_do() {
        for (pattern, subject, expected) in [
            ("a.b", "a.b", true),
            ("a.*", "a.b", true),
            ("a.>", "a.b.c", true),
            (">", "a", true),
            ("a.>", "a", false),
            ("a.*", "a.b.c", false),
            ("a.b.c", "a.b", false),
            ("a", "b", false),
        ] {
            assert_eq!(covers(pattern, subject), expected, "{pattern} {subject}");
        }
    }
}
