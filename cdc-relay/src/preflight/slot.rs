//! The slot, if there is one.

use tokio_postgres::Client;

use super::{Report, failed, mib};
use crate::{
    config::{Config, Policy},
    error::Result,
};

const SLOT: &str = "\
    SELECT plugin::text, database::text, database = current_database(), wal_status, active_pid, \
           safe_wal_size, pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint \
    FROM pg_replication_slots WHERE slot_name = $1";

/// What the server has under the slot's name.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) exists: bool,
    /// The process of whoever streams from it.
    pub(super) holder: Option<i32>,
    plugin: Option<String>,
    database: Option<String>,
    is_here: bool,
    wal_status: Option<String>,
    safe_bytes: Option<i64>,
    retained_bytes: Option<i64>,
}

pub(super) async fn find(sql: &Client, config: &Config) -> Result<Found> {
    let row = sql.query_opt(SLOT, &[&config.source.slot]).await;
    let Some(row) = row.map_err(|e| failed(&e))? else {
        return Ok(Found::default());
    };
    Ok(Found {
        exists: true,
        plugin: row.try_get(0).map_err(|e| failed(&e))?,
        database: row.try_get(1).map_err(|e| failed(&e))?,
        is_here: row
            .try_get::<_, Option<bool>>(2)
            .map_err(|e| failed(&e))?
            .unwrap_or(false),
        wal_status: row.try_get(3).map_err(|e| failed(&e))?,
        holder: row.try_get(4).map_err(|e| failed(&e))?,
        safe_bytes: row.try_get(5).map_err(|e| failed(&e))?,
        retained_bytes: row.try_get(6).map_err(|e| failed(&e))?,
    })
}

pub(super) fn look(config: &Config, found: &Found, report: &mut Report) {
    let name = &config.source.slot;
    if !found.exists {
        let text = format!(
            "{name} does not exist: the relay makes it, and first publishes the table's rows"
        );
        return report.ok("slot", text);
    }
    let of = format!(
        "{name} is of {} in database {}",
        found.plugin.as_deref().unwrap_or("a physical standby"),
        found.database.as_deref().unwrap_or("(none)")
    );
    if found.plugin.as_deref() != Some("pgoutput") || !found.is_here {
        let mend = "slots are one namespace for the whole server: give this relay another CDC_SLOT";
        return report.wrong("slot", of, mend);
    }
    let drop = format!(
        "SELECT pg_drop_replication_slot('{name}'); then the relay makes it anew from the table"
    );
    match found.wal_status.as_deref() {
        Some("lost") => {
            let text = format!("{name} is lost: Postgres has removed WAL that it needed");
            return match config.healing.policy {
                Policy::Heal if config.healing.has_table => report.warning(
                    "slot",
                    format!("{text}; the relay makes it anew, and publishes from the table what the stream lacks"),
                    "start the relay, and keep the table's rows until it is ready",
                ),
                _ => report.wrong("slot", text, drop),
            };
        }
        Some("unreserved") => report.warning(
            "slot",
            format!(
                "{name} is about to be lost: Postgres may remove its WAL at the next checkpoint"
            ),
            "start the relay, or raise max_slot_wal_keep_size",
        ),
        _ => {}
    }
    let held = match found.holder {
        Some(pid) => format!("held by process {pid}: another relay runs"),
        None => "free".to_owned(),
    };
    let retained = found.retained_bytes.map(mib).unwrap_or_default();
    let safe = found
        .safe_bytes
        .map(|bytes| format!(", and {} more may be written before it is lost", mib(bytes)));
    report.ok(
        "slot",
        format!(
            "{name} is {held}; it retains {retained} of WAL{}",
            safe.unwrap_or_default()
        ),
    );
}
