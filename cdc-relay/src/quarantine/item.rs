//! One row that stands in quarantine: what is known of it, and its bytes.
//!
//! What is known goes as JSON in one header, so that a look at all items needs no payload, and so that
//! a line break in an id cannot break anything. The bytes go as they came: a row that offends as
//! pgoutput's own messages, a row that is merely held as the message that it would have been.

use async_nats::HeaderMap;
use bytes::Bytes;
use mailbox::envelope::Position;
use serde::{Deserialize, Serialize};

use super::key::{Bucket, Key, Place};
use crate::record::Headers;

/// The header that holds a [`Meta`].
pub(super) const META: &str = "Quarantine-Item";

/// Bytes of a reason that are kept: errors may quote their input.
const REASON_MAX: usize = 1024;

/// Bytes of an id, a type or an aggregate that are kept. What is longer is in the row itself.
const NAME_MAX: usize = 512;

/// Where an item stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It waits.
    Open,
    /// It stands in the stream.
    Released,
    /// It never will.
    Discarded,
}

/// Why it is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It cannot be published, and somebody has to decide.
    Offender,
    /// It waits behind an offender of its aggregate, and goes by itself after it.
    Held,
}

/// The form of an item's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// A table's description and a row of it.
    Row,
    /// Subject, headers and payload.
    Message,
}

/// The columns that tell what a row is about, as far as they can be read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    pub id: Option<String>,
    pub aggregate_type: Option<String>,
    pub aggregate_id: Option<String>,
    pub event_type: Option<String>,
}

impl Names {
    /// The queue that the row stands in.
    pub fn bucket(&self) -> Bucket {
        match (&self.aggregate_type, &self.aggregate_id) {
            (Some(kind), Some(id)) => Bucket::of(kind, id),
            _ => Bucket::ALONE,
        }
    }

    /// What a header of bounded size can hold of them. An id is whole or absent: it is compared.
    fn bounded(self) -> Self {
        let cut = |text: String| text[..text.floor_char_boundary(NAME_MAX)].to_owned();
        Self {
            id: self.id.filter(|id| id.len() <= NAME_MAX),
            aggregate_type: self.aggregate_type.map(cut),
            aggregate_id: self.aggregate_id.map(cut),
            event_type: self.event_type.map(cut),
        }
    }
}

/// What somebody decided, or what became of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Who asked for it.
    pub by: String,
    pub why: String,
    /// Milliseconds since 1970.
    pub at_ms: u64,
}

/// What is known of an item without its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    pub state: State,
    pub role: Role,
    pub reason: String,
    #[serde(with = "text")]
    pub position: Position,
    #[serde(flatten)]
    pub names: Names,
    pub table: String,
    pub stored_at_ms: u64,
    pub form: Form,
    /// Of the bytes, in all their parts.
    pub bytes: usize,
    /// Stands alone in its message, if there are none.
    pub parts: usize,
    /// Names the attempt that stored the parts.
    pub upload: String,
    /// The stream's last sequence when the item was stored.
    pub sequence: u64,
    /// The row up to which all was done before the batch that this item is of: `{position} {id}`.
    pub after: Option<String>,
    /// The mark of the stream's history that it was stored in.
    pub origin: u64,
    /// Nothing had been appended in the session that stored it: a relay before it may not have been
    /// shut out yet, and may have published the row.
    pub in_doubt: bool,
    /// The decision that closed it.
    pub decision: Option<Decision>,
    /// Where it stands in the stream, once it is released.
    pub released: Option<u64>,
}

impl Meta {
    /// The header's text.
    pub fn to_header(&self) -> String {
        // A struct of texts and numbers always has a JSON form.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads it from an item's headers.
    pub fn read(headers: &HeaderMap) -> Option<Self> {
        serde_json::from_str(headers.get(META)?.as_str()).ok()
    }

    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }
}

/// An item on its way into quarantine.
#[derive(Clone, Debug)]
pub struct Item {
    pub place: Place,
    pub role: Role,
    pub reason: String,
    pub position: Position,
    pub names: Names,
    pub form: Form,
    pub body: Bytes,
}

impl Item {
    /// `form` and `body` are of the row at `position`.
    pub fn new(
        role: Role,
        reason: &str,
        position: Position,
        names: Names,
        (form, body): (Form, Bytes),
    ) -> Self {
        let place = Place {
            bucket: names.bucket(),
            key: Key::of(position, names.id.as_deref()),
        };
        Self {
            place,
            role,
            reason: reason[..reason.floor_char_boundary(REASON_MAX)].to_owned(),
            position,
            names: names.bounded(),
            form,
            body,
        }
    }

    /// A row that cannot be published.
    pub fn offender(why: &str, position: Position, names: Names, row: Bytes) -> Self {
        Self::new(Role::Offender, why, position, names, (Form::Row, row))
    }

    /// Bytes that it takes while it waits.
    pub fn bytes(&self) -> usize {
        self.body.len() + self.reason.len()
    }
}

/// A message that would have been published, as bytes.
pub(super) fn encode_message(subject: &str, headers: &Headers, payload: &[u8]) -> Bytes {
    let pairs: Vec<(&str, &str)> = headers.iter().collect();
    let head = serde_json::to_vec(&(subject, pairs)).unwrap_or_default();
    join(&head, payload)
}

/// Reads it again: subject, headers, payload.
pub fn decode_message(body: &Bytes) -> Option<(String, Headers, Bytes)> {
    let (head, payload) = split(body)?;
    let (subject, pairs): (String, Vec<(String, String)>) = serde_json::from_slice(&head).ok()?;
    let mut headers = Headers::new();
    for (name, value) in pairs {
        headers.add(&name.parse().ok()?, &value.parse().ok()?);
    }
    Some((subject, headers, payload))
}

/// Two byte strings as one: the first one's length stands before it.
pub(super) fn join(first: &[u8], second: &[u8]) -> Bytes {
    let mut bytes = Vec::with_capacity(8 + first.len() + second.len());
    bytes.extend((first.len() as u64).to_be_bytes());
    bytes.extend(first);
    bytes.extend(second);
    bytes.into()
}

pub(super) fn split(bytes: &Bytes) -> Option<(Bytes, Bytes)> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    let length = usize::try_from(u64::from_be_bytes(*length)).ok()?;
    (length <= rest.len()).then(|| (bytes.slice(8..8 + length), bytes.slice(8 + length..)))
}

mod text {
    //! A position as its one text.

    use mailbox::envelope::Position;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(position: &Position, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(position)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Position, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_comes_back_byte_for_byte() {
        let mut headers = Headers::new();
        headers.push("Nats-Msg-Id", "ä\t\"1\"").unwrap();
        headers.push("tenant", "a: b").unwrap();
        let payload: Vec<u8> = (0..=255).collect();
        let body = encode_message("events.Made", &headers, &payload);
        let (subject, read, bytes) = decode_message(&body).unwrap();
        assert_eq!((subject.as_str(), &read), ("events.Made", &headers));
        assert_eq!(bytes, payload);
        for end in 0..8 {
            assert!(decode_message(&body.slice(..end)).is_none());
        }
    }

    #[test]
    fn what_an_id_holds_cannot_break_the_header() {
        let position: Position = "7/1/00000000016B3748/3".parse().unwrap();
        let names = Names {
            id: Some("a\r\nNats-Rollup: all".to_owned()),
            aggregate_id: Some("ä".repeat(NAME_MAX)),
            ..Names::default()
        };
        let item = Item::new(
            Role::Offender,
            &"é".repeat(REASON_MAX),
            position,
            names,
            (Form::Row, Bytes::new()),
        );
        let meta = Meta {
            state: State::Open,
            role: item.role,
            reason: item.reason.clone(),
            position,
            names: item.names.clone(),
            table: "public.outbox".to_owned(),
            stored_at_ms: 1,
            form: item.form,
            bytes: 0,
            parts: 0,
            upload: String::new(),
            sequence: 5,
            after: None,
            origin: 0,
            in_doubt: false,
            decision: None,
            released: None,
        };
        let text = meta.to_header();
        assert!(!text.contains(['\r', '\n']) && text.len() < 4096, "{text}");
        let mut headers = HeaderMap::new();
        headers.insert(META, text);
        assert_eq!(Meta::read(&headers), Some(meta));
        assert!(item.place.bucket.is_alone());
    }
}
