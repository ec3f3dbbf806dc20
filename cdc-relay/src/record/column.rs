//! Values of the types that an outbox's columns may have, in text and in binary form.

use std::borrow::Cow;

use bytes::Bytes;
use serde_json::Value as Json;

use super::{Invalid, timestamp};
use crate::pgoutput::Value;

/// What a column holds, by the fixed OIDs of Postgres' built-in types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Uuid,
    /// A signed number of 2, 4 or 8 bytes.
    Int,
    Bool,
    Timestamp,
    Bytea,
    Json,
    Jsonb,
}

/// What a column is read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Text,
    Payload,
    Headers,
}

const BOOL: u32 = 16;
pub(crate) const BYTEA: u32 = 17;
const NAME: u32 = 19;
const INT8: u32 = 20;
const INT2: u32 = 21;
const INT4: u32 = 23;
pub(crate) const TEXT: u32 = 25;
pub(crate) const JSON: u32 = 114;
const BPCHAR: u32 = 1042;
const VARCHAR: u32 = 1043;
pub(crate) const TIMESTAMP: u32 = 1114;
pub(crate) const TIMESTAMPTZ: u32 = 1184;
const UUID: u32 = 2950;
const JSONB: u32 = 3802;

/// Whether ids of this type can be UUIDv7, which tell their time.
pub(crate) fn tells_time(type_oid: u32) -> bool {
    matches!(type_oid, UUID | TEXT | VARCHAR | BPCHAR)
}

impl Kind {
    pub(super) fn of(column: &str, role: Role, type_oid: u32) -> Result<Self, Invalid> {
        let kind = match type_oid {
            TEXT | VARCHAR | BPCHAR | NAME => Some(Self::Text),
            UUID => Some(Self::Uuid),
            INT2 | INT4 | INT8 => Some(Self::Int),
            BOOL => Some(Self::Bool),
            TIMESTAMP | TIMESTAMPTZ => Some(Self::Timestamp),
            BYTEA => Some(Self::Bytea),
            JSON => Some(Self::Json),
            JSONB => Some(Self::Jsonb),
            _ => None,
        };
        let fits = |kind: &Self| match role {
            Role::Text => !matches!(kind, Self::Bytea | Self::Json | Self::Jsonb),
            Role::Payload => matches!(kind, Self::Text | Self::Bytea | Self::Json | Self::Jsonb),
            Role::Headers => kind.is_json(),
        };
        kind.filter(fits).ok_or_else(|| Invalid::WrongType {
            column: column.to_owned(),
            type_oid,
            wanted: role.wanted(),
        })
    }

    pub(super) fn is_json(self) -> bool {
        matches!(self, Self::Json | Self::Jsonb)
    }
}

impl Role {
    /// The types that serve.
    pub fn wanted(self) -> &'static str {
        match self {
            Self::Text => {
                "text, varchar, uuid, bigint, integer, an enum, or a domain over one of these"
            }
            Self::Payload => "bytea, jsonb, json or text",
            Self::Headers => "jsonb or json",
        }
    }

    /// Whether a column of this type, by its OID, can be read.
    pub fn takes(self, type_oid: u32) -> bool {
        Kind::of("", self, type_oid).is_ok()
    }
}

/// A value as text; `None` for NULL.
pub(super) fn text<'a>(
    column: &str,
    kind: Kind,
    value: Value<'a>,
) -> Result<Option<Cow<'a, str>>, Invalid> {
    let unreadable = |why: &str| unreadable(column, why);
    let binary = match value {
        Value::Null | Value::Unchanged => return Ok(None),
        Value::Text(bytes) => return utf8(column, bytes),
        Value::Binary(bytes) => bytes,
    };
    let text = match kind {
        Kind::Uuid => match uuid::Uuid::from_slice(binary) {
            Ok(id) => id.to_string(),
            Err(_) => return Err(unreadable("a uuid has 16 bytes")),
        },
        Kind::Int => match *binary {
            [a, b] => i16::from_be_bytes([a, b]).to_string(),
            [a, b, c, d] => i32::from_be_bytes([a, b, c, d]).to_string(),
            [a, b, c, d, e, f, g, h] => i64::from_be_bytes([a, b, c, d, e, f, g, h]).to_string(),
            _ => return Err(unreadable("a number has 2, 4 or 8 bytes")),
        },
        Kind::Bool => (binary != [0]).to_string(),
        Kind::Timestamp => match binary.try_into() {
            Ok(bytes) => timestamp::rfc3339(i64::from_be_bytes(bytes))
                .ok_or_else(|| unreadable("it is infinite, or beyond the year 9999"))?,
            Err(_) => return Err(unreadable("a timestamp has 8 bytes")),
        },
        Kind::Text | Kind::Bytea | Kind::Json | Kind::Jsonb => return utf8(column, binary),
    };
    Ok(Some(text.into()))
}

fn utf8<'a>(column: &str, bytes: &'a [u8]) -> Result<Option<Cow<'a, str>>, Invalid> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(Some(text.into())),
        Err(_) => Err(unreadable(column, "it is not UTF-8")),
    }
}

fn unreadable(column: &str, why: &str) -> Invalid {
    Invalid::Unreadable {
        column: column.to_owned(),
        why: why.to_owned(),
    }
}

/// A payload's bytes: bytea as it is, JSON and text as UTF-8.
pub(super) fn bytes(column: &str, kind: Kind, value: Value<'_>) -> Result<Bytes, Invalid> {
    let unreadable = |why: &str| unreadable(column, why);
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
        (_, Value::Null | Value::Unchanged) => Err(Invalid::Null(column.to_owned())),
    }
}

/// The members of a JSON object, values that are not strings as JSON text.
pub(super) fn object(column: &str, value: Value<'_>) -> Result<Vec<(String, String)>, Invalid> {
    let json = match value {
        // A jsonb in binary form begins with its version; JSON text never begins with 1 and a brace.
        Value::Binary(bytes @ [1, ..]) => jsonb(column, bytes)?,
        Value::Binary(bytes) | Value::Text(bytes) => bytes,
        Value::Null | Value::Unchanged => return Ok(Vec::new()),
    };
    match serde_json::from_slice(json) {
        Ok(json @ (Json::Object(_) | Json::Null)) => Ok(members(json)),
        Ok(_) => Err(unreadable(column, "it is not a JSON object")),
        Err(error) => Err(unreadable(column, &error.to_string())),
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

fn jsonb<'a>(column: &str, bytes: &'a [u8]) -> Result<&'a [u8], Invalid> {
    bytes
        .strip_prefix(&[1])
        .ok_or_else(|| unreadable(column, "it is a jsonb of a version that is not known"))
}

fn hex(digits: &[u8]) -> Option<Vec<u8>> {
    let (pairs, []) = digits.as_chunks::<2>() else {
        return None;
    };
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let byte = |[high, low]: &[u8; 2]| u8::try_from(digit(*high)? * 16 + digit(*low)?).ok();
    pairs.iter().map(byte).collect()
}
