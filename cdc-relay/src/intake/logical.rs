//! Table-less mode: an event is the content of `pg_logical_emit_message(true, prefix, content)`, a JSON
//! object with the outbox's columns as members. It is turned into the row that a table would have
//! brought, so that all that follows knows nothing of it.
//!
//! The danger: no table keeps the events. What Postgres no longer has in its WAL is gone for good.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use metrics::counter;
use serde_json::value::RawValue;

use super::{Intake, Taken};
use crate::{
    error::{Error, Result},
    pgoutput::{self, Column, Message, Relation},
    record::{BYTEA, JSON, Layout, TEXT},
};

/// The id of the relation that the rows seem to come from; Postgres gives out no such OID.
const RELATION: u32 = 0;

/// A payload that is not JSON is this member, beside the payload's own name.
const BASE64: &str = "_base64";

impl Intake<'_> {
    /// Takes a logical message.
    pub(super) fn logical(
        &mut self,
        is_transactional: bool,
        prefix: &str,
        content: &[u8],
    ) -> Result<Taken> {
        if self.source.message_prefix.as_deref() != Some(prefix) {
            return Ok(Taken::Other);
        }
        if !is_transactional {
            counter!("cdc_relay_messages_refused_total").increment(1);
            tracing::warn!(
                prefix,
                "a message was left out: it is not transactional, so it has no place among the others, and \
                 stands although its transaction may be rolled back. Emit it with \
                 pg_logical_emit_message(true, …)"
            );
            return Ok(Taken::Other);
        }
        let row = Row::of(content, self.layout);
        if self.payload_type != Some(row.payload_type) {
            let table = &self.source.table;
            self.relation(relation(
                &table.schema,
                &table.name,
                self.layout,
                row.payload_type,
            ))?;
            self.payload_type = Some(row.payload_type);
        }
        let insert = row.insert();
        match pgoutput::decode(&insert).map_err(Error::definite)? {
            Message::Insert { relation, tuple } => self.row(relation, &tuple),
            _ => Err(Error::definite("a logical message made no row")),
        }
    }
}

/// What a message says, in the order of [`relation`]'s columns.
struct Row {
    values: Vec<Option<Vec<u8>>>,
    payload_type: u32,
}

impl Row {
    /// Reads a message's content. One that cannot be read becomes a row that cannot be published: all
    /// of it is the payload, and the id is missing.
    fn of(content: &[u8], layout: &Layout) -> Self {
        Self::read(content, layout).unwrap_or_else(|why| {
            tracing::warn!(why, "a message cannot be published as an event");
            let texts = layout.texts.iter().map(|_| None);
            Self {
                values: texts.chain([Some(content.to_vec()), None]).collect(),
                payload_type: BYTEA,
            }
        })
    }

    fn read(content: &[u8], layout: &Layout) -> Result<Self, String> {
        let members: BTreeMap<String, &RawValue> = serde_json::from_slice(content)
            .map_err(|error| format!("its content is not a JSON object: {error}"))?;
        let member = |name: &str| members.get(name).filter(|value| value.get() != "null");
        let mut values = Vec::with_capacity(layout.texts.len() + 2);
        for name in &layout.texts {
            values.push(member(name).map(|value| text(value)).transpose()?);
        }
        let encoded = member(&format!("{}{BASE64}", layout.payload));
        let (payload, payload_type) = match (member(&layout.payload), encoded) {
            (None, Some(encoded)) => {
                let decoded = STANDARD.decode(text(encoded)?);
                let why = |error| format!("{}{BASE64} is not base64: {error}", layout.payload);
                (Some(decoded.map_err(why)?), BYTEA)
            }
            // As it was written: numbers keep their digits, and members their order.
            (json, _) => (json.map(|json| json.get().as_bytes().to_vec()), JSON),
        };
        values.push(payload);
        values.push(member(&layout.headers).map(|json| json.get().as_bytes().to_vec()));
        Ok(Self {
            values,
            payload_type,
        })
    }

    /// The row as the plugin would write it.
    fn insert(&self) -> Vec<u8> {
        let sizes = self
            .values
            .iter()
            .map(|value| 5 + value.as_ref().map_or(0, Vec::len));
        let mut bytes = Vec::with_capacity(8 + sizes.sum::<usize>());
        bytes.push(b'I');
        bytes.extend(RELATION.to_be_bytes());
        bytes.push(b'N');
        bytes.extend(
            u16::try_from(self.values.len())
                .unwrap_or(u16::MAX)
                .to_be_bytes(),
        );
        for value in &self.values {
            match value {
                None => bytes.push(b'n'),
                Some(value) => {
                    bytes.push(b'b');
                    // A message is smaller than the frame that brought it.
                    bytes.extend(u32::try_from(value.len()).unwrap_or(u32::MAX).to_be_bytes());
                    bytes.extend(value);
                }
            }
        }
        bytes
    }
}

/// A string as it is, anything else as JSON.
fn text(value: &RawValue) -> Result<Vec<u8>, String> {
    if !value.get().starts_with('"') {
        return Ok(value.get().as_bytes().to_vec());
    }
    let text: String = serde_json::from_str(value.get()).map_err(|error| error.to_string())?;
    Ok(text.into_bytes())
}

/// The table that the rows seem to come from.
fn relation<'a>(
    schema: &'a str,
    name: &'a str,
    layout: &'a Layout,
    payload_type: u32,
) -> Relation<'a> {
    let texts = layout.texts.iter().map(|name| (name.as_str(), TEXT));
    let columns = texts
        .chain([(&*layout.payload, payload_type), (&*layout.headers, JSON)])
        .map(|(name, type_oid)| Column { name, type_oid });
    Relation {
        id: RELATION,
        schema,
        name,
        columns: columns.collect(),
    }
}
