//! What people ask of a quarantine: to release an item, to discard it, to publish it otherwise.
//!
//! Nobody but the active relay writes to the stream. So a request is a message beside the item, and the
//! relay does what it asks for, or writes into it why it cannot.

use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

use async_nats::{HeaderMap, header::NATS_ROLLUP};
use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{item::Decision, key::Place, store::Store};
use crate::error::{Error, Result};

/// The header of a request, and that of a fix.
const REQUEST: &str = "Quarantine-Request";
const FIX: &str = "Quarantine-Fix";

/// What to do with an item that blocks its aggregate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    Release,
    Discard {
        /// What waits behind it, up to the next offender, goes as well.
        with_held: bool,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    pub action: Action,
    #[serde(flatten)]
    pub decision: Decision,
    /// Why the relay could not do it.
    #[serde(default)]
    pub refused: Option<String>,
}

impl Decision {
    pub fn now(by: &str, why: &str) -> Self {
        Self {
            by: by.to_owned(),
            why: why.to_owned(),
            at_ms: now_ms(),
        }
    }
}

impl Request {
    /// A place for the relay to write down that what was held has become an offender.
    pub(super) fn by_the_relay() -> Self {
        Self {
            action: Action::Release,
            decision: Decision::now("cdc-relay", ""),
            refused: None,
        }
    }
}

/// What takes the place of an item's own values when it is released.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fix {
    pub subject: Option<String>,
    pub event_type: Option<String>,
    /// By name; `None` leaves the header out.
    #[serde(default)]
    pub headers: BTreeMap<String, Option<String>>,
    /// By column; `None` is NULL.
    #[serde(default)]
    pub columns: BTreeMap<String, Option<String>>,
    /// The bytes come in the message's own payload.
    #[serde(default)]
    pub has_payload: bool,
    /// The payload is too large for one message: in so many pieces, under this name.
    #[serde(default)]
    pub parts: usize,
    #[serde(default)]
    pub upload: String,
    #[serde(default)]
    pub decision: Decision,
    #[serde(skip)]
    pub payload: Bytes,
}

/// Milliseconds since 1970.
pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |time| {
        u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
    })
}

impl Store {
    /// Writes down what is asked for, in the place of what was asked for before.
    pub async fn ask(&self, place: &Place, request: &Request) -> Result<()> {
        let mut headers = HeaderMap::new();
        headers.insert(REQUEST, pack(request));
        self.replace(self.subjects().request(place), headers)
            .await?;
        Ok(())
    }

    /// What is asked for about an item.
    pub async fn request(&self, place: &Place) -> Result<Option<Request>> {
        let message = self.last(&self.subjects().request(place)).await?;
        Ok(message.and_then(|message| read_request(&message.headers)))
    }

    /// Writes down how an item is to be published, in the place of an earlier fix.
    pub async fn mend(&self, place: &Place, mut fix: Fix) -> Result<()> {
        let payload = fix.payload.clone();
        let (parts, inline) = self.store_parts(place, &payload, false).await?;
        (fix.parts, fix.upload) = parts;
        let mut headers = HeaderMap::new();
        headers.insert(FIX, pack(&fix));
        headers.insert(NATS_ROLLUP, "sub");
        let subject = self.subjects().fix(place);
        self.send(subject, headers, inline, false).await?;
        Ok(())
    }

    /// How an item is to be published, if somebody has said so.
    pub async fn fix(&self, place: &Place) -> Result<Option<Fix>> {
        let Some(message) = self.last(&self.subjects().fix(place)).await? else {
            return Ok(None);
        };
        let header = message.headers.get(FIX);
        let fix = header.and_then(|header| unpack::<Fix>(header.as_str()));
        let Some(mut fix) = fix else {
            return Err(Error::Definite(format!(
                "message {} of stream {} is no fix: delete it, or fix the item again",
                message.sequence,
                self.name()
            )));
        };
        let parts = (fix.parts, fix.upload.as_str());
        fix.payload = self.whole(place, parts, message.payload).await?;
        Ok(Some(fix))
    }
}

pub(super) fn read_request(headers: &HeaderMap) -> Option<Request> {
    unpack(headers.get(REQUEST)?.as_str())
}

/// One line: JSON writes a line break as an escape.
fn pack(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn unpack<T: DeserializeOwned>(text: &str) -> Option<T> {
    serde_json::from_str(text).ok()
}
