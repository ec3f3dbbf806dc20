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
//!
//! Pipelined messages that each state their sequence would be quicker, and no fence: a stranger's
//! message costs the one whose place it took, and those behind it fit again.

mod limits;

pub use limits::Limits;
pub(crate) use limits::covers;

use std::{sync::atomic::Ordering, time::Duration};

use async_nats::{
    Client, HeaderMap, Request, RequestErrorKind,
    connection::State,
    header::{
        NATS_BATCH_COMMIT, NATS_BATCH_COMMIT_FINAL, NATS_BATCH_ID, NATS_BATCH_SEQUENCE,
        NATS_EXPECTED_LAST_SEQUENCE, NATS_EXPECTED_STREAM,
    },
    jetstream::{publish::PublishAck, response::Response, stream::Config},
};
use metrics::{counter, histogram};
use tokio::time::sleep;
use uuid::Uuid;

use crate::{
    error::{Error, Result},
    record::Record,
    stream::Truth,
    window::Batch,
};

/// How long JetStream may take to acknowledge an append; over that the truth is read again.
const ACK_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an append may take in all: a stuck socket holds the messages before the acknowledgement.
const APPEND_TIMEOUT: Duration = Duration::from_secs(15);

/// How often an append in flight looks whether its connection is still the one that it went out on.
const CONNECTION_CHECK: Duration = Duration::from_millis(100);

/// Up to so many transactions of one event each go one by one: an atomic batch is synced to disk
/// several times, whatever its size, and so takes longer than a few single messages do.
const SINGLES_MAX: usize = 8;

/// How messages get into the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// Whole transactions together, in atomic batches (nats-server 2.12 and newer).
    AtomicBatches,
    /// Each message after the acknowledgement of the one before it: as safe, and much slower.
    OneByOne,
}

impl Path {
    /// What the stream's settings allow.
    pub fn of(stream: &Config) -> Self {
        if stream.allow_atomic_publish {
            Self::AtomicBatches
        } else {
            Self::OneByOne
        }
    }

    /// For status, metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::AtomicBatches => "atomic-batches",
            Self::OneByOne => "one-by-one",
        }
    }
}

/// Who writes to the stream, at its end as it was read last.
#[derive(Debug)]
pub struct Appender {
    client: Client,
    stream: String,
    path: Path,
    last_sequence: u64,
    acknowledged: Option<Acknowledged>,
}

/// The end of an append that JetStream has acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledged {
    pub sequence: u64,
    pub id: String,
}

impl Appender {
    /// Appends after `truth`.
    pub fn after(client: Client, truth: &Truth) -> Self {
        Self {
            client,
            stream: truth.stream.clone(),
            path: truth.path,
            last_sequence: truth.last_sequence,
            acknowledged: None,
        }
    }

    /// The last append that was acknowledged to this appender.
    pub fn last_acknowledged(&self) -> Option<&Acknowledged> {
        self.acknowledged.as_ref()
    }

    /// Appends a batch and waits until JetStream has acknowledged all of it.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub async fn append_batch(&mut self, batch: Batch) -> Result<()> {
        if batch.is_of_singles && batch.records.len() <= SINGLES_MAX {
            return self.append_one_by_one(batch.records).await;
        }
        self.append(batch.records).await
    }

    /// Appends all of `records` or nothing, in their order, and waits until JetStream has
    /// acknowledged them; where the stream takes no atomic batches, one after the other, so that an
    /// error may leave the first of them stored.
    ///
    /// # Errors
    /// After any, what was stored is not known: drop the appender and read the truth again.
    pub async fn append(&mut self, records: Vec<Record>) -> Result<()> {
        match self.path {
            Path::AtomicBatches => self.append_together(records).await,
            Path::OneByOne => self.append_one_by_one(records).await,
        }
    }

    /// One append in flight, so that nothing can follow one that failed.
    async fn append_one_by_one(&mut self, records: Vec<Record>) -> Result<()> {
        for record in records {
            self.append_together(vec![record]).await?;
        }
        Ok(())
    }

    async fn append_together(&mut self, records: Vec<Record>) -> Result<()> {
        let Some(id) = records.last().map(|last| last.id().to_owned()) else {
            return Ok(());
        };
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
        self.acknowledged = Some(Acknowledged {
            sequence: expected,
            id,
        });
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
