//! One outbox row as it goes to JetStream: subject, headers, payload. The payload is opaque bytes, so
//! a new event needs no new relay.

use async_nats::{HeaderMap, HeaderValue, header::HeaderName};
use bytes::Bytes;
use mailbox::envelope::{self, Position};

use crate::{
    pgoutput::{Malformed, Relation, Tuple, Value},
    subject::{self, Template},
};

mod column;

pub(crate) use column::members as headers_of;
use column::{Kind, text};

/// A row, ready to be appended.
#[derive(Clone, Debug)]
pub struct Record {
    pub position: Position,
    pub subject: String,
    /// All headers but those of the append itself.
    pub headers: HeaderMap,
    pub payload: Bytes,
    bytes: usize,
}

/// The columns that subjects and headers are made of.
#[derive(Clone, Copy, Debug)]
pub struct Columns<'a> {
    pub id: &'a str,
    pub aggregate_type: &'a str,
    pub aggregate_id: &'a str,
    pub event_type: &'a str,
}

/// Why a table or a row of it cannot be published.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    #[error("the table has no column `{0}`")]
    NoColumn(&'static str),
    #[error(
        "column `{column}` has a type (OID {type_oid}) that the relay cannot read: use {wanted}"
    )]
    WrongType {
        column: &'static str,
        type_oid: u32,
        wanted: &'static str,
    },
    #[error("column `{0}` is NULL")]
    Null(&'static str),
    #[error("column `{column}` cannot be read: {why}")]
    Unreadable { column: &'static str, why: String },
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error(transparent)]
    Subject(#[from] subject::Invalid),
}

const ID: &str = "id";
const AGGREGATE_TYPE: &str = "aggregatetype";
const AGGREGATE_ID: &str = "aggregateid";
const TYPE: &str = "type";
const PAYLOAD: &str = "payload";
const HEADERS: &str = "headers";

/// In the order of [`Mapping::required`].
const REQUIRED: [&str; 5] = [ID, AGGREGATE_TYPE, AGGREGATE_ID, TYPE, PAYLOAD];

/// Which column of the table is which, from the table's `Relation` message.
#[derive(Debug)]
pub struct Mapping {
    /// Index and kind of `id`, `aggregatetype`, `aggregateid`, `type`, `payload`.
    required: [(usize, Kind); 5],
    headers: Option<usize>,
}

impl Mapping {
    /// Finds the outbox's columns by their names.
    ///
    /// # Errors
    /// [`Invalid::NoColumn`] or [`Invalid::WrongType`] when the table is not an outbox.
    pub fn of(relation: &Relation<'_>) -> Result<Self, Invalid> {
        let find = |name: &str| {
            relation
                .columns
                .iter()
                .position(|column| column.name == name)
        };
        let mut required = [(0, Kind::Text); 5];
        for (slot, name) in required.iter_mut().zip(REQUIRED) {
            let at = find(name).ok_or(Invalid::NoColumn(name))?;
            *slot = (at, Kind::of(name, relation.columns[at].type_oid)?);
        }
        let headers = find(HEADERS);
        if let Some(at) = headers {
            Kind::of(HEADERS, relation.columns[at].type_oid)?;
        }
        Ok(Self { required, headers })
    }

    /// A row's id, if it can be read: for errors, and to tell rows apart.
    pub fn id(&self, tuple: &Tuple<'_>) -> Option<String> {
        let (at, kind) = self.required[0];
        let value = tuple.values().nth(at)?.ok()?;
        text(ID, kind, value).ok()
    }

    /// Reads a row.
    pub fn record(
        &self,
        tuple: &Tuple<'_>,
        position: Position,
        template: &Template,
    ) -> Result<Record, Invalid> {
        let values = tuple.values().collect::<Result<Vec<_>, _>>()?;
        let value = |role: usize| {
            let (at, kind) = self.required[role];
            match values.get(at) {
                Some(Value::Null | Value::Unchanged) | None => Err(Invalid::Null(REQUIRED[role])),
                Some(&value) => Ok((value, kind)),
            }
        };
        let string = |role: usize| {
            let (value, kind) = value(role)?;
            text(REQUIRED[role], kind, value)
        };
        let (id, aggregate_type) = (string(0)?, string(1)?);
        let (aggregate_id, event_type) = (string(2)?, string(3)?);
        let (payload, kind) = value(4)?;
        let payload = column::bytes(PAYLOAD, kind, payload)?;
        let extra = match self.headers.and_then(|at| values.get(at)) {
            Some(&value @ (Value::Text(_) | Value::Binary(_))) => column::object(HEADERS, value)?,
            _ => Vec::new(),
        };
        let columns = Columns {
            id: &id,
            aggregate_type: &aggregate_type,
            aggregate_id: &aggregate_id,
            event_type: &event_type,
        };
        Record::new(&columns, payload, &extra, position, template)
    }
}

impl Record {
    /// Makes the message of a row; `extra` are the row's own headers.
    pub fn new(
        columns: &Columns<'_>,
        payload: Bytes,
        extra: &[(String, String)],
        position: Position,
        template: &Template,
    ) -> Result<Self, Invalid> {
        let subject = template.subject(columns)?;
        let mut headers = HeaderMap::new();
        for (name, value) in extra {
            match own_header(name, value) {
                Some((name, value)) => headers.insert(name, value),
                None => tracing::warn!(
                    id = columns.id, header = ?name,
                    "a header of an outbox row was left out: its name is reserved, or it holds what a header cannot"
                ),
            }
        }
        let mut own = |name: &'static str, column, value: &str| -> Result<(), Invalid> {
            let value = value
                .parse::<HeaderValue>()
                .map_err(|error| Invalid::Unreadable {
                    column,
                    why: format!("it cannot stand in a header: {error}"),
                })?;
            headers.insert(name, value);
            Ok(())
        };
        own(envelope::EVENT_ID, ID, columns.id)?;
        own(envelope::EVENT_TYPE, TYPE, columns.event_type)?;
        own(
            envelope::AGGREGATE_TYPE,
            AGGREGATE_TYPE,
            columns.aggregate_type,
        )?;
        own(envelope::AGGREGATE_ID, AGGREGATE_ID, columns.aggregate_id)?;
        headers.insert(envelope::POSITION, position.to_string());
        let bytes = subject.len() + wire_bytes(&headers) + payload.len();
        Ok(Self {
            position,
            subject,
            headers,
            payload,
            bytes,
        })
    }

    /// Marks it as the last event of its transaction.
    pub fn end_transaction(&mut self) {
        let count = u64::from(self.position.index) + 1;
        self.headers.insert(envelope::COMMIT, count.to_string());
    }

    /// Bytes that the row takes on its way: subject, headers and payload.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The event's id, for errors and logs.
    pub fn id(&self) -> &str {
        self.headers
            .get(envelope::EVENT_ID)
            .map_or("?", HeaderValue::as_str)
    }
}

/// What the headers take on the wire: `NATS/1.0`, a line each, and an empty line.
fn wire_bytes(headers: &HeaderMap) -> usize {
    let lines = headers.iter().flat_map(|(name, values)| {
        let name: &str = name.as_ref();
        values
            .iter()
            .map(move |value| name.len() + value.as_str().len() + 4)
    });
    12 + lines.sum::<usize>()
}

/// A header of the row's own, if it may go out: not one that JetStream or the relay acts on.
fn own_header(name: &str, value: &str) -> Option<(HeaderName, HeaderValue)> {
    let is_reserved = |prefix: &str| {
        name.get(..prefix.len())
            .is_some_and(|head| head.eq_ignore_ascii_case(prefix))
    };
    if is_reserved("Nats-") || is_reserved("Cdc-") {
        return None;
    }
    Some((name.parse().ok()?, value.parse().ok()?))
}

#[cfg(test)]
mod tests;
