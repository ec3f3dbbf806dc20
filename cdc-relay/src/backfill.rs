//! Publishes what the stream lacks, and makes the slot behind it. Where there is no slot yet, rows may
//! already stand in the outbox (a service was started before its relay), and the WAL will not bring
//! them again; so it is too where slot, server or stream are not what they were (`heal.rs`).
//!
//! ```text
//! temporary slot ──exports──▶ snapshot ──▶ rows that the stream lacks ──▶ appended
//!       └─────────────────── copied to the lasting slot ◀── only after all of that
//! ```
//!
//! The lasting slot appears only once the copy is complete: a crash in between leaves nothing but a
//! stream that has some of the rows, which the next attempt finds there and leaves out (I5).

use async_nats::Client as Nats;
use chassis::postgres::Target;
use mailbox::envelope::Position;
use metrics::counter;
use tokio_postgres::{Client, Portal, Transaction, types::ToSql};

mod rows;
mod twins;

use self::rows::Select;
use crate::{
    config::Config,
    error::{Error, Result},
    heal::{
        Cause,
        compare::{self, Outbox},
        consumers,
        floor::Removed,
        mark,
    },
    history::History,
    publish::{Acknowledged, Appender, Limits},
    quarantine::{Claimed, Desk, Maker},
    record::{self, Layout},
    slot::{self, Slot},
    stream::{Missing, Truth, read_truth},
    wal::{Connection, Snapshot, System},
    window::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX, Batch},
};

const DURING: &str = "publish what stood in the outbox before the slot";

const KEEP_SLOT: &str = "\
    SELECT pg_copy_logical_replication_slot(slot_name, $2::text::name, false) \
    FROM pg_replication_slots \
    WHERE slot_name = $1::text::name AND temporary AND confirmed_flush_lsn = $3";

/// Why it is done, and what somebody has said about it.
#[derive(Clone, Copy, Debug)]
pub struct Order<'a> {
    pub cause: &'a Cause,
    /// Only rows with greater ids are missing.
    pub after: Option<&'a str>,
    /// This server is the primary, whatever the stream has seen.
    pub is_trusted: bool,
    /// The last attempt was refused, and it is not known which of its records is the cause.
    pub is_careful: bool,
}

impl<'a> Order<'a> {
    /// The relay's own.
    pub fn of(cause: &'a Cause) -> Self {
        Self {
            cause,
            after: None,
            is_trusted: false,
            is_careful: false,
        }
    }
}

/// What was done.
#[derive(Debug)]
pub struct Done {
    pub count: u64,
    pub last: Option<Acknowledged>,
    /// Of the stream.
    pub created_ns: i128,
}

/// Publishes the outbox's rows that the stream lacks, and creates the slot behind them.
///
/// # Errors
/// [`Error::Transient`] while another relay does the same.
pub async fn backfill(
    config: &Config,
    server: &Target,
    sql: &mut Client,
    nats: &Nats,
    order: Order<'_>,
) -> Result<Done> {
    let cause = order.cause;
    let source = &config.source;
    let mut connection = Connection::open(server, source.wal_sender_timeout()).await?;
    let system = connection.identify_system().await?;
    let ancestors = connection.ancestors(system.timeline).await?;
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
    if slot::find(sql, &source.slot).await? != Slot::Missing {
        return Err(Error::SlotHeld(format!(
            "slot {} was just created",
            source.slot
        )));
    }
    tracing::info!(slot = source.slot, consistent_point = %snapshot.consistent_point, %cause, "publishing what the stream lacks from the table");
    let claimed = Claimed::claim(nats, config.stream.quarantine().as_ref()).await?;
    let mut truth = read_truth(nats, &config.stream, Missing::Create).await?;
    if let Some(after) = order.after {
        truth.removed = Removed::UpToId(after.to_owned());
    }
    consumers::set_back(nats, &truth.stream).await?;
    let history = History {
        system,
        ancestors,
        wal_end: snapshot.consistent_point,
        is_trusted: order.is_trusted,
    };
    let other_history = of_another(&history, &truth)?;
    let cause = other_history.as_ref().unwrap_or(cause);
    let layout = Layout::of(&config.columns, &config.message);
    let maker = Maker {
        source,
        layout: &layout,
        limits: Limits::of(nats, &truth),
        system,
    };
    let mut desk = Desk::open(claimed, maker, &truth, snapshot.consistent_point).await?;
    let order = Order { cause, ..order };
    let copied = copy(config, &snapshot, sql, nats, &truth, (order, &mut desk)).await;
    let (count, last) = copied?;
    desk.begin_anew().await?;
    if last.is_none() && other_history.is_some() {
        let position = behind(system, &snapshot, 0)?;
        mark::write(nats, &truth.stream, truth.last_sequence, position).await?;
    }
    keep_slot(config, sql, &temporary, &snapshot).await?;
    // The temporary slot ends with its connection.
    drop(connection);
    if *cause != Cause::NoSlot || truth.last.is_some() {
        counter!("cdc_relay_healed_total").increment(count);
        tracing::warn!(slot = source.slot, count, %cause, limits = cause.limits(), "healed: the stream holds again what the table holds");
    }
    tracing::info!(
        slot = source.slot,
        count,
        "the slot stands behind the outbox's rows"
    );
    Ok(Done {
        count,
        last,
        created_ns: truth.created_ns,
    })
}

/// Why the stream's last event is not in this server's WAL, if it is not.
fn of_another(history: &History, truth: &Truth) -> Result<Option<Cause>> {
    let checked = truth
        .last
        .as_ref()
        .map(|last| history.check(last, &truth.stream));
    match checked {
        None | Some(Ok(())) => Ok(None),
        Some(Err(Error::Heal(cause))) => Ok(Some(cause)),
        Some(Err(error)) => Err(error),
    }
}

/// Copies the temporary slot to the lasting one, which is the mark that all is done.
async fn keep_slot(
    config: &Config,
    sql: &Client,
    temporary: &str,
    snapshot: &Snapshot,
) -> Result<()> {
    let source = &config.source;
    // Only this very slot: had the connection died, the name could be another relay's by now.
    let names: [&(dyn ToSql + Sync); 3] = [&temporary, &source.slot, &snapshot.consistent_point];
    let created = sql.query_opt(KEEP_SLOT, &names).await;
    let created = created.map_err(|e| Error::sql("create the replication slot", &e))?;
    if created.is_none() {
        return Err(Error::Transient(format!(
            "{DURING}: the temporary slot was lost"
        )));
    }
    Ok(())
}

/// A place before every commit that the slot will bring.
fn behind(system: System, snapshot: &Snapshot, index: u64) -> Result<Position> {
    Ok(Position {
        system: system.id,
        timeline: system.timeline,
        lsn: u64::from(snapshot.consistent_point) - 1,
        index: u32::try_from(index).map_err(|_| too_many())?,
    })
}

async fn copy(
    config: &Config,
    snapshot: &Snapshot,
    sql: &mut Client,
    nats: &Nats,
    truth: &Truth,
    (order, desk): (Order<'_>, &mut Desk<'_>),
) -> Result<(u64, Option<Acknowledged>)> {
    if config.source.message_prefix.is_some() {
        tracing::warn!(slot = config.source.slot, consistent_point = %snapshot.consistent_point, "messages from before this point that no slot has kept are lost: no table holds them");
        return Ok((0, None));
    }
    let begin = sql.build_transaction();
    let isolated = begin.isolation_level(tokio_postgres::IsolationLevel::RepeatableRead);
    let transaction = isolated.start().await.map_err(|e| Error::sql(DURING, &e))?;
    let set = format!("SET TRANSACTION SNAPSHOT '{}'", snapshot.name);
    execute(&transaction, &set).await?;
    compare::note_present(&transaction, nats, &config.stream, truth.messages).await?;

    let table = config.source.table.quoted();
    let layout = desk.layout();
    let select = Select::of(&transaction, &config.source.table, layout).await?;
    let outbox = Outbox {
        table: &table,
        id: &select.id,
    };
    if truth.messages > 0 {
        tell_phantoms(&transaction, &outbox, order.cause).await?;
    }
    let missing = compare::missing(&transaction, &outbox, &truth.removed).await?;
    twins::refuse(&transaction, &outbox, &missing).await?;
    let query = format!(
        "SELECT {} FROM {table} o WHERE {missing} ORDER BY {}",
        select.list, select.id
    );
    let portal = portal(&transaction, &query).await?;
    let rows_max = rows_at_a_time(&transaction, &table, &select.payload).await?;
    let mut appender = Appender::after(nats.clone(), truth);
    if order.is_careful {
        appender.be_careful();
    }
    let limits = Limits::of(nats, truth);
    let mut count = 0;
    loop {
        let rows = transaction.query_portal(&portal, rows_max).await;
        let rows = rows.map_err(|e| Error::sql(DURING, &e))?;
        if rows.is_empty() {
            break;
        }
        let mut batch = Batch::default();
        for row in rows {
            let position = behind(desk.system(), snapshot, count)?;
            let record = select.record(&row, position, layout);
            match record.and_then(|record| limits.check(&record).map(|()| record)) {
                Ok(record) => batch.records.push(record),
                Err(why) => {
                    if let Err(stops) = desk.is_available() {
                        let id = row.try_get::<_, &str>(record::ID).unwrap_or("(NULL)");
                        return Err(unpublishable(id, &why, stops, config));
                    }
                    let item = select.item(&row, &why, position, layout);
                    batch.offenders.push((batch.records.len(), Box::new(item)));
                }
            }
            count += 1;
        }
        desk.settle(&mut batch, appender.last_sequence()).await?;
        appender.append(batch.records).await?;
    }
    transaction
        .commit()
        .await
        .map_err(|e| Error::sql(DURING, &e))?;
    Ok((count, appender.last_acknowledged().cloned()))
}

/// The query's rows, to be fetched some at a time.
async fn portal(transaction: &Transaction<'_>, query: &str) -> Result<Portal> {
    let statement = transaction.prepare(query).await;
    let statement = statement.map_err(|e| Error::sql(DURING, &e))?;
    let portal = transaction.bind(&statement, &[]).await;
    portal.map_err(|e| Error::sql(DURING, &e))
}

/// Says which events the stream holds and the database does not: nothing can be done about them here.
async fn tell_phantoms(
    transaction: &Transaction<'_>,
    outbox: &Outbox<'_>,
    cause: &Cause,
) -> Result<()> {
    let Some(phantoms) = compare::phantoms(transaction, outbox).await? else {
        return Ok(());
    };
    let (count, from_sequence) = (phantoms.count, phantoms.from_sequence);
    // The newest rows are gone and older ones are not: nobody prunes like that.
    if phantoms.behind_known || matches!(cause, Cause::OtherHistory(_)) {
        tracing::error!(
            count,
            from_sequence,
            "the stream holds events that the database no longer has: they were published before it lost \
             them, and consumers may have acted on them. They stay in the stream"
        );
    } else {
        tracing::info!(
            count,
            from_sequence,
            "the events at the end of the stream have no row in the table: rows are deleted soon after they \
             are written, or the database was restored to an earlier point"
        );
    }
    Ok(())
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

fn unpublishable(id: &str, why: &str, stops: &str, config: &Config) -> Error {
    Error::Definite(format!(
        "event {id} in {} cannot be published: {why}. Or update or delete its row. Nor can it be set \
         aside: {stops}",
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
