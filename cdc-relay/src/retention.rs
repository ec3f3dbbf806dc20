//! Removes from the table what is old and published: whole partitions, or rows in small batches.
//!
//! ```text
//! nobody writes the partition, or a snapshot is taken ─▶ W: all that is seen was committed before
//!     └── once the slot is confirmed past W, what was seen is in the stream, and may go
//! ```
//!
//! The danger: a row that is old by its id can be committed late, and be on its way yet. So age alone
//! removes nothing. And what a stream has lost stands nowhere but here (I11): nothing goes before the stream
//! was verified, nor while NATS is away, which may come back with less than it had acknowledged.
//! Locks are asked for with a short time-out: who writes events does not wait for this.

pub mod enough;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_nats::Client as Nats;
use metrics::counter;
use tokio::time::sleep;
use tokio_postgres::{Client, IsolationLevel, Transaction};

use crate::{
    background::is_connected,
    config::Config,
    error::{Error, Result},
    heal::{floor::least_uuid, verify::passed},
    primary,
    wal::{literal, quote},
};

const DURING: &str = "remove old rows from the table";

/// Between rounds.
const PAUSE: Duration = Duration::from_secs(60);

/// Rows in one transaction.
const ROWS_MAX: u64 = 1000;

/// How long a batch may wait for the relay: it holds a snapshot, or keeps writers from an old partition.
const CONFIRM_WAIT: Duration = Duration::from_secs(10);

/// Longer than this nobody who writes the table waits for its locks.
const LOCKS: &str = "SET LOCAL lock_timeout = '200ms'";

const PARTITIONS: &str = "\
    SELECT c.oid::regclass::text, pg_get_expr(c.relpartbound, c.oid), pg_get_partkeydef(i.inhparent) \
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid \
    WHERE i.inhparent = $1::text::regclass AND c.relkind = 'r' ORDER BY 1";

const IS_PAST: &str = "SELECT $1::text::timestamptz <= now() - make_interval(secs => $2)";

/// Removes what is older than so many seconds, as long as a session has this connection to NATS.
#[derive(Debug)]
pub struct Retention {
    pub config: Config,
    pub seconds: u64,
    pub nats: Nats,
    pub connection: u64,
}

impl Retention {
    /// Removes, round after round, until it is dropped.
    pub async fn run(self) {
        let mut told = String::new();
        loop {
            if let Err(error) = self.round().await {
                let text = error.to_string();
                // Once for each reason: a right may be missing for days.
                if text != told {
                    tracing::warn!(%error, "old rows stay in the table; publishing goes on");
                    told = text;
                }
            }
            sleep(PAUSE).await;
        }
    }

    async fn round(&self) -> Result<()> {
        let Self {
            config, seconds, ..
        } = self;
        self.connected()?;
        let (_, mut sql) = primary::connect(&config.source.database_url).await?;
        let table = config.source.table.quoted();
        let partitions = sql.query(PARTITIONS, &[&table]).await;
        let partitions = partitions.map_err(|e| Error::sql(DURING, &e))?;
        if partitions.is_empty() {
            return self.delete(&mut sql, &table).await;
        }
        for row in &partitions {
            let text = |at: usize| {
                row.try_get::<_, String>(at)
                    .map_err(|e| Error::sql(DURING, &e))
            };
            let (partition, bound, key) = (text(0)?, text(1)?, text(2)?);
            if bound == "DEFAULT" {
                self.delete(&mut sql, &partition).await?;
            } else if is_past(config, &sql, &bound, &key, *seconds).await? {
                self.connected()?;
                drop_partition(config, &mut sql, &partition).await?;
            }
        }
        Ok(())
    }

    /// # Errors
    /// NATS is away, or was: nobody knows yet what it comes back with.
    fn connected(&self) -> Result<()> {
        match is_connected(&self.nats, self.connection) {
            true => Ok(()),
            false => Err(Error::Transient(format!(
                "{DURING}: NATS is away, and may have lost what only the table has then"
            ))),
        }
    }

    /// Deletes old rows, batch by batch. The transaction sees only what was committed before it waited.
    async fn delete(&self, sql: &mut Client, table: &str) -> Result<()> {
        let Self {
            config, seconds, ..
        } = self;
        let old = match &config.retention.column {
            Some(column) => format!(
                "o.{} < now() - make_interval(secs => {seconds})",
                quote(column)
            ),
            None => {
                let (id, least) = (quote(&config.columns.id), least_uuid(cutoff_ms(*seconds)));
                format!("o.{id} < '{least}' AND o.{id}::text ~ '^[0-9a-f]{{8}}-[0-9a-f]{{4}}-7'")
            }
        };
        let batch = format!(
            "DELETE FROM {table} WHERE ctid = ANY (ARRAY(SELECT o.ctid FROM {table} o WHERE {old} LIMIT {ROWS_MAX}))"
        );
        let any = format!("SELECT EXISTS (SELECT FROM {table} o WHERE {old})");
        loop {
            let row = sql.query_one(&any, &[]).await;
            let found: bool = row
                .and_then(|row| row.try_get(0))
                .map_err(|e| Error::sql(DURING, &e))?;
            if !found {
                return Ok(());
            }
            self.connected()?;
            let begin = sql
                .build_transaction()
                .isolation_level(IsolationLevel::RepeatableRead);
            let transaction = begin.start().await.map_err(|e| Error::sql(DURING, &e))?;
            if !passed(&transaction, &config.source.slot, CONFIRM_WAIT).await? {
                return Ok(());
            }
            execute(&transaction, LOCKS, config).await?;
            let deleted = transaction.execute(&batch, &[]).await;
            let deleted = deleted.map_err(|e| refused(Error::sql(DURING, &e), config))?;
            transaction
                .commit()
                .await
                .map_err(|e| Error::sql(DURING, &e))?;
            counter!("cdc_relay_retired_rows_total").increment(deleted);
            if deleted < ROWS_MAX {
                return Ok(());
            }
        }
    }
}

/// Whether everything that the partition can hold is old.
async fn is_past(
    config: &Config,
    sql: &Client,
    bound: &str,
    key: &str,
    seconds: u64,
) -> Result<bool> {
    let by = |column: &str| {
        let name = key
            .strip_prefix("RANGE (")
            .and_then(|rest| rest.strip_suffix(')'));
        name == Some(column) || name == Some(&quote(column))
    };
    let Some(upper) = bound
        .split_once(" TO ('")
        .and_then(|(_, rest)| rest.strip_suffix("')"))
    else {
        return Ok(false);
    };
    match &config.retention.column {
        Some(column) if by(column) => {
            let row = sql.query_one(IS_PAST, &[&upper, &(seconds as f64)]).await;
            row.and_then(|row| row.try_get(0))
                .map_err(|e| Error::sql(DURING, &e))
        }
        _ if by(&config.columns.id) => Ok(upper <= least_uuid(cutoff_ms(seconds)).as_str()),
        _ => Err(Error::Definite(format!(
            "{DURING}: {} is partitioned by {key}, not by range of its id or of CDC_RETENTION_COLUMN",
            config.source.table.quoted()
        ))),
    }
}

/// Drops a partition once all that it holds is in the stream. Meanwhile it can be read and not written.
async fn drop_partition(config: &Config, sql: &mut Client, partition: &str) -> Result<()> {
    let transaction = sql
        .transaction()
        .await
        .map_err(|e| Error::sql(DURING, &e))?;
    execute(&transaction, LOCKS, config).await?;
    let as_owner = |is_published| as_owner(config, partition, is_published);
    let lock = as_owner(false).unwrap_or_else(|| format!("LOCK TABLE {partition} IN SHARE MODE"));
    execute(&transaction, &lock, config).await?;
    if !passed(&transaction, &config.source.slot, CONFIRM_WAIT).await? {
        return Ok(());
    }
    let drop = as_owner(true).unwrap_or_else(|| format!("DROP TABLE {partition}"));
    execute(&transaction, &drop, config).await?;
    transaction
        .commit()
        .await
        .map_err(|e| Error::sql(DURING, &e))?;
    counter!("cdc_relay_retired_partitions_total").increment(1);
    tracing::info!(partition, "dropped a partition that is old and published");
    Ok(())
}

/// The call by which the partition's owner locks it, and drops it when it is published.
fn as_owner(config: &Config, partition: &str, is_published: bool) -> Option<String> {
    let function = config.retention.function.as_ref()?.quoted();
    let partition = literal(partition);
    Some(format!(
        "SELECT {function}({partition}::regclass, {is_published})"
    ))
}

async fn execute(transaction: &Transaction<'_>, statement: &str, config: &Config) -> Result<()> {
    let done = transaction.batch_execute(statement).await;
    done.map_err(|e| refused(Error::sql(DURING, &e), config))
}

/// A missing right, with its mend.
fn refused(error: Error, config: &Config) -> Error {
    match error {
        Error::Definite(text) => Error::Definite(format!(
            "{text}. The relay's user needs DELETE on {}, or where partitions are dropped owns them or \
             calls CDC_RETENTION_FUNCTION; or leave CDC_RETENTION_SECONDS out",
            config.source.table.quoted()
        )),
        error => error,
    }
}

fn cutoff_ms(seconds: u64) -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let cutoff = now.saturating_sub(Duration::from_secs(seconds));
    u64::try_from(cutoff.as_millis()).unwrap_or(0)
}
