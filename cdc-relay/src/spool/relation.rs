//! Which columns the outbox has. Postgres describes a table before its first row in a transaction that
//! it streams, and again after each change; for the others it counts what a streamed transaction that
//! has committed brought. So of all descriptions that are not rolled back the latest to arrive holds.

use bytes::Bytes;

use crate::{
    config::Table,
    error::{Error, Result},
    pgoutput::{self, Message},
};

/// A `Relation` message about the outbox.
#[derive(Clone, Debug)]
pub(super) struct Description {
    /// The relation's id.
    pub(super) id: u32,
    /// As it would come outside of a chunk.
    pub(super) message: Bytes,
    /// Counts descriptions in the order of their arrival, from 1 on.
    pub(super) order: u64,
}

/// Tells the outbox's descriptions from those of other tables.
#[derive(Debug)]
pub(super) struct Descriptions {
    table: Table,
    count: u64,
}

impl Descriptions {
    pub(super) fn of(table: Table) -> Self {
        Self { table, count: 0 }
    }

    /// A `Relation` message, if it is about the outbox: by its name, or, so that a renamed one is
    /// noticed, by `known`, the outbox's id so far.
    pub(super) fn read(
        &mut self,
        message: &[u8],
        known: Option<u32>,
    ) -> Result<Option<Description>> {
        let Message::Relation(relation) = pgoutput::decode(message).map_err(Error::definite)?
        else {
            return Ok(None);
        };
        let is_named = relation.schema == self.table.schema && relation.name == self.table.name;
        if !is_named && known != Some(relation.id) {
            return Ok(None);
        }
        self.count += 1;
        Ok(Some(Description {
            id: relation.id,
            // Copied: it stays for long, and must not keep the whole read buffer.
            message: Bytes::copy_from_slice(message),
            order: self.count,
        }))
    }
}
