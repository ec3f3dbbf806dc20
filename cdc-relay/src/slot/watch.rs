//! Watches what the slot costs the server while the relay streams: the WAL that it keeps, and whether
//! Postgres is about to take that away from it.

use std::time::Duration;

use metrics::gauge;
use tokio::time::sleep;
use tokio_postgres::Client;

use crate::{
    config::Source,
    error::{Error, Result},
    primary,
};

/// Often enough for a graph.
const PAUSE: Duration = Duration::from_secs(15);

const COST: &str = "\
    SELECT wal_status, pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::float8, safe_wal_size::float8 \
    FROM pg_replication_slots WHERE slot_name = $1";

/// What `wal_status` may be; the metric has a series for each.
const STATES: [&str; 4] = ["reserved", "extended", "unreserved", "lost"];

/// Sets the slot's metrics until it is dropped.
pub async fn watch(source: &Source) {
    let mut sql = None;
    let mut told = false;
    loop {
        if let Err(error) = look(source, &mut sql, &mut told).await {
            tracing::debug!(%error, "cannot look at the slot's cost");
            sql = None;
        }
        sleep(PAUSE).await;
    }
}

async fn look(source: &Source, sql: &mut Option<Client>, told: &mut bool) -> Result<()> {
    let during = "look at the slot's cost";
    let sql = match sql {
        Some(sql) => sql,
        None => sql.insert(primary::connect(&source.database_url).await?.1),
    };
    let row = sql.query_opt(COST, &[&source.slot]).await;
    let Some(row) = row.map_err(|e| Error::sql(during, &e))? else {
        return Ok(());
    };
    let state: Option<String> = row.try_get(0).map_err(|e| Error::sql(during, &e))?;
    let number = |at: usize| {
        let number = row.try_get::<_, Option<f64>>(at);
        number.map_err(|e| Error::sql(during, &e))
    };
    let (retained, left) = (number(1)?, number(2)?);
    for one in STATES {
        let is_it = f64::from(u8::from(state.as_deref() == Some(one)));
        gauge!("cdc_relay_slot_state", "state" => one).set(is_it);
    }
    gauge!("cdc_relay_slot_retained_bytes").set(retained.unwrap_or(f64::NAN));
    let endangered = state.as_deref() == Some("unreserved");
    if endangered && !*told {
        tracing::warn!(
            slot = source.slot,
            retained_bytes = retained,
            bytes_left = left,
            "the slot keeps more WAL than max_slot_wal_keep_size: Postgres invalidates it at a checkpoint, \
             and the relay then publishes from the table what it has not published by then"
        );
    }
    *told = endangered;
    Ok(())
}
