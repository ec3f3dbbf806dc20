//! Whether the stream still holds all that the relay has confirmed: looked at once in each process, when
//! it comes to stream, because nobody remembers what was lost while no relay ran (I11).
//!
//! ```text
//! snapshot of the table ─▶ W: all that is visible in it was committed before
//!    └── once the slot is confirmed past W, each of its rows is in the stream, or is missing
//! ```
//!
//! It reads the ids of the whole stream into a temporary table, off the data path, and changes nothing.

use std::time::Duration;

use async_nats::Client as Nats;
use tokio::time::{Instant, sleep};
use tokio_postgres::{IsolationLevel, Transaction, types::PgLsn};

use super::{Cause, compare, compare::Outbox, floor::Removed};
use crate::{
    config::Config,
    error::{Error, Result},
    primary,
    stream::{Missing, read_truth},
    wal::quote,
};

const DURING: &str = "verify the stream";

/// In the transaction's first statement: the position is read after the snapshot was taken.
const POSITION: &str = "SELECT pg_current_wal_insert_lsn()";

const CONFIRMED: &str = "\
    SELECT coalesce(bool_or(confirmed_flush_lsn >= $2), false) FROM pg_replication_slots WHERE slot_name = $1";

/// How long a snapshot may wait for the relay to come past it: it holds back vacuum.
const SNAPSHOT_HOLD_MAX: Duration = Duration::from_secs(60);

/// How often the slot's confirmed position is looked at meanwhile.
const CONFIRMED_CHECK: Duration = Duration::from_millis(250);

/// After an attempt that came to nothing.
const RETRY_PAUSE: Duration = Duration::from_secs(30);

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Complete,
    /// Rows that the stream lacks, and the least id among them.
    Missing {
        count: i64,
        first: String,
    },
    /// It cannot be told; says why.
    Unclear(String),
}

/// Waits until the relay has caught up, and compares.
pub async fn verify(config: &Config, nats: &Nats) -> Verdict {
    loop {
        match attempt(config, nats).await {
            Ok(Some(verdict)) => return verdict,
            Ok(None) => tracing::debug!("the relay has not caught up; verifying the stream later"),
            Err(Error::Definite(why)) => return Verdict::Unclear(why),
            Err(error) => tracing::debug!(%error, "verifying the stream later"),
        }
        sleep(RETRY_PAUSE).await;
    }
}

async fn attempt(config: &Config, nats: &Nats) -> Result<Option<Verdict>> {
    let (_, mut sql) = primary::connect(&config.source.database_url).await?;
    let begin = sql
        .build_transaction()
        .isolation_level(IsolationLevel::RepeatableRead);
    let transaction = begin.start().await.map_err(|e| Error::sql(DURING, &e))?;
    if !passed(&transaction, &config.source.slot, SNAPSHOT_HOLD_MAX).await? {
        return Ok(None);
    }
    compare(config, nats, &transaction).await.map(Some)
}

/// Takes the transaction's snapshot, and waits until all that is visible in it is confirmed.
pub async fn passed(transaction: &Transaction<'_>, slot: &str, hold: Duration) -> Result<bool> {
    let row = transaction.query_one(POSITION, &[]).await;
    let position: PgLsn = row
        .and_then(|row| row.try_get(0))
        .map_err(|e| Error::sql(DURING, &e))?;
    let deadline = Instant::now() + hold;
    while Instant::now() < deadline {
        let row = transaction.query_one(CONFIRMED, &[&slot, &position]).await;
        if row
            .and_then(|row| row.try_get(0))
            .map_err(|e| Error::sql(DURING, &e))?
        {
            return Ok(true);
        }
        sleep(CONFIRMED_CHECK).await;
    }
    Ok(false)
}

/// The table, as the transaction sees it, against the stream.
pub async fn compare(
    config: &Config,
    nats: &Nats,
    transaction: &Transaction<'_>,
) -> Result<Verdict> {
    let truth = read_truth(nats, &config.stream, Missing::Heal).await?;
    compare::note_present(transaction, nats, &config.stream, &truth).await?;
    let table = config.source.table.quoted();
    let id = format!("o.{}", quote(&config.columns.id));
    let outbox = Outbox {
        table: &table,
        id: &id,
    };
    count(transaction, &outbox, &truth.removed).await
}

/// How many rows are missing, once it is noted what is present.
pub async fn count(
    transaction: &Transaction<'_>,
    outbox: &Outbox<'_>,
    removed: &Removed,
) -> Result<Verdict> {
    let missing = compare::missing(transaction, outbox, removed).await?;
    let Outbox { table, id } = outbox;
    // A row without an id is in quarantine, where it cannot be told by it.
    let query = format!(
        "SELECT count(*), coalesce(min({id}::text), '') FROM {table} o WHERE {id} IS NOT NULL AND {missing}"
    );
    let row = transaction.query_one(&query, &[]).await;
    let row = row.map_err(|e| Error::sql(DURING, &e))?;
    let count = row.try_get(0).map_err(|e| Error::sql(DURING, &e))?;
    let first = row.try_get(1).map_err(|e| Error::sql(DURING, &e))?;
    Ok(match count {
        0 => Verdict::Complete,
        count => Verdict::Missing { count, first },
    })
}

impl Verdict {
    /// What is to be mended, if anything.
    pub fn cause(&self, stream: &str) -> Option<Cause> {
        let Self::Missing { count, first } = self else {
            return None;
        };
        Some(Cause::LostTail(format!(
            "stream {stream} lacks {count} rows of the table that were published to it, the first of them \
             {first}: JetStream lost them, or somebody deleted them"
        )))
    }
}
