//! Values of the types that an outbox's columns may have, in text and in binary form.

use bytes::Bytes;
use serde_json::Value as Json;

use super::Invalid;
use crate::pgoutput::Value;

/// What a column holds, by the fixed OIDs of Postgres' built-in types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Uuid,
    BigInt,
    Bytea,
    Json,
    Jsonb,
}

const BYTEA: u32 = 17;
const INT8: u32 = 20;
const TEXT: u32 = 25;
const JSON: u32 = 114;
const BPCHAR: u32 = 1042;
const VARCHAR: u32 = 1043;
const UUID: u32 = 2950;
const JSONB: u32 = 3802;

impl Kind {
    pub(super) fn of(column: &'static str, type_oid: u32) -> Result<Self, Invalid> {
        let kind = match type_oid {
            TEXT | VARCHAR | BPCHAR => Self::Text,
            UUID => Self::Uuid,
            INT8 => Self::BigInt,
            BYTEA => Self::Bytea,
            JSON => Self::Json,
            JSONB => Self::Jsonb,
            _ => return Err(Self::wrong(column, type_oid)),
        };
        let fits = match column {
            super::PAYLOAD => !matches!(kind, Self::Uuid | Self::BigInt),
            super::HEADERS => matches!(kind, Self::Json | Self::Jsonb),
            _ => matches!(kind, Self::Text | Self::Uuid | Self::BigInt),
        };
        if fits {
            Ok(kind)
        } else {
            Err(Self::wrong(column, type_oid))
        }
    }

    fn wrong(column: &'static str, type_oid: u32) -> Invalid {
        let wanted = match column {
            super::PAYLOAD => "bytea, jsonb, json or text",
            super::HEADERS => "jsonb or json",
            _ => "text, varchar, uuid or bigint",
        };
        Invalid::WrongType {
            column,
            type_oid,
            wanted,
        }
    }
}

/// A value as text.
pub(super) fn text(column: &'static str, kind: Kind, value: Value<'_>) -> Result<String, Invalid> {
    let unreadable = |why: &str| Invalid::Unreadable {
        column,
        why: why.to_owned(),
    };
    let utf8 = |bytes: &[u8]| {
        let text = std::str::from_utf8(bytes).map_err(|_| unreadable("it is not UTF-8"))?;
        Ok(text.to_owned())
    };
    match (kind, value) {
        (Kind::Uuid, Value::Binary(bytes)) => match uuid::Uuid::from_slice(bytes) {
            Ok(id) => Ok(id.to_string()),
            Err(_) => Err(unreadable("a uuid has 16 bytes")),
        },
        (Kind::BigInt, Value::Binary(bytes)) => match bytes.try_into() {
            Ok(bytes) => Ok(i64::from_be_bytes(bytes).to_string()),
            Err(_) => Err(unreadable("a bigint has 8 bytes")),
        },
        (_, Value::Text(bytes) | Value::Binary(bytes)) => utf8(bytes),
        (_, Value::Null | Value::Unchanged) => Err(Invalid::Null(column)),
    }
}

/// A payload's bytes: bytea as it is, JSON and text as UTF-8.
pub(super) fn bytes(column: &'static str, kind: Kind, value: Value<'_>) -> Result<Bytes, Invalid> {
    let unreadable = |why: &str| Invalid::Unreadable {
        column,
        why: why.to_owned(),
    };
    match (kind, value) {
        (Kind::Bytea, Value::Text(text)) => {
            let digits = text
                .strip_prefix(b"\\x")
                .ok_or_else(|| unreadable("it is not in hex form: set bytea_output to hex"))?;
            let decoded = hex(digits).ok_or_else(|| unreadable("it is not in hex form"))?;
            Ok(decoded.into())
        }
        (Kind::Jsonb, Value::Binary(bytes)) => jsonb(column, bytes).map(Bytes::copy_from_slice),
        // Copied, so that a small payload does not pin the whole read buffer in memory.
        (_, Value::Text(bytes) | Value::Binary(bytes)) => Ok(Bytes::copy_from_slice(bytes)),
        (_, Value::Null | Value::Unchanged) => Err(Invalid::Null(column)),
    }
}

/// The members of a JSON object, values that are not strings as JSON text.
pub(super) fn object(
    column: &'static str,
    value: Value<'_>,
) -> Result<Vec<(String, String)>, Invalid> {
    let unreadable = |why: String| Invalid::Unreadable { column, why };
    let json = match value {
        // A jsonb in binary form begins with its version; JSON text never begins with 1 and a brace.
        Value::Binary(bytes @ [1, ..]) => jsonb(column, bytes)?,
        Value::Binary(bytes) | Value::Text(bytes) => bytes,
        Value::Null | Value::Unchanged => return Ok(Vec::new()),
    };
    match serde_json::from_slice(json) {
        Ok(json @ (Json::Object(_) | Json::Null)) => Ok(members(json)),
        Ok(_) => Err(unreadable("it is not a JSON object".to_owned())),
        Err(error) => Err(unreadable(error.to_string())),
    }
}

/// An object's members as headers: values that are not strings as JSON text, nulls left out.
pub(crate) fn members(json: Json) -> Vec<(String, String)> {
    let Json::Object(members) = json else {
        return Vec::new();
    };
    let text = |(name, value)| match value {
        Json::Null => None,
        Json::String(text) => Some((name, text)),
        other => Some((name, other.to_string())),
    };
    members.into_iter().filter_map(text).collect()
}

fn jsonb<'a>(column: &'static str, bytes: &'a [u8]) -> Result<&'a [u8], Invalid> {
    bytes.strip_prefix(&[1]).ok_or_else(|| Invalid::Unreadable {
        column,
        why: "it is a jsonb of a version that is not known".to_owned(),
    })
}

fn hex(digits: &[u8]) -> Option<Vec<u8>> {
    let (pairs, []) = digits.as_chunks::<2>() else {
        return None;
    };
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let byte = |[high, low]: &[u8; 2]| u8::try_from(digit(*high)? * 16 + digit(*low)?).ok();
    pairs.iter().map(byte).collect()
}
