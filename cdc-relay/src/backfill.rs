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

use async_nats::{
    Client as Nats,
    jetstream::{
        self,
        consumer::{DeliverPolicy, pull::OrderedConfig},
    },
};
use chassis::postgres::Target;
use futures_util::StreamExt as _;
use mailbox::envelope::{self, Position};
use tokio_postgres::{Client, Transaction, types::ToSql};

mod rows;

use self::rows::Select;
use crate::{
    config::Config,
    error::{Error, Result},
    history,
    publish::{Appender, Limits},
    record::{self, Layout},
    slot::{self, Slot},
    stream::{Truth, read_truth},
    wal::{Connection, Snapshot, System},
    window::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX},
};

const DURING: &str = "publish what stood in the outbox before the slot";

const PRESENT: &str = "CREATE TEMPORARY TABLE present (id text PRIMARY KEY) ON COMMIT DROP";

const ADD_PRESENT: &str = "INSERT INTO present SELECT unnest($1::text[]) ON CONFLICT DO NOTHING";

const KEEP_SLOT: &str = "\
    SELECT pg_copy_logical_replication_slot(slot_name, $2::text::name, false) \
    FROM pg_replication_slots \
    WHERE slot_name = $1::text::name AND temporary AND confirmed_flush_lsn = $3";

/// Publishes the outbox's rows that the stream lacks, and creates the slot behind them.
///
/// # Errors
/// [`Error::Transient`] while another relay does the same.
pub async fn backfill(
    config: &Config,
    server: &Target,
    sql: &mut Client,
    nats: &Nats,
) -> Result<()> {
    let source = &config.source;
    let mut connection = Connection::open(server, source.wal_sender_timeout()).await?;
    let system = connection.identify_system().await?;
    let temporary = format!("{}_backfill", source.slot);
    // Its name is the lock: one relay copies at a time.
    let snapshot = match connection.create_temporary_slot(&temporary).await {
        Err(Error::AlreadyExists(_)) => {
            return Err(Error::Transient(format!(
                "{DURING}: another relay is at it"
            )));
        }
        created => created?,
    };
    // Another one may have been ready between the look and the lock.
    if slot::find(sql, &source.slot).await? == Slot::Ready {
        return Err(Error::SlotHeld(format!(
            "slot {} was just created",
            source.slot
        )));
    }
    tracing::info!(slot = source.slot, consistent_point = %snapshot.consistent_point, "there is no slot yet: publishing what stands in the outbox");
    let truth = read_truth(nats, &config.stream).await?;
    if let Some(last) = &truth.last {
        history::check(last, system, snapshot.consistent_point, &truth.stream)?;
    }
    let count = copy(config, system, &snapshot, sql, nats, &truth).await?;

    // Only this very slot: had the connection died, the name could be another relay's by now.
    let names: [&(dyn ToSql + Sync); 3] = [&temporary, &source.slot, &snapshot.consistent_point];
    let created = sql.query_opt(KEEP_SLOT, &names).await;
    let created = created.map_err(|e| Error::sql("create the replication slot", &e))?;
    if created.is_none() {
        return Err(Error::Transient(format!(
            "{DURING}: the temporary slot was lost"
        )));
    }
    tracing::info!(
        slot = source.slot,
        count,
        "the slot stands behind the outbox's rows"
    );
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

    let table = config.source.table.quoted();
    let layout = Layout::of(&config.columns, &config.message);
    let select = Select::of(&transaction, &config.source.table, &layout).await?;
    let (list, id) = (&select.list, &select.id);
    let query = format!(
        "SELECT {list} FROM {table} o WHERE NOT EXISTS (SELECT FROM present p WHERE p.id = {id}::text) \
         ORDER BY {id}"
    );
    let statement = transaction
        .prepare(&query)
        .await
        .map_err(|e| Error::sql(DURING, &e))?;
    let portal = transaction
        .bind(&statement, &[])
        .await
        .map_err(|e| Error::sql(DURING, &e))?;
    let rows_max = rows_at_a_time(&transaction, &table, &select.payload).await?;
    let mut appender = Appender::after(nats.clone(), truth);
    let limits = Limits::of(nats, truth);
    let mut count = 0;
    loop {
        let rows = transaction.query_portal(&portal, rows_max).await;
        let rows = rows.map_err(|e| Error::sql(DURING, &e))?;
        if rows.is_empty() {
            break;
        }
        let mut records = Vec::with_capacity(rows.len());
        for row in rows {
            let position = Position {
                system: system.id,
                timeline: system.timeline,
                // Before every commit that the slot will bring.
                lsn: u64::from(snapshot.consistent_point) - 1,
                index: u32::try_from(count).map_err(|_| too_many())?,
            };
            let record = select.record(&row, position, &layout);
            let checked = record.and_then(|record| limits.check(&record).map(|()| record));
            let record = checked.map_err(|why| {
                let id = row.try_get::<_, &str>(record::ID).unwrap_or("(NULL)");
                unpublishable(id, &why, config)
            })?;
            records.push(record);
            count += 1;
        }
        appender.append(records).await?;
    }
    transaction
        .commit()
        .await
        .map_err(|e| Error::sql(DURING, &e))?;
    Ok(count)
}

/// As many rows as surely fit in one append, whatever their size (I12).
async fn rows_at_a_time(transaction: &Transaction<'_>, table: &str, payload: &str) -> Result<i32> {
    let largest =
        format!("SELECT coalesce(max(octet_length({payload})), 0)::bigint FROM {table} o");
    let row = transaction.query_one(&largest, &[]).await;
    let largest: i64 = row
        .and_then(|row| row.try_get(0))
        .map_err(|e| Error::sql(DURING, &e))?;
    let largest = usize::try_from(largest).unwrap_or(usize::MAX).max(1);
    let rows = (BATCH_BYTES_MAX / largest).clamp(1, BATCH_RECORDS_MAX);
    Ok(i32::try_from(rows).unwrap_or(1))
}

/// Notes the ids of all events that the stream holds, in a table that ends with the transaction: the
/// relay's own memory stays small (I12).
async fn note_present(transaction: &Transaction<'_>, nats: &Nats, truth: &Truth) -> Result<()> {
    if truth.last.is_none() {
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
        let (mut ids, mut pending) = (Vec::with_capacity(chunk.len()), 0);
        for message in chunk {
            let message = message.map_err(|e| Error::transient(during, &e))?;
            let headers = message.headers.as_ref();
            let id = headers.and_then(|headers| headers.get(envelope::EVENT_ID));
            ids.extend(id.map(ToString::to_string));
            let info = message
                .info()
                .map_err(|e| Error::Transient(e.to_string()))?;
            pending = info.pending;
        }
        let added = transaction.execute(ADD_PRESENT, &[&ids]).await;
        added.map_err(|e| Error::sql(during, &e))?;
        if pending == 0 {
            break;
        }
    }
    Ok(())
}

fn unpublishable(id: &str, why: &str, config: &Config) -> Error {
    Error::Definite(format!(
        "event {id} in {} cannot be published: {why}. Or update or delete its row",
        config.source.table.quoted()
    ))
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
