//! `Content-Type` → encoding, and bytes to messages and back.

use std::str::FromStr as _;

use async_nats::HeaderMap;
use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
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
            Self::Protobuf => M::decode(payload).map_err(|why| invalid::argument("body", why)),
            Self::Json => {
                serde_json::from_slice(&payload).map_err(|why| invalid::argument("body", why))
            }
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
