//! How many events wait, and since when: told by decoding what the slot has not confirmed, on a temporary
//! copy of it. The copy can be made while a relay streams from the slot, moves nothing, and ends with the
//! connection.
//!
//! The danger is the backlog's size: decoding stops after so many changes, and after so many seconds.

use std::{pin::pin, time::Duration};

use futures_util::TryStreamExt as _;
use mailbox::envelope::Position;
use tokio::time::timeout;
use tokio_postgres::{Client, types::ToSql};

use crate::{
    config::Config,
    error::{Error, Result},
};

const COPY: &str = "\
    SELECT pg_copy_logical_replication_slot($1::text::name, $2::text::name, true)";

/// Kind of each change, and of a beginning its commit's LSN and age.
const PEEK: &str = "\
    SELECT get_byte(data, 0), \
           CASE WHEN get_byte(data, 0) = 66 THEN substring(data FROM 2 FOR 8) END, \
           CASE WHEN get_byte(data, 0) = 66 THEN \
               extract(epoch FROM clock_timestamp() - ('2000-01-01 00:00:00+00'::timestamptz \
                   + ('x' || encode(substring(data FROM 10 FOR 8), 'hex'))::bit(64)::bigint \
                     * interval '1 microsecond'))::float8 END \
    FROM pg_logical_slot_peek_binary_changes($1::text::name, NULL, $2, \
         'proto_version', '1', 'publication_names', $3, 'messages', $4) \
    WHERE $4 = 'false' AND get_byte(data, 0) <> 77 \
       OR get_byte(data, 0) IN (66, 67) \
       OR get_byte(data, 0) = 77 AND get_byte(data, 1) = 1 \
          AND substring(data FROM 11 FOR octet_length($5::bytea) + 1) = $5::bytea || '\\x00'";

const BEGIN: i32 = b'B' as i32;
const INSERT: i32 = b'I' as i32;
const LOGICAL: i32 = b'M' as i32;

/// Changes that are decoded at most, and whatever the last transaction has beyond.
const CHANGES_MAX: i32 = 100_000;
/// A server that takes longer has a large transaction in hand.
const TIMEOUT: Duration = Duration::from_secs(10);

const DURING: &str = "count what waits";

/// What Postgres has and the stream has not.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Waiting {
    pub events: u64,
    /// There may be more: the count was ended.
    pub is_at_least: bool,
    /// Age of the oldest.
    pub seconds: f64,
}

pub(super) async fn count(
    sql: &Client,
    config: &Config,
    stored: Option<Position>,
) -> Result<Waiting> {
    match timeout(TIMEOUT, peek(sql, config, stored)).await {
        Ok(counted) => counted,
        Err(_) => Err(Error::Transient(format!(
            "{DURING}: Postgres was not done decoding within {TIMEOUT:?}: a large backlog or transaction"
        ))),
    }
}

async fn peek(sql: &Client, config: &Config, stored: Option<Position>) -> Result<Waiting> {
    let source = &config.source;
    let failed = |e: tokio_postgres::Error| Error::sql(DURING, &e);
    let copy = format!("{}_s{}", source.slot, std::process::id());
    let names: [&(dyn ToSql + Sync); 2] = [&source.slot, &copy];
    sql.execute(COPY, &names).await.map_err(failed)?;
    let publication = crate::wal::quote(&source.publication);
    let prefix = source.message_prefix.as_deref();
    let messages = if prefix.is_some() { "true" } else { "false" };
    let prefix = prefix.unwrap_or_default().as_bytes();
    let arguments: [&(dyn ToSql + Sync); 5] =
        [&copy, &CHANGES_MAX, &publication, &messages, &prefix];
    let rows = sql.query_raw(PEEK, arguments).await.map_err(failed)?;
    let mut rows = pin!(rows);
    let mut waiting = Waiting::default();
    let (mut changes, mut lsn, mut age, mut index) = (0, 0, 0.0, 0);
    while let Some(row) = rows.try_next().await.map_err(failed)? {
        changes += 1;
        match row.try_get(0).map_err(failed)? {
            BEGIN => {
                let bytes: Vec<u8> = row.try_get(1).map_err(failed)?;
                lsn = bytes.try_into().map_or(0, u64::from_be_bytes);
                age = row.try_get(2).map_err(failed)?;
                index = 0;
            }
            INSERT | LOGICAL => {
                // The slot may not have heard yet of what the stream has.
                let is_stored = stored.is_some_and(|at| (lsn, index) <= (at.lsn, at.index));
                index += 1;
                if is_stored {
                    continue;
                }
                waiting.events += 1;
                if waiting.events == 1 {
                    waiting.seconds = age;
                }
            }
            _ => {}
        }
    }
    waiting.is_at_least = changes >= CHANGES_MAX;
    Ok(waiting)
}
