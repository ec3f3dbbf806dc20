//! Rows that share an id, of which the stream would hold one.
//!
//! Danger: the copy tells by its id whether the stream has a row. Were the first of two published, the next
//! attempt would take the second for it, and leave it out for good. So nothing is published before somebody
//! has told the two apart.

use tokio_postgres::Transaction;

use super::DURING;
use crate::{
    error::{Error, Result},
    heal::compare::Outbox,
};

/// Whether Postgres sees to it that ids are unique: then nobody need look. The first column of a unique
/// index that has others beside is not unique, but for partitions, whose keys have to be in the index.
const IS_UNIQUE: &str = "\
    SELECT EXISTS (SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] \
                   WHERE i.indrelid = $1::text::regclass AND i.indisunique AND i.indisvalid \
                     AND i.indpred IS NULL AND i.indnkeyatts = 1 AND '\"' || replace(a.attname, '\"', '\"\"') || '\"' = $2)";

/// Refuses when rows that are `missing` share an id.
pub(super) async fn refuse(
    transaction: &Transaction<'_>,
    outbox: &Outbox<'_>,
    missing: &str,
) -> Result<()> {
    let Outbox { table, id } = outbox;
    let name = id.strip_prefix("o.").unwrap_or(id);
    let row = transaction.query_one(IS_UNIQUE, &[table, &name]).await;
    let is_unique: bool = row
        .and_then(|row| row.try_get(0))
        .map_err(|e| Error::sql(DURING, &e))?;
    if is_unique {
        return Ok(());
    }
    // As JetStream reads a header, blanks around an id are not part of it.
    let query = format!(
        "SELECT btrim({id}::text), count(*) FROM {table} o WHERE {id} IS NOT NULL AND {missing} \
         GROUP BY 1 HAVING count(*) > 1 ORDER BY 1 LIMIT 1"
    );
    let row = transaction.query_opt(&query, &[]).await;
    let Some(row) = row.map_err(|e| Error::sql(DURING, &e))? else {
        return Ok(());
    };
    let (event, rows): (String, i64) = (|| Ok((row.try_get(0)?, row.try_get(1)?)))()
        .map_err(|e: tokio_postgres::Error| Error::sql(DURING, &e))?;
    Err(Error::Definite(format!(
        "event {event} cannot be published: {rows} rows of {table} have this id, and the stream tells events \
         apart by it. Give each row an id of its own, or delete those that are too many; a unique index keeps \
         it so"
    )))
}
