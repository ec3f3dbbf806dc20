//! The rows of a snapshot that the stream lacks, from the table to the stream.

use async_nats::Client as Nats;
use mailbox::envelope::{self, Position};
use tokio_postgres::{Client, IsolationLevel, Portal, Transaction, types::PgLsn};

use super::{DURING, Order, rows::Select, twins};
use crate::{
    config::Config,
    error::{Error, Result},
    heal::{
        Cause,
        compare::{self, Outbox},
    },
    history::Stored,
    publish::{Acknowledged, Appender, Limits},
    quarantine::Desk,
    record,
    stream::Truth,
    wal::{Connection, Snapshot, System},
    window::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX, Batch},
};

/// What is copied, and where the WAL is to be resumed after it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Copy<'a> {
    pub(super) config: &'a Config,
    pub(super) nats: &'a Nats,
    pub(super) truth: &'a Truth,
    pub(super) order: Order<'a>,
    /// The slot will bring no commit before this.
    pub(super) slot_begins: PgLsn,
    /// For the rows to say, where that is not their own position.
    pub(super) resume: Option<&'a Stored>,
}

/// Exports a snapshot by a slot that ends with the connection. Its name is the lock: one relay copies at
/// a time.
pub(super) async fn export(connection: &mut Connection, temporary: &str) -> Result<Snapshot> {
    match connection.create_temporary_slot(temporary).await {
        Err(Error::AlreadyExists(_)) => Err(Error::Transient(format!(
            "{DURING}: another relay is at it"
        ))),
        created => created,
    }
}

/// A transaction that sees what the snapshot does.
pub(super) async fn begin<'a>(sql: &'a mut Client, snapshot: &Snapshot) -> Result<Transaction<'a>> {
    let begin = sql.build_transaction();
    let isolated = begin.isolation_level(IsolationLevel::RepeatableRead);
    let transaction = isolated.start().await.map_err(|e| Error::sql(DURING, &e))?;
    let set = format!("SET TRANSACTION SNAPSHOT '{}'", snapshot.name);
    let set = transaction.batch_execute(&set).await;
    set.map_err(|e| Error::sql(DURING, &e))?;
    Ok(transaction)
}

/// A place before every commit that the slot will bring.
pub(super) fn behind(system: System, slot_begins: PgLsn, index: u64) -> Result<Position> {
    Ok(Position {
        system: system.id,
        timeline: system.timeline,
        lsn: u64::from(slot_begins) - 1,
        index: u32::try_from(index).map_err(|_| too_many())?,
    })
}

/// Publishes the rows that are not noted as present.
pub(super) async fn copy(
    transaction: &Transaction<'_>,
    given: Copy<'_>,
    desk: &mut Desk<'_>,
) -> Result<(u64, Option<Acknowledged>)> {
    let Copy { config, truth, .. } = given;
    let table = config.source.table.quoted();
    let layout = desk.layout();
    let select = Select::of(transaction, &config.source.table, layout).await?;
    let outbox = Outbox {
        table: &table,
        id: &select.id,
    };
    if truth.messages > 0 {
        tell_phantoms(transaction, &outbox, given.order.cause).await?;
    }
    let missing = compare::missing(transaction, &outbox, &truth.removed).await?;
    twins::refuse(transaction, &outbox, &missing).await?;
    let query = format!(
        "SELECT {} FROM {table} o WHERE {missing} ORDER BY {}",
        select.list, select.id
    );
    let portal = portal(transaction, &query).await?;
    let rows_max = rows_at_a_time(transaction, &table, &select.payload).await?;
    let mut appender = Appender::after(given.nats.clone(), truth);
    if given.order.is_careful {
        appender.be_careful();
    }
    let limits = Limits::of(given.nats, truth);
    let mut count = 0;
    loop {
        let rows = transaction.query_portal(&portal, rows_max).await;
        let rows = rows.map_err(|e| Error::sql(DURING, &e))?;
        if rows.is_empty() {
            break;
        }
        let mut batch = Batch::default();
        for row in rows {
            let position = behind(desk.system(), given.slot_begins, count)?;
            let record = select.record(&row, position, layout).map(|mut record| {
                if let Some(resume) = given.resume {
                    record.headers.push_own(envelope::RESUME, resume);
                }
                record
            });
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
