//! The outbox's rows by SQL: the same columns as the WAL brings, read to the same message.

use std::borrow::Cow;

use mailbox::envelope::Position;
use tokio_postgres::{Row, Transaction};

use super::DURING;
use crate::{
    config::Table,
    error::{Error, Result},
    pgoutput::{Column, Relation, Value},
    quarantine::{self, Item, Names},
    record::{self, BYTEA, Invalid, Layout, Record, TIMESTAMP, TIMESTAMPTZ},
    types::Types,
    wal::quote,
};

const COLUMNS: &str = "\
    SELECT attname::text, atttypid FROM pg_attribute \
    WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped";

const TEXT: u32 = 25;
const JSON: [u32; 2] = [114, 3802];

/// How a layout's columns are read from the table, which is called `o` in the statement.
#[derive(Debug)]
pub(super) struct Select {
    /// What stands between `SELECT` and `FROM`.
    pub(super) list: String,
    /// The payload as bytea.
    pub(super) payload: String,
    /// The id, as the table has it and in the order of its index.
    pub(super) id: String,
    is_json: bool,
    table: Table,
}

impl Select {
    /// Looks at the table's columns.
    ///
    /// # Errors
    /// [`Error::Definite`] when one is missing.
    pub(super) async fn of(
        transaction: &Transaction<'_>,
        table: &Table,
        layout: &Layout,
    ) -> Result<Self> {
        let rows = transaction.query(COLUMNS, &[&table.quoted()]).await;
        let rows = rows.map_err(|e| Error::sql(DURING, &e))?;
        let types = Types::read(transaction).await?;
        let mut columns = Vec::with_capacity(rows.len());
        for row in rows {
            let name: String = row.try_get(0).map_err(|e| Error::sql(DURING, &e))?;
            let type_oid: u32 = row.try_get(1).map_err(|e| Error::sql(DURING, &e))?;
            columns.push((name, types.base(type_oid)));
        }
        let find = |name: &str| {
            let found = columns.iter().find(|(known, _)| known == name);
            let missing = || Error::no_outbox(table, &Invalid::NoColumn(name.to_owned()));
            found.map(|(_, type_oid)| *type_oid).ok_or_else(missing)
        };
        let mut list = String::new();
        for name in &layout.texts {
            list.push_str(&text(name, find(name)?));
            list.push_str(", ");
        }
        let payload_type = find(&layout.payload)?;
        let column = quote(&layout.payload);
        let payload = match payload_type {
            BYTEA => format!("o.{column}::bytea"),
            _ => format!("convert_to(o.{column}::text, 'UTF8')"),
        };
        let headers = match find(&layout.headers) {
            Ok(_) => format!("o.{}::jsonb", quote(&layout.headers)),
            Err(_) if !layout.needs_headers => "NULL::jsonb".to_owned(),
            Err(missing) => return Err(missing),
        };
        list.push_str(&format!("{payload}, {headers}"));
        Ok(Self {
            list,
            payload,
            id: format!("o.{}", quote(&layout.texts[record::ID])),
            is_json: JSON.contains(&payload_type),
            table: table.clone(),
        })
    }

    /// Reads a row of this list.
    ///
    /// # Errors
    /// Why it cannot be published.
    pub(super) fn record(
        &self,
        row: &Row,
        position: Position,
        layout: &Layout,
    ) -> Result<Record, String> {
        let count = layout.texts.len();
        let mut texts = Vec::with_capacity(count);
        for at in 0..count {
            let text: Option<&str> = row.try_get(at).map_err(|e| e.to_string())?;
            texts.push(text.map(Cow::from));
        }
        let payload: Option<&[u8]> = row.try_get(count).map_err(|e| e.to_string())?;
        let payload = payload.ok_or_else(|| Invalid::Null(layout.payload.clone()).to_string())?;
        let headers: Option<serde_json::Value> =
            row.try_get(count + 1).map_err(|e| e.to_string())?;
        let row = record::Row {
            texts: &texts,
            payload: payload.to_vec().into(),
            is_json: self.is_json,
            extra: headers.map(record::headers_of).unwrap_or_default(),
        };
        Record::new(row, position, layout).map_err(|error| error.to_string())
    }
}

impl Select {
    /// What is kept of a row that cannot be published: the columns that were read, as the WAL would
    /// bring them as text.
    pub(super) fn item(&self, row: &Row, why: &str, position: Position, layout: &Layout) -> Item {
        let count = layout.texts.len();
        let texts: Vec<Option<&str>> = (0..count)
            .map(|at| row.try_get(at).ok().flatten())
            .collect();
        let payload: Option<&[u8]> = row.try_get(count).ok().flatten();
        let headers: Option<serde_json::Value> = row.try_get(count + 1).ok().flatten();
        let headers = headers.map(|headers| headers.to_string());

        let mut columns = Vec::new();
        let mut values = Vec::new();
        let mut add = |name, type_oid, value| {
            columns.push(Column { name, type_oid });
            values.push(value);
        };
        for (name, text) in layout.texts.iter().zip(&texts) {
            let value = text.map_or(Value::Null, |text| Value::Text(text.as_bytes()));
            add(name, TEXT, value);
        }
        let payload = payload.map_or(Value::Null, |payload| match self.is_json {
            true => Value::Text(payload),
            false => Value::Binary(payload),
        });
        add(
            &layout.payload,
            if self.is_json { JSON[0] } else { BYTEA },
            payload,
        );
        let headers = headers.as_deref().map(|text| Value::Text(text.as_bytes()));
        add(&layout.headers, JSON[1], headers.unwrap_or(Value::Null));

        let table = Relation {
            id: 0,
            schema: &self.table.schema,
            name: &self.table.name,
            columns,
        };
        let text = |at: usize| texts.get(at).copied().flatten().map(str::to_owned);
        let names = Names {
            id: text(record::ID),
            aggregate_type: text(record::AGGREGATE_TYPE),
            aggregate_id: text(record::AGGREGATE_ID),
            event_type: text(record::TYPE),
        };
        let bytes = quarantine::encode_values(&quarantine::encode_relation(&table), &values);
        Item::offender(why, position, names, bytes)
    }
}

/// A column as the text that [`record::Mapping`] makes of its binary form. A timestamp's plain text
/// would depend on the session.
fn text(name: &str, type_oid: u32) -> String {
    let column = quote(name);
    let time = match type_oid {
        TIMESTAMPTZ => format!("timezone('UTC', o.{column})"),
        TIMESTAMP => format!("o.{column}"),
        _ => return format!("o.{column}::text"),
    };
    format!("to_char({time}, 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')")
}
