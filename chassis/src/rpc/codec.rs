//! `Content-Type` → encoding, and bytes to messages and back.

use std::str::FromStr as _;

use async_nats::HeaderMap;
use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use serde_path_to_error::Segment;
use tonic::{
    Status,
    metadata::{AsciiMetadataKey, MetadataMap},
};

use crate::invalid;

pub(super) const CONTENT_TYPE: &str = "Content-Type";
pub(super) const CONTENT_TYPES: &str = "application/protobuf, application/json";

/// How a request's body is encoded, and its reply's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Codec {
    Protobuf,
    Json,
}

impl Codec {
    /// Without `Content-Type` it is protobuf. `Err` repeats a type that is not known.
    pub(super) fn of(headers: Option<&HeaderMap>) -> Result<Self, String> {
        // Header names are case-sensitive in NATS; clients write this one as HTTP has it or small.
        let given = headers.and_then(|headers| {
            headers
                .iter()
                .find(|(name, _)| AsRef::<str>::as_ref(*name).eq_ignore_ascii_case(CONTENT_TYPE))
                .and_then(|(_, values)| values.first())
        });
        let Some(given) = given else {
            return Ok(Self::Protobuf);
        };
        let essence = given.as_str().split(';').next().unwrap_or_default().trim();
        if essence.eq_ignore_ascii_case(Self::Json.content_type()) {
            Ok(Self::Json)
        } else if essence.eq_ignore_ascii_case(Self::Protobuf.content_type()) {
            Ok(Self::Protobuf)
        } else {
            Err(essence.to_owned())
        }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Protobuf => "application/protobuf",
            Self::Json => "application/json",
        }
    }

    pub(super) fn decode<M>(self, payload: Bytes) -> Result<M, Status>
    where
        M: prost::Message + Default + DeserializeOwned,
    {
        match self {
            Self::Protobuf => M::decode(payload.clone()).map_err(|why| {
                if payload.starts_with(b"{") {
                    let why =
                        format!("{why}; if this is JSON, send {CONTENT_TYPE}: application/json");
                    return invalid::argument("body", why);
                }
                invalid::argument("body", why)
            }),
            Self::Json => json(&payload),
        }
    }

    pub(super) fn encode<M: prost::Message + Serialize>(self, reply: &M) -> Result<Bytes, Status> {
        match self {
            Self::Protobuf => Ok(reply.encode_to_vec().into()),
            Self::Json => match serde_json::to_vec(reply) {
                Ok(bytes) => Ok(bytes.into()),
                Err(why) => Err(Status::internal(format!(
                    "the reply does not encode: {why}"
                ))),
            },
        }
    }
}

/// What pbjson and the standard library say of a number that does not fit its field.
const NO_INTEGER: [&str; 5] = [
    "data did not match any variant of untagged enum Content",
    "invalid digit found in string",
    "cannot parse integer from empty string",
    "number too large to fit in target type",
    "number too small to fit in target type",
];

fn json<M: DeserializeOwned>(payload: &[u8]) -> Result<M, Status> {
    let mut json = serde_json::Deserializer::from_slice(payload);
    let message = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let (path, why) = (error.path().to_string(), error.inner());
        if path == "." || !why.is_data() {
            return invalid::argument("body", why);
        }
        let text = why.to_string();
        if NO_INTEGER.iter().any(|told| text.starts_with(told)) {
            let bits = if is_integer(payload, error.path()) {
                32
            } else {
                64
            };
            return invalid::argument(&path, format!("must be an integer that fits {bits} bits"));
        }
        invalid::argument(&path, why)
    })?;
    json.end().map_err(|why| invalid::argument("body", why))?;
    Ok(message)
}

/// Whether an integer of 64 bits stands there, which then must have been too large for 32.
fn is_integer(payload: &[u8], path: &serde_path_to_error::Path) -> bool {
    let Ok(body) = serde_json::from_slice::<Value>(payload) else {
        return false;
    };
    let found = path.iter().try_fold(&body, |value, segment| match segment {
        Segment::Map { key } => value.get(key),
        Segment::Seq { index } => value.get(index),
        _ => None,
    });
    match found {
        Some(Value::String(text)) => text.parse::<i64>().is_ok(),
        Some(value) => value.is_i64(),
        None => false,
    }
}

/// The headers as gRPC metadata; those that are not valid there are left out.
pub(super) fn metadata(headers: &HeaderMap) -> MetadataMap {
    let mut metadata = MetadataMap::new();
    for (name, values) in headers.iter() {
        let Ok(key) = AsciiMetadataKey::from_str(&AsRef::<str>::as_ref(name).to_ascii_lowercase())
        else {
            continue;
        };
        for value in values {
            if let Ok(value) = value.as_str().parse() {
                metadata.append(key.clone(), value);
            }
        }
    }
    metadata
}
