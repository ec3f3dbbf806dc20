//! From an item's bytes to the message that is to be published, under today's configuration and limits,
//! with what an operator has replaced.

use std::{borrow::Cow, collections::BTreeMap};

use bytes::Bytes;
use mailbox::envelope::Position;

use super::{
    item::{Form, Meta, Names, decode_message},
    request::Fix,
    row::Row,
};
use crate::{
    config::Source,
    publish::Limits,
    record::{Headers, Layout, Mapping, Record},
    subject::Template,
    wal::System,
};

/// What a message is made with.
#[derive(Clone, Debug)]
pub struct Maker<'a> {
    pub source: &'a Source,
    pub layout: &'a Layout,
    pub limits: Limits,
    pub system: System,
}

/// The item's bytes are none that the relay has written.
const UNREADABLE: &str = "its bytes in the quarantine stream cannot be read: discard it";

impl Maker<'_> {
    /// The outbox's name.
    pub fn table(&self) -> String {
        self.source.table.quoted()
    }

    /// The message of an item.
    ///
    /// # Errors
    /// Why it cannot be published, and what would mend it.
    pub fn make(&self, meta: &Meta, body: &Bytes, fix: Option<&Fix>) -> Result<Record, String> {
        let record = match meta.form {
            Form::Row => self.of_row(body, meta.position, fix)?,
            Form::Message => of_message(body, meta.position, fix)?,
        };
        self.limits.check(&record)?;
        Ok(record)
    }

    fn of_row(
        &self,
        body: &Bytes,
        position: Position,
        fix: Option<&Fix>,
    ) -> Result<Record, String> {
        let mut row = Row::decode(body).ok_or(UNREADABLE)?;
        let mut layout = Cow::Borrowed(self.layout);
        if let Some(fix) = fix {
            let mut columns: BTreeMap<String, Option<Bytes>> = BTreeMap::new();
            for (name, value) in &fix.columns {
                columns.insert(name.clone(), value.clone().map(Bytes::from));
            }
            if fix.has_payload {
                columns.insert(layout.payload.clone(), Some(fix.payload.clone()));
            }
            if let Some(event_type) = &fix.event_type {
                let event_type = Some(Bytes::from(event_type.clone()));
                columns.insert(layout.type_column().to_owned(), event_type);
            }
            row = row.with(&columns).map_err(|name| {
                format!("the fix names column `{name}`, which the table does not have")
            })?;
            if let Some(subject) = &fix.subject {
                let subject: Template = subject.parse().map_err(|error| format!("{error}"))?;
                layout = Cow::Owned(layout.for_subject(&subject));
            }
        }
        let relation = row.relation().ok_or(UNREADABLE)?;
        let tuple = row.tuple().ok_or(UNREADABLE)?;
        let mapping = Mapping::of(&relation, &layout).map_err(|error| error.to_string())?;
        let made = mapping.record(&tuple, position, &layout);
        let record = made.map_err(|error| error.to_string())?;
        match fix {
            Some(fix) if !fix.headers.is_empty() => {
                let headers = amend(record.headers, &fix.headers)?;
                Ok(Record::of_message(
                    position,
                    record.subject,
                    headers,
                    record.payload,
                ))
            }
            _ => Ok(record),
        }
    }
}

fn of_message(body: &Bytes, position: Position, fix: Option<&Fix>) -> Result<Record, String> {
    let (mut subject, mut headers, mut payload) = decode_message(body).ok_or(UNREADABLE)?;
    if let Some(fix) = fix {
        if !fix.columns.is_empty() || fix.event_type.is_some() {
            return Err(
                "the fix replaces columns, and of a held event only subject, headers and payload \
                        can be replaced"
                    .to_owned(),
            );
        }
        if let Some(other) = &fix.subject {
            subject.clone_from(other);
        }
        if fix.has_payload {
            payload = fix.payload.clone();
        }
        headers = amend(headers, &fix.headers)?;
    }
    Ok(Record::of_message(position, subject, headers, payload))
}

fn amend(
    mut headers: Headers,
    fixes: &BTreeMap<String, Option<String>>,
) -> Result<Headers, String> {
    for (name, value) in fixes {
        let cannot = || format!("the fix gives header `{name}` a value that cannot stand there");
        let own = crate::record::own_header(name, value.as_deref().unwrap_or_default());
        let (name, read) = own.ok_or_else(cannot)?;
        match value {
            Some(_) => headers.set(&name, &read),
            None => drop(headers.remove(name.as_ref())),
        }
    }
    Ok(headers)
}

/// What can be read of a row that cannot be published.
pub fn names(mapping: &Mapping, tuple: &crate::pgoutput::Tuple<'_>) -> Names {
    let [id, aggregate_type, aggregate_id, event_type] = mapping.names(tuple);
    Names {
        id,
        aggregate_type,
        aggregate_id,
        event_type,
    }
}
