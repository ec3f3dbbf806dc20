//! What stands behind the types that a database has made itself: a domain is read as its base type, an
//! enum and what goes out as text (citext) as text.
//!
//! The WAL names only a type's OID, and those of a database's own types mean nothing elsewhere. So they
//! are replaced as soon as a table is described, and whatever keeps a description keeps built-in types.

use std::collections::HashMap;

use tokio_postgres::{GenericClient, types::Oid};

use crate::error::{Error, Result};

/// Read as one line each: a database with more has them from an extension, not for its outbox (I12).
const TYPES_MAX: u32 = 10_000;

/// A type is known by how it goes out in binary form: `citext` uses the built-in type's own function.
const BASES: &str = "\
    WITH RECURSIVE domain(oid, base) AS ( \
        SELECT oid, typbasetype FROM pg_type WHERE typtype = 'd' \
        UNION ALL \
        SELECT d.oid, t.typbasetype FROM domain d JOIN pg_type t ON t.oid = d.base WHERE t.typtype = 'd'), \
    own(oid, base) AS ( \
        SELECT oid, base FROM domain \
        UNION ALL SELECT oid, oid FROM pg_type WHERE typtype IN ('b', 'e')) \
    SELECT own.oid, CASE WHEN t.typtype = 'e' OR t.oid >= 16384 THEN 25::oid ELSE t.oid END \
    FROM own JOIN pg_type t ON t.oid = own.base LEFT JOIN pg_proc send ON send.oid = t.typsend \
    WHERE own.oid >= 16384 AND (t.typtype = 'e' OR t.typtype = 'b' AND (t.oid < 16384 OR send.prosrc = 'textsend')) \
    ORDER BY own.oid DESC LIMIT $1::bigint";

/// The types as they were when they were read.
#[derive(Clone, Debug, Default)]
pub struct Types(HashMap<Oid, Oid>);

impl Types {
    /// Reads them all, not only those in use: rows on their way may have been written with another.
    pub async fn read(sql: &impl GenericClient) -> Result<Self> {
        let during = "look at the types of columns";
        let rows = sql.query(BASES, &[&i64::from(TYPES_MAX)]).await;
        let rows = rows.map_err(|e| Error::sql(during, &e))?;
        let pair = |row: &tokio_postgres::Row| Ok((row.try_get(0)?, row.try_get(1)?));
        let pairs = rows.iter().map(pair).collect::<Result<_, _>>();
        pairs.map(Self).map_err(|e| Error::sql(during, &e))
    }

    /// The built-in type that values of this one are read as; itself, if there is none.
    pub fn base(&self, type_oid: Oid) -> Oid {
        self.0.get(&type_oid).copied().unwrap_or(type_oid)
    }
}
