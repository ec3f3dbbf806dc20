//! The first copy. Where there is no slot yet, rows may already stand in the outbox (a service was
//! started before its relay, or the slot was dropped), and the WAL will not bring them again.
//!
//! ```text
//! temporary slot ──exports──▶ snapshot ──▶ rows that the stream lacks ──▶ appended
//!       └─────────────────── copied to the lasting slot ◀── only after all of that
//! ```
//!
//! The lasting slot appears only once the copy is complete: a crash in between leaves nothing but a
//! stream that has some of the rows, which the next attempt finds there and leaves out (I5).

use std::collections::VecDeque;

use async_nats::{
    Client as Nats,
    jetstream::{
        self,
        consumer::{DeliverPolicy, pull::OrderedConfig},
    },
};
use futures_util::StreamExt as _;
use mailbox::envelope::{self, Position};
use tokio_postgres::{Client, Row, Transaction};

use crate::{
    config::Config,
    error::{Error, Result},
    publish::Appender,
    record::{Columns, Record},
    stream::{Truth, read_truth},
    wal::{Connection, Snapshot, System},
    window::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX},
};

const DURING: &str = "publish what stood in the outbox before the slot";

const PRESENT: &str = "CREATE TEMPORARY TABLE present (id text PRIMARY KEY) ON COMMIT DROP";

const ADD_PRESENT: &str = "INSERT INTO present SELECT unnest($1::text[]) ON CONFLICT DO NOTHING";

const PAYLOAD_AND_HEADERS: &str = "\
    SELECT coalesce(bool_or(attname = 'payload' AND atttypid = 'bytea'::regtype), false), \
           coalesce(bool_or(attname = 'headers'), false) \
    FROM pg_attribute WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped";

/// Publishes the outbox's rows that the stream lacks, and creates the slot behind them.
///
/// # Errors
/// [`Error::SlotHeld`] while another relay does the same.
pub async fn backfill(
    config: &Config,
    mut connection: Connection,
    system: System,
    sql: &mut Client,
    nats: &Nats,
) -> Result<()> {
    let slot = &config.source.slot;
    let temporary = format!("{slot}_backfill");
    let snapshot = match connection.create_temporary_slot(&temporary).await {
        // duplicate_object: another relay's copy is under way.
        Err(Error::Definite(text)) if text.contains("42710") => return Err(Error::SlotHeld(text)),
        created => created?,
    };
    tracing::info!(slot, consistent_point = %snapshot.consistent_point, "there is no slot yet: publishing what stands in the outbox");
    let truth = read_truth(nats, &config.stream).await?;
    let count = copy(config, system, &snapshot, sql, nats, &truth).await?;

    let create =
        "SELECT FROM pg_copy_logical_replication_slot($1::text::name, $2::text::name, false)";
    let created = sql.query_one(create, &[&temporary, slot]).await;
    created.map_err(|e| Error::sql("create the replication slot", &e))?;
    tracing::info!(slot, count, "the slot stands behind the outbox's rows");
    // The temporary slot ends with its connection.
    drop(connection);
    Ok(())
}

async fn copy(
    config: &Config,
    system: System,
    snapshot: &Snapshot,
    sql: &mut Client,
    nats: &Nats,
    truth: &Truth,
) -> Result<u64> {
    let begin = sql.build_transaction();
    let isolated = begin.isolation_level(tokio_postgres::IsolationLevel::RepeatableRead);
    let transaction = isolated.start().await.map_err(|e| Error::sql(DURING, &e))?;
    let set = format!("SET TRANSACTION SNAPSHOT '{}'", snapshot.name);
    execute(&transaction, &set).await?;
    execute(&transaction, PRESENT).await?;
    note_present(&transaction, nats, truth).await?;

    let query = missing_rows(&transaction, config).await?;
    let statement = transaction
        .prepare(&query)
        .await
        .map_err(|e| Error::sql(DURING, &e))?;
    let portal = transaction
        .bind(&statement, &[])
        .await
        .map_err(|e| Error::sql(DURING, &e))?;
    let mut appender = Appender::after(nats.clone(), truth);
    let mut count = 0;
    loop {
        let rows = transaction.query_portal(&portal, ROWS_MAX).await;
        let rows = rows.map_err(|e| Error::sql(DURING, &e))?;
        if rows.is_empty() {
            break;
        }
        let mut records = VecDeque::with_capacity(rows.len());
        for row in &rows {
            let position = Position {
                system: system.id,
                timeline: system.timeline,
                // Before every commit that the slot will bring.
                lsn: u64::from(snapshot.consistent_point) - 1,
                index: u32::try_from(count).map_err(|_| too_many())?,
            };
            records.push_back(record(row, position, config)?);
            count += 1;
        }
        while !records.is_empty() {
            appender.append(next_batch(&mut records)).await?;
        }
    }
    transaction
        .commit()
        .await
        .map_err(|e| Error::sql(DURING, &e))?;
    Ok(count)
}

/// Rows asked of Postgres at a time.
const ROWS_MAX: i32 = 500;
const _: () = assert!(ROWS_MAX as usize <= BATCH_RECORDS_MAX);

fn next_batch(records: &mut VecDeque<Record>) -> Vec<Record> {
    let mut bytes = 0;
    let fits = |record: &&Record| {
        bytes += record.bytes();
        bytes <= BATCH_BYTES_MAX
    };
    let count = records.iter().take_while(fits).count().max(1);
    records.drain(..count).collect()
}

/// Notes the ids of all events that the stream holds, in a table that ends with the transaction: the
/// relay's own memory stays small (I12).
async fn note_present(transaction: &Transaction<'_>, nats: &Nats, truth: &Truth) -> Result<()> {
    if truth.last_position.is_none() {
        return Ok(());
    }
    let jetstream = jetstream::new(nats.clone());
    let during = "read the stream's events";
    let stream = jetstream.get_stream(&truth.stream).await;
    let stream = stream.map_err(|e| Error::transient(during, &e))?;
    let config = OrderedConfig {
        deliver_policy: DeliverPolicy::All,
        headers_only: true,
        ..OrderedConfig::default()
    };
    let consumer = stream.create_consumer(config).await;
    let consumer = consumer.map_err(|e| Error::transient(during, &e))?;
    let messages = consumer
        .messages()
        .await
        .map_err(|e| Error::transient(during, &e))?;
    let mut chunks = messages.ready_chunks(BATCH_RECORDS_MAX);
    while let Some(chunk) = chunks.next().await {
        let (mut ids, mut last) = (Vec::with_capacity(chunk.len()), 0);
        for message in chunk {
            let message = message.map_err(|e| Error::transient(during, &e))?;
            let headers = message.headers.as_ref();
            let id = headers.and_then(|headers| headers.get(envelope::EVENT_ID));
            ids.extend(id.map(ToString::to_string));
            last = message
                .info()
                .map_err(|e| Error::Transient(e.to_string()))?
                .stream_sequence;
        }
        let added = transaction.execute(ADD_PRESENT, &[&ids]).await;
        added.map_err(|e| Error::sql(during, &e))?;
        if last >= truth.last_sequence {
            break;
        }
    }
    Ok(())
}

async fn missing_rows(transaction: &Transaction<'_>, config: &Config) -> Result<String> {
    let table = config.source.table.quoted();
    let row = transaction.query_one(PAYLOAD_AND_HEADERS, &[&table]).await;
    let row = row.map_err(|e| Error::sql(DURING, &e))?;
    let flag = |at: usize| {
        row.try_get::<_, bool>(at)
            .map_err(|e| Error::sql(DURING, &e))
    };
    let payload = if flag(0)? {
        "payload"
    } else {
        "convert_to(payload::text, 'UTF8')"
    };
    let headers = if flag(1)? {
        "headers::jsonb"
    } else {
        "NULL::jsonb"
    };
    Ok(format!(
        "SELECT id::text, aggregatetype::text, aggregateid::text, type::text, {payload}, {headers} \
         FROM {table} o WHERE NOT EXISTS (SELECT FROM present p WHERE p.id = o.id::text) \
         ORDER BY o.id"
    ))
}

fn record(row: &Row, position: Position, config: &Config) -> Result<Record> {
    let text = |at: usize| row.try_get::<_, &str>(at).map_err(|e| unreadable(row, &e));
    let columns = Columns {
        id: text(0)?,
        aggregate_type: text(1)?,
        aggregate_id: text(2)?,
        event_type: text(3)?,
    };
    let payload: &[u8] = row.try_get(4).map_err(|e| unreadable(row, &e))?;
    let headers: Option<serde_json::Value> = row.try_get(5).map_err(|e| unreadable(row, &e))?;
    let extra = headers.map(crate::record::headers_of).unwrap_or_default();
    let payload = payload.to_vec().into();
    Record::new(&columns, payload, &extra, position, &config.subject)
        .map_err(|e| Error::Definite(format!("event {}: {e}", columns.id)))
}

fn unreadable(row: &Row, error: &tokio_postgres::Error) -> Error {
    let id = row.try_get::<_, &str>(0).unwrap_or("(NULL)");
    Error::Definite(format!("event {id} cannot be published: {error}"))
}

fn too_many() -> Error {
    Error::definite("the outbox holds more than 4 billion rows: prune it first")
}

async fn execute(transaction: &Transaction<'_>, sql: &str) -> Result<()> {
    transaction
        .batch_execute(sql)
        .await
        .map_err(|e| Error::sql(DURING, &e))
}
