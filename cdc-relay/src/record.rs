//! One outbox row as it goes to JetStream: subject, headers, payload. The payload is opaque bytes, so
//! a new event needs no new relay.

use std::borrow::Cow;

use async_nats::{HeaderValue, header::HeaderName};
use bytes::Bytes;
use mailbox::envelope::{self, Position};

use crate::{pgoutput::Malformed, subject};

mod cloud;
mod column;
mod headers;
mod layout;
mod mapping;
mod timestamp;

pub(crate) use self::column::{
    BYTEA, JSON, TEXT, TIMESTAMP, TIMESTAMPTZ, members as headers_of, tells_time,
};
use self::layout::REQUIRED;
pub use self::{
    column::Role,
    headers::Headers,
    layout::{AGGREGATE_ID, AGGREGATE_TYPE, ID, Layout, TYPE},
    mapping::Mapping,
};

/// A row, ready to be appended.
#[derive(Clone, Debug)]
pub struct Record {
    pub position: Position,
    pub subject: String,
    /// All headers but those of the append itself.
    pub headers: Headers,
    pub payload: Bytes,
    bytes: usize,
}

/// What was read of a row.
#[derive(Debug)]
pub struct Row<'a> {
    /// In the order of [`Layout::texts`].
    pub texts: &'a [Option<Cow<'a, str>>],
    pub payload: Bytes,
    /// The payload's column holds JSON.
    pub is_json: bool,
    /// The row's own headers.
    pub extra: Vec<(String, String)>,
}

/// Why a table or a row of it cannot be published.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    #[error("the table has no column `{0}`, or its publication leaves the column out")]
    NoColumn(String),
    #[error(
        "column `{column}` has a type (OID {type_oid}) that the relay cannot read: use {wanted}"
    )]
    WrongType {
        column: String,
        type_oid: u32,
        wanted: &'static str,
    },
    #[error("column `{0}` is NULL")]
    Null(String),
    #[error("column `{column}` cannot be read: {why}")]
    Unreadable { column: String, why: String },
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error(transparent)]
    Subject(#[from] subject::Invalid),
}

impl Record {
    /// Makes the message of a row.
    ///
    /// # Errors
    /// Why the row cannot be published.
    pub fn new(row: Row<'_>, position: Position, layout: &Layout) -> Result<Self, Invalid> {
        let required = |at: usize| {
            let text = row.texts.get(at).and_then(Option::as_deref);
            text.ok_or_else(|| Invalid::Null(layout.texts[at].clone()))
        };
        for at in 0..REQUIRED {
            required(at)?;
        }
        let subject = layout.subject.subject(row.texts)?;
        // What comes first stands: the relay's own, then what was configured, then the row's.
        let mut headers = Headers::new();
        for (name, at) in [
            (envelope::EVENT_ID, ID),
            (envelope::EVENT_TYPE, TYPE),
            (envelope::AGGREGATE_TYPE, AGGREGATE_TYPE),
            (envelope::AGGREGATE_ID, AGGREGATE_ID),
        ] {
            let pushed = headers.push(name, required(at)?);
            pushed.map_err(|error| unfit(&layout.texts[at], &error))?;
        }
        headers.push_own(envelope::POSITION, position);
        if let Some(cloud) = &layout.cloud {
            cloud::add(&mut headers, cloud, &row);
        }
        for (name, at) in &layout.as_headers {
            if let Some(text) = row.texts.get(*at).and_then(Option::as_deref) {
                let value = text.parse::<HeaderValue>();
                let value = value.map_err(|error| unfit(&layout.texts[*at], &error))?;
                headers.add(name, &value);
            }
        }
        for (name, value) in &row.extra {
            match own_header(name, value) {
                Some((name, value)) => headers.add(&name, &value),
                None => tracing::warn!(
                    id = required(ID)?, header = ?name,
                    "a header of an outbox row was left out: its name is reserved, or it holds what a header cannot"
                ),
            }
        }
        for (name, value) in &layout.fixed {
            headers.add(name, value);
        }
        Ok(Self::of_message(position, subject, headers, row.payload))
    }

    /// A message as it stands; `headers` are all of the relay's.
    pub fn of_message(
        position: Position,
        subject: String,
        headers: Headers,
        payload: Bytes,
    ) -> Self {
        Self {
            position,
            bytes: subject.len() + headers.wire_bytes() + payload.len(),
            subject,
            headers,
            payload,
        }
    }

    /// Marks it as the last event of its transaction.
    pub fn end_transaction(&mut self) {
        let count = u64::from(self.position.index) + 1;
        self.headers.push_own(envelope::COMMIT, count);
    }

    /// Bytes that the row takes on its way, without what the append adds: subject, headers and payload.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The event's id, for errors and logs.
    pub fn id(&self) -> &str {
        self.headers.get(envelope::EVENT_ID).unwrap_or("?")
    }
}

fn unfit(column: &str, why: &dyn std::fmt::Display) -> Invalid {
    Invalid::Unreadable {
        column: column.to_owned(),
        why: format!("it cannot stand in a header: {why}"),
    }
}

/// A header of the row's own, if it may go out.
pub(crate) fn own_header(name: &str, value: &str) -> Option<(HeaderName, HeaderValue)> {
    // The client would send an empty name, which the server cannot read.
    if name.is_empty() || is_reserved(name) {
        return None;
    }
    Some((name.parse().ok()?, value.parse().ok()?))
}

/// Whether JetStream or the relay acts on a header of this name.
pub(crate) fn is_reserved(name: &str) -> bool {
    ["Nats-", "Cdc-"].iter().any(|prefix| {
        name.get(..prefix.len())
            .is_some_and(|head| head.eq_ignore_ascii_case(prefix))
    })
}

#[cfg(test)]
mod tests;
