//! Where a layout's columns stand in the table, from the table's `Relation` message.

use std::borrow::Cow;

use mailbox::envelope::Position;

use super::{
    Invalid, Record, Role, Row,
    column::{self, Kind},
    layout::{AGGREGATE_ID, AGGREGATE_TYPE, ID, Layout, REQUIRED, TYPE},
};
use crate::pgoutput::{Relation, Tuple, Value};

/// Which column of the table is which.
#[derive(Debug)]
pub struct Mapping {
    /// Index and kind of each of the layout's texts.
    texts: Vec<(usize, Kind)>,
    payload: (usize, Kind),
    headers: Option<usize>,
}

impl Mapping {
    /// Finds the layout's columns by their names.
    ///
    /// # Errors
    /// [`Invalid::NoColumn`] or [`Invalid::WrongType`] when the table is not an outbox.
    pub fn of(relation: &Relation<'_>, layout: &Layout) -> Result<Self, Invalid> {
        let find = |name: &str, role| {
            let mut columns = relation.columns.iter();
            let at = columns.position(|column| column.name == name);
            let at = at.ok_or_else(|| Invalid::NoColumn(name.to_owned()))?;
            Ok((at, Kind::of(name, role, relation.columns[at].type_oid)?))
        };
        let texts = layout.texts.iter().map(|name| find(name, Role::Text));
        let headers = match find(&layout.headers, Role::Headers) {
            Ok((at, _)) => Some(at),
            Err(Invalid::NoColumn(_)) if !layout.needs_headers => None,
            Err(wrong) => return Err(wrong),
        };
        Ok(Self {
            texts: texts.collect::<Result<_, _>>()?,
            payload: find(&layout.payload, Role::Payload)?,
            headers,
        })
    }

    /// A row's id, if it can be read: for errors, and to tell rows apart.
    pub fn id(&self, tuple: &Tuple<'_>) -> Option<String> {
        let (at, kind) = self.texts[ID];
        let value = tuple.values().nth(at)?.ok()?;
        Some(column::text("id", kind, value).ok()??.into_owned())
    }

    /// What can be read of id, aggregate type, aggregate id and type.
    pub fn names(&self, tuple: &Tuple<'_>) -> [Option<String>; REQUIRED] {
        [ID, AGGREGATE_TYPE, AGGREGATE_ID, TYPE].map(|text| {
            let (at, kind) = self.texts[text];
            let value = tuple.values().nth(at)?.ok()?;
            Some(column::text("", kind, value).ok()??.into_owned())
        })
    }

    /// Reads a row.
    ///
    /// # Errors
    /// Why it cannot be published.
    pub fn record(
        &self,
        tuple: &Tuple<'_>,
        position: Position,
        layout: &Layout,
    ) -> Result<Record, Invalid> {
        let values = tuple.values().collect::<Result<Vec<_>, _>>()?;
        let value = |at: usize| values.get(at).copied().unwrap_or(Value::Null);
        let texts: Vec<Option<Cow<'_, str>>> = self
            .texts
            .iter()
            .zip(&layout.texts)
            .map(|(&(at, kind), name)| column::text(name, kind, value(at)))
            .collect::<Result<_, _>>()?;
        let (at, kind) = self.payload;
        let row = Row {
            texts: &texts,
            payload: column::bytes(&layout.payload, kind, value(at))?,
            is_json: kind.is_json(),
            extra: match self.headers {
                Some(at) => column::object(&layout.headers, value(at))?,
                None => Vec::new(),
            },
        };
        Record::new(row, position, layout)
    }
}
