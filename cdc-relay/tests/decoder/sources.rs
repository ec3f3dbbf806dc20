//! Where the plugin's messages come from.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use cdc_relay::wal::{Connection, Event, WalReader, WalWriter};
use chassis::{config::DatabaseUrl, postgres::Target};
use tokio::{process::Command, task::JoinHandle, time::timeout};
use tokio_postgres::{Client, types::PgLsn};
use tokio_util::sync::CancellationToken;

use crate::{account, rig::Rig};

const PUBLICATION: &str = "relay";

/// How often the server is asked how far it has come.
const ASK_PAUSE: Duration = Duration::from_millis(100);

const END_DEADLINE: Duration = Duration::from_secs(60);

pub async fn create_slot(sql: &Client, slot: &str) -> Result<()> {
    let statement = "SELECT pg_create_logical_replication_slot($1, 'pgoutput')";
    sql.execute(statement, &[&slot]).await?;
    Ok(())
}

async fn wal_end(sql: &Client) -> Result<PgLsn> {
    let flushed = "SELECT pg_current_wal_flush_lsn()";
    // Whatever follows makes the end of the last transaction known.
    sql.execute("SELECT pg_logical_emit_message(true, 'end', '')", &[])
        .await?;
    Ok(sql.query_one(flushed, &[]).await?.get(0))
}

fn options(streaming: bool) -> Vec<(&'static str, &'static str)> {
    let mut options = vec![("publication_names", PUBLICATION), ("binary", "true")];
    match streaming {
        true => options.extend([("proto_version", "2"), ("streaming", "on")]),
        false => options.push(("proto_version", "1")),
    }
    options
}

/// What the slot holds, by SQL; it stays there.
pub async fn by_sql(sql: &Client, slot: &str, streaming: bool) -> Result<Vec<Bytes>> {
    let options = options(streaming).into_iter();
    let options: Vec<&str> = options.flat_map(|(name, value)| [name, value]).collect();
    let query = "SELECT data FROM pg_logical_slot_peek_binary_changes($1, NULL, NULL, VARIADIC $2)";
    let rows = sql.query(query, &[&slot, &options]).await?;
    let message = |row: &tokio_postgres::Row| row.get::<_, Vec<u8>>(0).into();
    Ok(rows.iter().map(message).collect())
}

/// What `pg_recvlogical` writes of a copy of the slot; `None` where it is not installed.
pub async fn by_pg_recvlogical(
    rig: &Rig,
    sql: &Client,
    database: &str,
    slot: &str,
    streaming: bool,
) -> Result<Option<Vec<Bytes>>> {
    let program = rig.postgres.bin().join("pg_recvlogical");
    if !Path::new(&program).is_file() {
        return Ok(None);
    }
    let copy = format!("{slot}_{}", if streaming { 2 } else { 1 });
    let statement = "SELECT pg_copy_logical_replication_slot($1, $2)";
    sql.execute(statement, &[&slot, &copy]).await?;
    let mut command = Command::new(program);
    command
        .args(["--start", "--no-loop", "-f", "-", "-S", &copy])
        .args(["-d", &rig.postgres.url(database)])
        .arg(format!("--endpos={}", wal_end(sql).await?));
    for (name, value) in options(streaming) {
        command.arg("-o").arg(format!("{name}={value}"));
    }
    let output = timeout(END_DEADLINE, command.kill_on_drop(true).output()).await??;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "pg_recvlogical: {complaint}");
    account::split(&output.stdout).map(Some)
}

/// A walsender that sends while the transactions run.
pub struct Live {
    end: CancellationToken,
    reading: JoinHandle<Result<(WalReader, WalWriter, Vec<Bytes>)>>,
}

impl Live {
    pub async fn start(rig: &Rig, sql: &Client, database: &str) -> Result<Self> {
        let slot = format!("{database}_live");
        create_slot(sql, &slot).await?;
        let url: DatabaseUrl = rig
            .postgres
            .url(database)
            .parse()
            .map_err(anyhow::Error::msg)?;
        let config = Target::new(&url, "decoder");
        let connection = Connection::open(&config, Duration::from_secs(60)).await?;
        let (url, slot) = (rig.postgres.url(database), format!("--cdc-slot={slot}"));
        let publication = format!("--cdc-publication={PUBLICATION}");
        let flags = [
            "--cdc-stream=NONE",
            "--database-url",
            &url,
            &slot,
            &publication,
        ];
        let source = cdc_relay::config::Config::of(flags)?.source;
        let stream = connection.start_replication(&source, true).await?;
        let end = CancellationToken::new();
        let (mut reader, mut writer) = stream;
        let stop = end.clone();
        let reading = tokio::spawn(async move {
            let mut messages = Vec::new();
            loop {
                tokio::select! {
                    () = stop.cancelled() => return Ok((reader, writer, messages)),
                    event = reader.next() => {
                        if let Event::Data(message) = event? {
                            messages.push(message);
                        }
                    }
                }
                // Nothing is confirmed.
                writer.report(PgLsn::from(0), false).await?;
            }
        });
        Ok(Self { end, reading })
    }

    /// Everything up to now.
    pub async fn end(self, sql: &Client) -> Result<Vec<Bytes>> {
        let wal_end = wal_end(sql).await?;
        self.end.cancel();
        let (mut reader, mut writer, mut messages) = self.reading.await??;
        let rest = async {
            loop {
                writer.report(PgLsn::from(0), true).await?;
                while let Ok(event) = timeout(ASK_PAUSE, reader.next()).await {
                    match event? {
                        Event::Data(message) => messages.push(message),
                        Event::Keepalive { wal_end: sent, .. } if sent >= wal_end => {
                            return Ok::<_, anyhow::Error>(messages);
                        }
                        Event::Keepalive { .. } => {}
                    }
                }
            }
        };
        timeout(END_DEADLINE, rest)
            .await
            .context("the walsender does not come to the end")?
    }
}
