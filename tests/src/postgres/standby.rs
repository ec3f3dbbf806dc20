//! A streaming standby of a cluster, made by a base backup over SQL and a copy of the files, because not
//! every Postgres here comes with `pg_basebackup`.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Postgres;
use crate::eventually::eventually;
use crate::user::Server;

/// A promotion replays what has been received first.
const PROMOTE_DEADLINE: Duration = Duration::from_secs(60);

/// What a backup leaves out: of the running server, of its slots, and of its log, which is streamed.
const LEFT_OUT: [&str; 3] = ["postmaster.pid", "postmaster.opts", "postgresql.auto.conf"];
const EMPTIED: [&str; 8] = [
    "pg_wal",
    "pg_replslot",
    "pg_dynshmem",
    "pg_notify",
    "pg_serial",
    "pg_snapshots",
    "pg_stat_tmp",
    "pg_subtrans",
];

impl Postgres {
    /// Starts a standby of this cluster, which streams from it through a physical slot of that name
    /// (a-z, 0-9 and _), with the primary's settings, feedback, and `settings` besides. Where the server can (17
    /// and newer), it also synchronizes the failover slots of `database`.
    ///
    /// For these not to run ahead of the standby, name the slot in the primary's
    /// `synchronized_standby_slots`: [`Postgres::set`].
    ///
    /// # Errors
    /// When the backup fails or the standby does not start: with the end of its log.
    pub async fn standby(
        &self,
        name: &str,
        database: &str,
        settings: &[(&str, &str)],
    ) -> Result<Self> {
        let client = self.connect("postgres").await?;
        let slot = "SELECT pg_create_physical_replication_slot($1, true)";
        client.execute(slot, &[&name]).await?;
        let begin = "SELECT pg_backup_start($1, true)";
        client.execute(begin, &[&name]).await?;
        let version = client.query_one("SELECT current_setting('server_version_num')::int", &[]);
        let version: i32 = version.await?.get(0);

        let connection = format!(
            "host=127.0.0.1 port={} user=postgres password={} dbname={database} application_name={name}",
            self.port(),
            self.password
        );
        let mut all = self.settings.clone();
        let mut add = |name: &str, value: &str| all.push((name.to_owned(), value.to_owned()));
        add("primary_conninfo", &connection);
        add("primary_slot_name", name);
        add("hot_standby_feedback", "on");
        add("wal_receiver_status_interval", "1s");
        if version >= 170_000 {
            add("sync_replication_slots", "on");
        }
        settings.iter().for_each(|(name, value)| add(name, value));
        let mut standby = Self::prepare(&self.guard, self.bin.clone(), all)?;
        standby.password.clone_from(&self.password);

        let (from, to) = (self.data(), standby.data());
        let user = standby.user;
        tokio::task::spawn_blocking(move || copy(&from, &to, &user)).await??;
        let end = client.query_one("SELECT labelfile FROM pg_backup_stop(false)", &[]);
        let label: String = end.await?.get(0);
        for (file, text) in [("backup_label", label.as_str()), ("standby.signal", "")] {
            let path = standby.data().join(file);
            fs::write(&path, text)?;
            standby.user.own(&path)?;
        }
        standby.configure()?;
        standby.start_on_a_free_port().await?;
        Ok(standby)
    }

    /// Makes a standby a primary of its own, and waits until it takes writes.
    ///
    /// # Errors
    /// When it is none, or takes too long.
    pub async fn promote(&self) -> Result<()> {
        let client = self.connect("postgres").await?;
        let promoted = client.query_one("SELECT pg_promote()", &[]).await?;
        ensure!(
            promoted.get::<_, bool>(0),
            "the standby was not promoted: {}",
            self.log().tail()
        );
        eventually("the end of recovery", PROMOTE_DEADLINE, async || {
            let row = client.query_one("SELECT pg_is_in_recovery()", &[]).await?;
            Ok((!row.get::<_, bool>(0)).then_some(()))
        })
        .await
    }

    /// Waits until this standby has replayed all that the primary has written by now.
    ///
    /// # Errors
    /// When it takes too long.
    pub async fn wait_caught_up(&self, primary: &Self) -> Result<()> {
        let client = primary.connect("postgres").await?;
        let row = client.query_one("SELECT pg_current_wal_flush_lsn()::text", &[]);
        let written: String = row.await?.get(0);
        let own = self.connect("postgres").await?;
        let replayed = "SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn";
        eventually("the standby to catch up", PROMOTE_DEADLINE, async || {
            let row = own.query_one(replayed, &[&written]).await?;
            Ok(row.get::<_, Option<bool>>(0).unwrap_or(false).then_some(()))
        })
        .await
    }
}

/// Copies a data directory while its server runs: a file may vanish meanwhile, or change, which the
/// WAL since the backup's start mends.
fn copy(from: &Path, to: &Path, user: &Server) -> Result<()> {
    fs::create_dir(to)?;
    fs::set_permissions(to, fs::metadata(from)?.permissions())?;
    user.own(to)?;
    for entry in fs::read_dir(from)? {
        let (entry, name) = entry.map(|entry| (entry.path(), entry.file_name()))?;
        let target = to.join(&name);
        let name = name.to_string_lossy();
        if LEFT_OUT.contains(&&*name) {
            continue;
        }
        if !entry.is_dir() {
            match fs::copy(&entry, &target) {
                Ok(_) => user.own(&target)?,
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("copy {}", entry.display()));
                }
            }
        } else if EMPTIED.contains(&&*name) {
            fs::create_dir(&target)?;
            fs::set_permissions(&target, fs::metadata(&entry)?.permissions())?;
            user.own(&target)?;
        } else {
            copy(&entry, &target, user)?;
        }
    }
    Ok(())
}
