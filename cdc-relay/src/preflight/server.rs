//! The server's settings.

use tokio_postgres::Client;

use super::{Report, failed, mib, slot::Found};
use crate::error::Result;

const SETTINGS: &str = "\
    SELECT current_setting('server_version'), current_setting('server_version_num')::int, \
           current_setting('wal_level'), \
           current_setting('max_replication_slots')::int, current_setting('max_wal_senders')::int, \
           (SELECT count(*) FROM pg_replication_slots)::int, \
           (SELECT count(*) FROM pg_stat_replication)::int, \
           (SELECT setting::bigint * 1024 * 1024 FROM pg_settings \
            WHERE name = 'max_slot_wal_keep_size'), \
           current_setting('wal_sender_timeout'), \
           coalesce(current_setting('idle_replication_slot_timeout', true), '0'), \
           current_setting('fsync') = 'on'";

/// pgoutput's binary mode, and column lists, came before; this is the oldest that is tested.
const VERSION_MIN: i32 = 150_000;
/// A relay that is away loses its slot behind less WAL than this too easily.
const KEEP_BYTES_MIN: i64 = 1024 * 1024 * 1024;

pub(super) async fn look(sql: &Client, slot: &Found, report: &mut Report) -> Result<()> {
    let row = sql.query_one(SETTINGS, &[]).await;
    let row = row.map_err(|e| failed(&e))?;
    let text = |at: usize| row.try_get::<_, String>(at).map_err(|e| failed(&e));
    let number = |at: usize| row.try_get::<_, i32>(at).map_err(|e| failed(&e));
    let (version, wal_level) = (text(0)?, text(2)?);
    if number(1)? < VERSION_MIN {
        let mend = "upgrade Postgres to 15 or newer";
        report.wrong("server version", version, mend);
    } else {
        report.ok("server version", version);
    }
    if wal_level == "logical" {
        report.ok("wal_level", wal_level);
    } else {
        let mend = "ALTER SYSTEM SET wal_level = logical; then restart Postgres";
        report.wrong("wal_level", wal_level, mend);
    }
    slots(number(3)?, number(5)?, slot, report);
    senders(number(4)?, number(6)?, slot, report);
    keep_size(row.try_get(7).map_err(|e| failed(&e))?, report);
    report.ok(
        "wal_sender_timeout",
        format!(
            "{} for others; the relay sets its own, and ends idle and statement time-outs for its sessions",
            text(8)?
        ),
    );
    let idle = text(9)?;
    if idle != "0" {
        report.warning(
            "idle_replication_slot_timeout",
            format!("{idle}: the slot of a relay that is away for longer is invalidated"),
            "ALTER SYSTEM SET idle_replication_slot_timeout = 0; SELECT pg_reload_conf()",
        );
    }
    if !row.try_get(10).map_err(|e| failed(&e))? {
        report.warning(
            "fsync",
            "off: after a crash the database may have lost what was published",
            "ALTER SYSTEM SET fsync = on; SELECT pg_reload_conf()",
        );
    }
    Ok(())
}

/// The relay needs its slot, and while it makes that, a temporary one.
fn slots(most: i32, used: i32, slot: &Found, report: &mut Report) {
    let needed = if slot.exists { 0 } else { 2 };
    let text = format!("{used} of {most} in use");
    if used + needed > most {
        report.wrong(
            "max_replication_slots",
            format!("{text}; the relay needs {needed} more"),
            format!(
                "ALTER SYSTEM SET max_replication_slots = {}; then restart Postgres, or drop slots that \
                 nobody uses",
                used + needed
            ),
        );
    } else {
        report.ok("max_replication_slots", text);
    }
}

/// One for the relay, and one for its standby at the moment of a takeover.
fn senders(most: i32, used: i32, slot: &Found, report: &mut Report) {
    let ours = i32::from(slot.holder.is_some());
    let left = most - used + ours;
    let text = format!("{used} of {most} in use");
    let mend = format!(
        "ALTER SYSTEM SET max_wal_senders = {}; then restart Postgres",
        used - ours + 2
    );
    match left {
        ..1 => report.wrong("max_wal_senders", format!("{text}: none is left"), mend),
        1 => report.warning(
            "max_wal_senders",
            format!("{text}: none is left for a standby of the relay"),
            mend,
        ),
        _ => report.ok("max_wal_senders", text),
    }
}

fn keep_size(bytes: i64, report: &mut Report) {
    let mend = "ALTER SYSTEM SET max_slot_wal_keep_size = '64GB'; SELECT pg_reload_conf(): as much as the \
                disk can spare, and more than is written while a relay may be away";
    match bytes {
        ..0 => report.warning(
            "max_slot_wal_keep_size",
            "unlimited: the slot of a relay that is gone for good fills the disk with WAL",
            mend,
        ),
        0..KEEP_BYTES_MIN => report.warning(
            "max_slot_wal_keep_size",
            format!(
                "{}: a relay that is away while more is written loses its slot, and has to compare table and \
                 stream",
                mib(bytes)
            ),
            mend,
        ),
        _ => report.ok("max_slot_wal_keep_size", mib(bytes)),
    }
}
