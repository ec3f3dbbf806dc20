//! The slot, and who holds it.

use tokio_postgres::{Client, types::PgLsn};

use crate::{
    config::Config,
    error::{Error, Result},
};

const SLOT: &str = "\
    SELECT s.wal_status, s.confirmed_flush_lsn, s.restart_lsn, \
           pg_wal_lsn_diff(pg_current_wal_lsn(), s.confirmed_flush_lsn)::bigint, \
           pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn)::bigint, s.safe_wal_size, \
           s.active_pid, r.application_name, host(r.client_addr), \
           to_char(timezone('UTC', r.backend_start), 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') \
    FROM pg_replication_slots s LEFT JOIN pg_stat_replication r ON r.pid = s.active_pid \
    WHERE s.slot_name = $1";

/// The relay's slot.
#[derive(Debug)]
pub struct Slot {
    /// `reserved`, `extended`, `unreserved` or `lost`.
    pub state: String,
    /// `None` for a slot that is not a logical one.
    pub confirmed: Option<PgLsn>,
    pub restart: Option<PgLsn>,
    /// WAL that was written and is not confirmed.
    pub lag_bytes: Option<i64>,
    /// WAL that the slot keeps on disk.
    pub retained_bytes: Option<i64>,
    /// WAL that may still be written before the slot is lost; `None` without a bound.
    pub safe_bytes: Option<i64>,
    pub holder: Option<Holder>,
}

/// Whoever streams from it.
#[derive(Debug)]
pub struct Holder {
    pub pid: i32,
    pub application: Option<String>,
    pub address: Option<String>,
    pub since: Option<String>,
}

pub(super) async fn look(sql: &Client, config: &Config) -> Result<Option<Slot>> {
    let row = sql.query_opt(SLOT, &[&config.source.slot]).await;
    let failed = |e: tokio_postgres::Error| Error::sql("look at the slot", &e);
    let Some(row) = row.map_err(failed)? else {
        return Ok(None);
    };
    let holder = match row.try_get::<_, Option<i32>>(6).map_err(failed)? {
        Some(pid) => Some(Holder {
            pid,
            application: row.try_get(7).map_err(failed)?,
            address: row.try_get(8).map_err(failed)?,
            since: row.try_get(9).map_err(failed)?,
        }),
        None => None,
    };
    let state: Option<String> = row.try_get(0).map_err(failed)?;
    Ok(Some(Slot {
        state: state.unwrap_or_else(|| "unreserved".to_owned()),
        confirmed: row.try_get(1).map_err(failed)?,
        restart: row.try_get(2).map_err(failed)?,
        lag_bytes: row.try_get(3).map_err(failed)?,
        retained_bytes: row.try_get(4).map_err(failed)?,
        safe_bytes: row.try_get(5).map_err(failed)?,
        holder,
    }))
}
