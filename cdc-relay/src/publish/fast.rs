//! A fast batch (ADR-50, nats-server 2.14): messages that are stored as they come, of which none is
//! stored behind one that failed, and one acknowledgement for all.
//!
//! The danger: it is no transaction. An error may leave the first messages stored. And it is a fence
//! only because each message states its own sequence: the first that does not fit ends the batch.

use async_nats::{Client, Message, StatusCode, Subscriber, jetstream::publish::PublishAck};
use futures_util::StreamExt as _;
use serde::Deserialize;

use super::exchange::{DURING, Exchange, expect, new_batch_id};
use crate::{
    error::{Error, Result},
    record::Record,
};

/// After how many messages the server tells how far it is; it takes at most so many by itself.
const FLOW: u16 = 500;

/// What a message does to its batch.
#[derive(Clone, Copy)]
enum Operation {
    Start = 0,
    Append = 1,
    Commit = 2,
}

/// Where the server's answers to fast batches arrive.
#[derive(Debug)]
pub(super) struct FastIngest {
    inbox: String,
    replies: Subscriber,
}

/// What tells the server's answers apart: a note on the way has a type, the acknowledgement none.
#[derive(Debug, Deserialize)]
struct Kind {
    r#type: Option<String>,
    error: Option<async_nats::jetstream::Error>,
}

impl FastIngest {
    pub(super) async fn open(client: &Client) -> Result<Self> {
        let inbox = client.new_inbox();
        let replies = client.subscribe(format!("{inbox}.>")).await;
        Ok(Self {
            replies: replies.map_err(|e| Error::transient("listen for acknowledgements", &e))?,
            inbox,
        })
    }

    /// Sends the records and waits until all are stored.
    pub(super) async fn append(
        &mut self,
        exchange: &Exchange,
        records: Vec<Record>,
        last_sequence: u64,
    ) -> Result<PublishAck> {
        let (batch, count) = (new_batch_id(), records.len());
        let prefix = format!("{}.{batch}.{FLOW}.fail", self.inbox);
        for (at, mut record) in records.into_iter().enumerate() {
            expect(&mut record.headers, last_sequence + at as u64);
            let operation = match at + 1 {
                last if last == count => Operation::Commit,
                1 => Operation::Start,
                _ => Operation::Append,
            };
            let reply = format!("{prefix}.{}.{}.$FI", at + 1, operation as u8);
            let Record {
                subject,
                headers,
                payload,
                ..
            } = record;
            let client = &exchange.client;
            let sent = client
                .publish_with_reply_and_headers(subject, reply, headers.into_map(), payload)
                .await;
            sent.map_err(|e| Error::transient("publish", &e))?;
        }
        self.acknowledged(exchange, &batch, count).await
    }

    async fn acknowledged(
        &mut self,
        exchange: &Exchange,
        batch: &str,
        count: usize,
    ) -> Result<PublishAck> {
        let lost = || Error::Transient(format!("{DURING}: the subscription ended"));
        loop {
            let message = self.replies.next().await.ok_or_else(lost)?;
            if let Some(ack) = read(&message, exchange, batch, count)? {
                return Ok(ack);
            }
        }
    }
}

/// Reads one answer; `None` is a note on the way.
fn read(
    message: &Message,
    exchange: &Exchange,
    batch: &str,
    count: usize,
) -> Result<Option<PublishAck>> {
    if message.status == Some(StatusCode::NO_RESPONDERS) {
        return Err(exchange.nobody("the batch's subject"));
    }
    let unreadable = |e| Error::transient(DURING, &e);
    let kind: Kind = serde_json::from_slice(&message.payload).map_err(unreadable)?;
    if let Some(error) = &kind.error {
        return Err(exchange.refused(error));
    }
    match kind.r#type.as_deref() {
        Some("ack") => return Ok(None),
        None => {}
        Some(other) => {
            return Err(Error::Transient(format!(
                "{DURING}: the server tells of a `{other}` in the batch"
            )));
        }
    }
    let ack: PublishAck = serde_json::from_slice(&message.payload).map_err(unreadable)?;
    if ack.batch_id.as_deref() != Some(batch) || ack.batch_size != Some(count as u64) {
        // One of them did not fit: a stranger's message is in its place, or the stream has its id.
        return Err(Error::Unclear(format!(
            "{DURING}: {} of {count} messages of the batch were stored",
            ack.batch_size.unwrap_or_default()
        )));
    }
    Ok(Some(ack))
}
