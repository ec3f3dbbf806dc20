//! A row of the outbox as bytes, and a row made of them again, with what an operator has replaced.
//!
//! The bytes are two messages of pgoutput: the table's description, and an insert. What reads the WAL
//! reads them again, so a row in quarantine loses nothing, and is judged by today's configuration when
//! it is released.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::item::{join, split};
use crate::pgoutput::{self, Malformed, Message, Relation, Tuple, Value};

/// The id of the relation within the bytes: there is only one.
const RELATION: u32 = 1;

/// A table's description.
pub fn encode_relation(relation: &Relation<'_>) -> Vec<u8> {
    let mut bytes = vec![b'R'];
    bytes.extend(RELATION.to_be_bytes());
    for name in [relation.schema, relation.name] {
        bytes.extend(name.as_bytes());
        bytes.push(0);
    }
    bytes.push(b'd');
    bytes.extend(count(relation.columns.len()));
    for column in &relation.columns {
        bytes.push(0);
        bytes.extend(column.name.as_bytes());
        bytes.push(0);
        bytes.extend(column.type_oid.to_be_bytes());
        bytes.extend((-1_i32).to_be_bytes());
    }
    bytes
}

/// A row beside its table's description.
pub fn encode(relation: &[u8], tuple: &Tuple<'_>) -> Bytes {
    let (count, values) = tuple.raw();
    let mut insert = insert_head(count);
    insert.extend(values);
    join(relation, &insert)
}

/// A row of these values: for rows that did not come from the WAL.
pub fn encode_values(relation: &[u8], values: &[Value<'_>]) -> Bytes {
    join(relation, &insert_of(values.iter().copied()))
}

/// The two messages of a row, to be decoded as those of the WAL.
#[derive(Clone, Debug)]
pub struct Row {
    relation: Bytes,
    insert: Bytes,
}

impl Row {
    pub fn decode(body: &Bytes) -> Option<Self> {
        let (relation, insert) = split(body)?;
        let row = Self { relation, insert };
        (row.relation().is_some() && row.tuple().is_some()).then_some(row)
    }

    pub fn relation(&self) -> Option<Relation<'_>> {
        match pgoutput::decode(&self.relation) {
            Ok(Message::Relation(relation)) => Some(relation),
            _ => None,
        }
    }

    pub fn tuple(&self) -> Option<Tuple<'_>> {
        match pgoutput::decode(&self.insert) {
            Ok(Message::Insert { tuple, .. }) => Some(tuple),
            _ => None,
        }
    }

    /// The columns and their values, as far as they can be read.
    pub fn values(&self) -> Vec<(String, Option<Result<Value<'_>, Malformed>>)> {
        let (Some(relation), Some(tuple)) = (self.relation(), self.tuple()) else {
            return Vec::new();
        };
        let mut values = tuple.values();
        let named = relation.columns.iter().map(|column| column.name.to_owned());
        named.map(|name| (name, values.next())).collect()
    }

    /// The row with some columns replaced, by name: `None` makes it NULL, the text of a `bytea` is
    /// taken as it is.
    ///
    /// # Errors
    /// The name of a column that the table does not have.
    pub fn with(&self, replaced: &BTreeMap<String, Option<Bytes>>) -> Result<Self, String> {
        let values = self.values();
        let known = |name: &String| values.iter().any(|(column, _)| column == name);
        if let Some(unknown) = replaced.keys().find(|name| !known(name)) {
            return Err(unknown.clone());
        }
        let relation = self.relation().ok_or("(no table)")?;
        let value =
            |(at, (name, value)): (usize, &(String, Option<Result<Value<'_>, _>>))| match replaced
                .get(name)
            {
                Some(None) => Held::Null,
                Some(Some(bytes)) if relation.columns[at].type_oid == BYTEA => {
                    Held::Binary(bytes.clone())
                }
                Some(Some(bytes)) => Held::Text(bytes.clone()),
                None => match value {
                    Some(Ok(Value::Text(bytes))) => Held::Text(Bytes::copy_from_slice(bytes)),
                    Some(Ok(Value::Binary(bytes))) => Held::Binary(Bytes::copy_from_slice(bytes)),
                    _ => Held::Null,
                },
            };
        let held: Vec<Held> = values.iter().enumerate().map(value).collect();
        Ok(Self {
            relation: self.relation.clone(),
            insert: insert_of(held.iter().map(Held::value)).into(),
        })
    }
}

/// The type of a payload whose replacement is bytes, not their text.
const BYTEA: u32 = 17;

enum Held {
    Null,
    Text(Bytes),
    Binary(Bytes),
}

impl Held {
    fn value(&self) -> Value<'_> {
        match self {
            Self::Null => Value::Null,
            Self::Text(bytes) => Value::Text(bytes),
            Self::Binary(bytes) => Value::Binary(bytes),
        }
    }
}

fn insert_head(count: u16) -> Vec<u8> {
    let mut bytes = vec![b'I'];
    bytes.extend(RELATION.to_be_bytes());
    bytes.push(b'N');
    bytes.extend(count.to_be_bytes());
    bytes
}

fn insert_of<'a>(values: impl ExactSizeIterator<Item = Value<'a>>) -> Vec<u8> {
    let mut bytes = insert_head(u16::from_be_bytes(count(values.len())));
    for value in values {
        let (kind, value) = match value {
            Value::Null => (b'n', None),
            Value::Unchanged => (b'u', None),
            Value::Text(value) => (b't', Some(value)),
            Value::Binary(value) => (b'b', Some(value)),
        };
        bytes.push(kind);
        if let Some(value) = value {
            // Postgres has no value of more than 1 GB.
            bytes.extend(u32::try_from(value.len()).unwrap_or(u32::MAX).to_be_bytes());
            bytes.extend(value);
        }
    }
    bytes
}

/// Postgres has tables of at most 1,600 columns.
fn count(columns: usize) -> [u8; 2] {
    u16::try_from(columns).unwrap_or(u16::MAX).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pgoutput::Column;

    fn row() -> Row {
        let relation = Relation {
            id: 99,
            schema: "public",
            name: "outbox",
            columns: [("id", 2950), ("payload", BYTEA), ("note", 25)]
                .map(|(name, type_oid)| Column { name, type_oid })
                .to_vec(),
        };
        let values = [
            Value::Binary(&[7; 16]),
            Value::Text(b"\\x00ff"),
            Value::Null,
        ];
        Row::decode(&encode_values(&encode_relation(&relation), &values)).unwrap()
    }

    #[test]
    fn a_row_comes_back_byte_for_byte_with_its_table() {
        let row = row();
        let relation = row.relation().unwrap();
        assert_eq!((relation.schema, relation.name), ("public", "outbox"));
        assert_eq!(relation.columns[1].type_oid, BYTEA);
        let values: Vec<_> = row.tuple().unwrap().values().map(Result::unwrap).collect();
        let expected = [
            Value::Binary(&[7; 16]),
            Value::Text(b"\\x00ff"),
            Value::Null,
        ];
        assert_eq!(values, expected);
        let again = encode(&encode_relation(&relation), &row.tuple().unwrap());
        let again = Row::decode(&again).unwrap();
        assert_eq!(again.insert, row.insert);
    }

    #[test]
    fn a_fix_replaces_what_it_names_and_nothing_else() {
        let fix = BTreeMap::from([
            ("payload".to_owned(), Some(Bytes::from_static(&[1, 0, 255]))),
            ("note".to_owned(), Some(Bytes::from_static(b"mended"))),
        ]);
        let fixed = row().with(&fix).unwrap();
        let values: Vec<_> = fixed
            .tuple()
            .unwrap()
            .values()
            .map(Result::unwrap)
            .collect();
        let expected = [
            Value::Binary(&[7; 16]),
            Value::Binary(&[1, 0, 255]),
            Value::Text(b"mended"),
        ];
        assert_eq!(values, expected);
        let unknown = BTreeMap::from([("nope".to_owned(), None)]);
        assert_eq!(row().with(&unknown).unwrap_err(), "nope");
    }

    #[test]
    fn bytes_cut_short_are_no_row_and_never_a_panic() {
        let relation = encode_relation(&row().relation().unwrap());
        let body = encode(&relation, &row().tuple().unwrap());
        for end in 0..body.len() {
            if let Some(row) = Row::decode(&body.slice(..end)) {
                drop(row.values());
            }
        }
    }
}
