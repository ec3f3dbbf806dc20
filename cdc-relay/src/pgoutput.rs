//! Decodes the messages of the `pgoutput` plugin, protocol versions 1 and 2, text and binary tuples.
//!
//! Nothing is copied: a decoded message borrows from the frame. Every byte of a message that says
//! anything to an outbox is accounted for: what is left over is an error, not overlooked.

use tokio_postgres::types::PgLsn;

mod bytes;
mod chunk;

use bytes::Bytes;
pub(crate) use chunk::MISPLACED;
pub use chunk::{Mark, StreamCommit, mark, within_chunk};

/// A message that cannot be decoded. The bytes came over a checked stream, so this is a protocol
/// that the relay does not know, not a broken line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot decode a pgoutput message: {0}")]
pub struct Malformed(&'static str);

type Result<T> = std::result::Result<T, Malformed>;

/// One message of the plugin.
#[derive(Clone, Debug, PartialEq)]
pub enum Message<'a> {
    /// A transaction begins; its commit record stands at `commit_lsn`, and it committed so many
    /// microseconds after the year 2000 began, in UTC, by the server's clock.
    Begin {
        commit_lsn: PgLsn,
        commit_time: i64,
    },
    /// It ends; the next one commits at `end_lsn` or later.
    Commit {
        end_lsn: PgLsn,
    },
    /// A table's columns, before its first row and after each change of them.
    Relation(Relation<'a>),
    Insert {
        relation: u32,
        tuple: Tuple<'a>,
    },
    /// What `pg_logical_emit_message` wrote; one that is not transactional stands between transactions.
    Logical {
        is_transactional: bool,
        prefix: &'a str,
        content: &'a [u8],
    },
    /// Updates, deletes, truncates, types, origins: nothing that an outbox says.
    Other(u8),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation<'a> {
    pub id: u32,
    pub schema: &'a str,
    pub name: &'a str,
    pub columns: Vec<Column<'a>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column<'a> {
    pub name: &'a str,
    /// The type's OID; the built-in ones are fixed.
    pub type_oid: u32,
}

/// A column's value in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    Null,
    /// A TOASTed value that an update left as it was; never in an insert.
    Unchanged,
    Text(&'a [u8]),
    Binary(&'a [u8]),
}

/// A row's values, decoded as they are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple<'a> {
    count: u16,
    values: &'a [u8],
}

impl<'a> Tuple<'a> {
    /// How many values, and their bytes as they came.
    pub fn raw(&self) -> (u16, &'a [u8]) {
        (self.count, self.values)
    }

    /// The values in the order of the relation's columns; at most one error, as the last: bytes after
    /// the last value are one.
    pub fn values(&self) -> impl Iterator<Item = Result<Value<'a>>> + use<'a> {
        let mut bytes = Bytes(self.values);
        let mut left = self.count;
        std::iter::from_fn(move || {
            let value = match left.checked_sub(1) {
                Some(after) => {
                    left = after;
                    bytes.value()
                }
                None => Err(bytes.end().err()?),
            };
            if value.is_err() {
                (left, bytes) = (0, Bytes(&[]));
            }
            Some(value)
        })
    }
}

/// Decodes one message.
pub fn decode(message: &[u8]) -> Result<Message<'_>> {
    let mut bytes = Bytes(message);
    match bytes.u8()? {
        b'B' => {
            let commit_lsn = bytes.lsn()?;
            let commit_time = bytes.u64()?.cast_signed();
            let _xid = bytes.u32()?;
            bytes.end()?;
            Ok(Message::Begin {
                commit_lsn,
                commit_time,
            })
        }
        b'C' => {
            let _flags = bytes.u8()?;
            let _commit_lsn = bytes.lsn()?;
            let end_lsn = bytes.lsn()?;
            let _commit_time = bytes.u64()?;
            bytes.end()?;
            Ok(Message::Commit { end_lsn })
        }
        b'R' => {
            let relation = relation(&mut bytes)?;
            bytes.end()?;
            Ok(Message::Relation(relation))
        }
        b'I' => {
            let relation = bytes.u32()?;
            if bytes.u8()? != b'N' {
                return Err(Malformed("an insert without a new tuple"));
            }
            let tuple = Tuple {
                count: bytes.u16()?,
                values: bytes.0,
            };
            Ok(Message::Insert { relation, tuple })
        }
        b'M' => {
            let flags = bytes.u8()?;
            let _lsn = bytes.lsn()?;
            let prefix = bytes.text()?;
            let length =
                usize::try_from(bytes.u32()?).map_err(|_| Malformed("a message too long"))?;
            let content = bytes.take(length)?;
            bytes.end()?;
            Ok(Message::Logical {
                is_transactional: flags & 1 == 1,
                prefix,
                content,
            })
        }
        other => Ok(Message::Other(other)),
    }
}

fn relation<'a>(bytes: &mut Bytes<'a>) -> Result<Relation<'a>> {
    let id = bytes.u32()?;
    let schema = bytes.text()?;
    let name = bytes.text()?;
    let _replica_identity = bytes.u8()?;
    let count = bytes.u16()?;
    let columns = (0..count).map(|_| column(bytes)).collect::<Result<_>>()?;
    Ok(Relation {
        id,
        // An empty namespace is pg_catalog.
        schema: if schema.is_empty() {
            "pg_catalog"
        } else {
            schema
        },
        name,
        columns,
    })
}

fn column<'a>(bytes: &mut Bytes<'a>) -> Result<Column<'a>> {
    let _flags = bytes.u8()?;
    let name = bytes.text()?;
    let type_oid = bytes.u32()?;
    let _modifier = bytes.u32()?;
    Ok(Column { name, type_oid })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insert() -> Vec<u8> {
        let mut bytes = b"I\0\0\0\x07N\0\x04".to_vec();
        bytes.extend(b"b\0\0\0\x02\xff\xfe");
        bytes.extend(b"t\0\0\0\x01x");
        bytes.extend(b"nu");
        bytes
    }

    #[test]
    fn text_binary_null_and_unchanged_values_are_told_apart() {
        let bytes = insert();
        let Ok(Message::Insert { relation: 7, tuple }) = decode(&bytes) else {
            panic!("not an insert");
        };
        let values: Result<Vec<_>> = tuple.values().collect();
        let expected = [
            Value::Binary(&[0xff, 0xfe]),
            Value::Text(b"x"),
            Value::Null,
            Value::Unchanged,
        ];
        assert_eq!(values, Ok(expected.to_vec()));
    }

    #[test]
    fn a_message_cut_short_anywhere_is_an_error_and_never_a_panic() {
        let mut relation = b"R\0\0\0\x07public\0outbox\0d\0\x01".to_vec();
        relation.extend(b"\x01id\0\0\0\x0b\x86\xff\xff\xff\xff");
        let mut begin = b"B".to_vec();
        begin.extend([0; 20]);
        let logical = b"M\x01\0\0\0\0\0\0\0\x07outbox\0\0\0\0\x02{}".to_vec();
        for whole in [insert(), relation, begin, logical] {
            for end in 0..whole.len() {
                if let Ok(Message::Insert { tuple, .. }) = decode(&whole[..end]) {
                    assert!(tuple.values().any(|value| value.is_err()));
                }
            }
        }
    }

    #[test]
    fn a_relation_names_its_columns() {
        let mut bytes = b"R\0\0\0\x07public\0outbox\0d\0\x01".to_vec();
        bytes.extend(b"\x01id\0\0\0\x0b\x86\xff\xff\xff\xff");
        let expected = Relation {
            id: 7,
            schema: "public",
            name: "outbox",
            columns: vec![Column {
                name: "id",
                type_oid: 2950,
            }],
        };
        assert_eq!(decode(&bytes), Ok(Message::Relation(expected)));
    }
}
