//! The quarantine stream: one message an item, its pieces beside it where it is too large for one.
//!
//! ```text
//! part … part ──▶ item: open ──▶ item: released or discarded      (the same subject, replaced)
//! ```
//!
//! An item is there once its own message is; pieces alone are nothing. Whoever stores states whose
//! session it is (`Nats-Expected-Last-Subject-Sequence` of the session's subject), so a relay that was
//! paused while its successor took over stores nothing here either. People's requests and fixes stand
//! on subjects of their own, and need no such leave.

use std::time::Duration;

use async_nats::{
    Client, HeaderMap, Request, RequestErrorKind,
    header::{NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_EXPECTED_STREAM, NATS_ROLLUP},
    jetstream::{
        ErrorCode,
        message::StreamMessage,
        publish::PublishAck,
        response::Response,
        stream::{LastRawMessageErrorKind, RawMessageErrorKind, Stream},
    },
};
use bytes::Bytes;
use uuid::Uuid;

use super::{
    item::{META, Meta},
    key::{Bucket, Place, Subjects},
};
use crate::error::{Error, Result};

/// Which subject the expected sequence is of, where it is not the message's own.
const EXPECTED_SUBJECT: &str = "Nats-Expected-Last-Subject-Sequence-Subject";

/// How long JetStream may take to answer.
const ACK_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of a piece at most: a read takes it into one message, and base64 makes it a third larger.
const PART_MAX: usize = 512 * 1024;

/// Room in a message for the headers beside a piece.
const HEADERS_MAX: usize = 8 * 1024;

/// The stream that rows are set aside in.
#[derive(Clone, Debug)]
pub struct Store {
    client: Client,
    stream: Stream,
    name: String,
    subjects: Subjects,
    /// Sequence of this relay's session mark; 0 for people's tools, which store no items.
    session: u64,
}

impl Store {
    pub(super) fn new(client: Client, stream: Stream, name: &str, subjects: Subjects) -> Self {
        Self {
            client,
            stream,
            name: name.to_owned(),
            subjects,
            session: 0,
        }
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn subjects(&self) -> &Subjects {
        &self.subjects
    }

    pub(super) fn stream(&self) -> &Stream {
        &self.stream
    }

    /// From now on, what other relays would store is refused.
    pub async fn claim(&mut self) -> Result<u64> {
        let subject = self.subjects.session();
        self.session = self.replace(subject, HeaderMap::new()).await?;
        Ok(self.session)
    }

    /// Items that are stored from now on are of another history of the database.
    pub async fn mark_origin(&self) -> Result<u64> {
        let mut headers = HeaderMap::new();
        headers.insert(NATS_ROLLUP, "sub");
        self.send(self.subjects.origin(), headers, Bytes::new(), true)
            .await
    }

    /// Stores an item whose bytes are `body`.
    ///
    /// # Errors
    /// Of any kind: it may stand there nevertheless. Drop the session, and read again.
    pub async fn put(&self, place: &Place, meta: &mut Meta, body: &Bytes) -> Result<u64> {
        meta.bytes = body.len();
        let (parts, inline) = self.store_parts(place, body, true).await?;
        (meta.parts, meta.upload) = parts;
        let mut headers = HeaderMap::new();
        headers.insert(META, meta.to_header());
        let subject = self.subjects.item(place);
        self.send(subject, headers, inline, true).await
    }

    /// Puts what became of an item in its place, and drops its bytes.
    pub async fn close(&self, place: &Place, meta: &Meta) -> Result<()> {
        let closed = Meta {
            parts: 0,
            upload: String::new(),
            ..meta.clone()
        };
        let mut headers = HeaderMap::new();
        headers.insert(META, closed.to_header());
        headers.insert(NATS_ROLLUP, "sub");
        let subject = self.subjects.item(place);
        self.send(subject, headers, Bytes::new(), true).await?;
        if meta.parts > 0 || meta.decision.is_some() {
            self.tidy(place).await;
        }
        Ok(())
    }

    /// Drops what belonged to a closed item. It is rubbish, and harmless: a failure is only noted.
    async fn tidy(&self, place: &Place) {
        let subjects = &self.subjects;
        for filter in [
            subjects.request(place),
            subjects.fix(place),
            subjects.parts_of(place),
        ] {
            if let Err(error) = self.stream.purge().filter(filter.as_str()).await {
                tracing::debug!(filter, %error, "left in the quarantine stream");
            }
        }
    }

    /// The bytes of an item, from its message and its parts.
    pub async fn body(&self, place: &Place, meta: &Meta, inline: Bytes) -> Result<Bytes> {
        let parts = (meta.parts, meta.upload.as_str());
        self.whole(place, parts, inline).await
    }

    pub(super) async fn whole(
        &self,
        place: &Place,
        (parts, upload): (usize, &str),
        inline: Bytes,
    ) -> Result<Bytes> {
        if parts == 0 {
            return Ok(inline);
        }
        let mut whole = Vec::new();
        for at in 0..parts {
            let subject = self.subjects.part(place, upload, at);
            let part = self.last(&subject).await?.ok_or_else(|| {
                Error::Definite(format!(
                    "piece {at} of quarantined item {} is gone from stream {}: fix or discard the item",
                    place.key.short(),
                    self.name
                ))
            })?;
            whole.extend(&part.payload);
        }
        Ok(whole.into())
    }

    /// Stores what is too large for one message in parts: how many, and under which name; and what
    /// goes inline.
    pub(super) async fn store_parts(
        &self,
        place: &Place,
        body: &Bytes,
        fenced: bool,
    ) -> Result<((usize, String), Bytes)> {
        let room = self.client.max_payload().saturating_sub(HEADERS_MAX);
        let part_max = PART_MAX.min(room.max(1));
        if body.len() <= part_max {
            return Ok(((0, String::new()), body.clone()));
        }
        let upload = Uuid::now_v7().simple().to_string();
        let parts = body.len().div_ceil(part_max);
        for at in 0..parts {
            let end = body.len().min((at + 1) * part_max);
            let subject = self.subjects.part(place, &upload, at);
            let part = body.slice(at * part_max..end);
            self.send(subject, HeaderMap::new(), part, fenced).await?;
        }
        Ok(((parts, upload), Bytes::new()))
    }

    /// The newest message on a subject, from the leader.
    pub(super) async fn last(&self, subject: &str) -> Result<Option<StreamMessage>> {
        match self.stream.get_last_raw_message_by_subject(subject).await {
            Ok(message) => Ok(Some(message)),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(Error::transient("read the quarantine", &error)),
        }
    }

    /// The first message at or behind `sequence` that the filter takes, from the leader.
    pub(super) async fn next(&self, filter: &str, sequence: u64) -> Result<Option<StreamMessage>> {
        let found = self
            .stream
            .get_first_raw_message_by_subject(filter, sequence);
        match found.await {
            Ok(message) => Ok(Some(message)),
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(Error::transient("read the quarantine", &error)),
        }
    }

    /// An item by its place.
    pub async fn item(&self, place: &Place) -> Result<Option<(Meta, StreamMessage)>> {
        let message = self.last(&self.subjects.item(place)).await?;
        message.map(|message| self.meta(message)).transpose()
    }

    /// The next item of a bucket, in the order in which they were stored.
    pub async fn next_of(
        &self,
        bucket: Bucket,
        sequence: u64,
    ) -> Result<Option<(Meta, StreamMessage)>> {
        let message = self.next(&self.subjects.items_of(bucket), sequence).await?;
        message.map(|message| self.meta(message)).transpose()
    }

    fn meta(&self, message: StreamMessage) -> Result<(Meta, StreamMessage)> {
        match Meta::read(&message.headers) {
            Some(meta) => Ok((meta, message)),
            None => Err(Error::Definite(format!(
                "message {} of stream {} is no item of a quarantine: somebody else writes to that stream. \
                 Delete the message",
                message.sequence, self.name
            ))),
        }
    }

    /// Stores a message in the place of the one on its subject; from anybody.
    pub(super) async fn replace(&self, subject: String, mut headers: HeaderMap) -> Result<u64> {
        headers.insert(NATS_ROLLUP, "sub");
        self.send(subject, headers, Bytes::new(), false).await
    }

    pub(super) async fn send(
        &self,
        subject: String,
        mut headers: HeaderMap,
        payload: Bytes,
        fenced: bool,
    ) -> Result<u64> {
        headers.insert(NATS_EXPECTED_STREAM, self.name.as_str());
        if fenced {
            headers.insert(
                NATS_EXPECTED_LAST_SUBJECT_SEQUENCE,
                self.session.to_string(),
            );
            headers.insert(EXPECTED_SUBJECT, self.subjects.session());
        }
        let during = "store in quarantine";
        let request = Request::new()
            .headers(headers)
            .payload(payload)
            .timeout(Some(ACK_TIMEOUT));
        let reply = self.client.send_request(subject, request).await;
        let reply = reply.map_err(|error| match error.kind() {
            RequestErrorKind::NoResponders => Error::Transient(format!(
                "{during}: JetStream is not ready, or stream {} was deleted",
                self.name
            )),
            _ => Error::transient(during, &error),
        })?;
        match serde_json::from_slice::<Response<PublishAck>>(&reply.payload) {
            Ok(Response::Ok(ack)) => Ok(ack.sequence),
            Ok(Response::Err { error }) => Err(self.refused(&error)),
            Err(error) => Err(Error::transient(during, &error)),
        }
    }

    fn refused(&self, error: &async_nats::jetstream::Error) -> Error {
        let name = &self.name;
        match error.error_code() {
            ErrorCode::STREAM_WRONG_LAST_SEQUENCE => Error::Transient(format!(
                "store in quarantine: another relay has taken over stream {name}"
            )),
            ErrorCode::STREAM_STORE_FAILED
            | ErrorCode::INSUFFICIENT_RESOURCES
            | ErrorCode::STORAGE_RESOURCES_EXCEEDED
            | ErrorCode::ACCOUNT_RESOURCES_EXCEEDED
            | ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM => Error::Definite(format!(
                "stream {name} cannot take a row that has to be set aside: {error}. Raise its limits, or \
                 those of its account; nothing is lost: the slot keeps the WAL meanwhile"
            )),
            _ => Error::Transient(format!(
                "store in quarantine: stream {name} refused: {error}"
            )),
        }
    }
}
