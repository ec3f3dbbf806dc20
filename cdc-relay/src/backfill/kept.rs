//! Publishes again what the stream has lost, behind a slot that stays as it is: what the slot has not
//! confirmed may stand nowhere else, because rows are deleted soon after they are written, or because
//! there is no table.
//!
//! ```text
//! the slot, held ─▶ read to the snapshot ──ids──▶ ┐
//! temporary slot ──exports──▶ snapshot ───rows──▶ those that neither stream nor slot has ─▶ appended
//! the slot, as it was ──▶ an ordinary session goes on with what it has not confirmed
//! ```
//!
//! So a healed stream has what it had, then what it lost, then what it never had. The danger is in where
//! the next session resumes: a row from the table says where the WAL was left before it, and no place
//! behind that. Nothing is confirmed here, so a crash at any moment leaves a slot that brings all of it
//! again, and a stream that is marked as unfinished.

use std::time::Duration;

use async_nats::Client as Nats;
use chassis::postgres::Target;
use metrics::counter;
use tokio::time::{Instant, timeout};
use tokio_postgres::{Client, Transaction, types::PgLsn};

use super::{
    DURING, Done, Order,
    copy::{self, Copy, behind, copy},
    look,
};
use crate::{
    config::Config,
    error::{Error, Result},
    heal::{compare, mark},
    history::{History, PLACE, Resume, Stored, place},
    intake::{Intake, Taken},
    publish::{Acknowledged, Limits},
    quarantine::{Desk, Maker},
    record::Layout,
    slot,
    spool::{CommitOrder, Spool},
    stream::{Missing, Truth},
    types::Types,
    wal::{Connection, Event, Snapshot, WalWriter},
    window::BATCH_RECORDS_MAX,
};

/// How often Postgres is asked how far it has sent.
const ASK_INTERVAL: Duration = Duration::from_millis(200);

/// Publishes what the stream has lost as far as the table has it, and leaves the slot to bring the rest.
///
/// # Errors
/// [`Error::Heal`] when the slot is not of the stream's history; [`Error::Transient`] while another relay
/// does the same.
pub async fn heal(
    config: &Config,
    (server, streaming): (&Target, bool),
    sql: &mut Client,
    nats: &Nats,
    order: Order<'_>,
) -> Result<Done> {
    let source = &config.source;
    let mut connection = Connection::open(server, source.wal_sender_timeout()).await?;
    let system = connection.identify_system().await?;
    let ancestors = connection.ancestors(system.timeline).await?;
    let (reader, writer) = connection.start_replication(source, streaming).await?;
    let (confirmed, _) = slot::positions(sql, &source.slot).await?;
    tracing::info!(slot = source.slot, %confirmed, cause = %order.cause, "publishing what the stream lacks; the slot keeps the rest");
    let spool = Spool::new(config.spool.settings(), source.table.clone());
    let mut held = Held {
        reader: CommitOrder::new(reader, spool),
        writer,
        confirmed,
    };
    let history = History {
        system,
        ancestors,
        wal_end: confirmed,
        is_trusted: order.is_trusted,
    };
    let done = held.heal(config, server, sql, nats, (order, history)).await;
    // Also after a failure: whoever comes next finds the slot free.
    let released = held.release().await;
    let done = done?;
    released?;
    counter!("cdc_relay_healed_total").increment(done.count);
    tracing::warn!(slot = source.slot, count = done.count, cause = %order.cause, limits = order.cause.limits(), "healed: what the stream lacked is published, as far as it was still there");
    Ok(done)
}

/// The slot while it is read and nothing of it is confirmed: no other relay appends meanwhile.
struct Held {
    reader: CommitOrder,
    writer: WalWriter,
    confirmed: PgLsn,
}

/// How many events were published, and the last of them.
type Filled = (u64, Option<Acknowledged>);

impl Held {
    async fn heal(
        &mut self,
        config: &Config,
        server: &Target,
        sql: &mut Client,
        nats: &Nats,
        (order, mut history): (Order<'_>, History),
    ) -> Result<Done> {
        let (source, confirmed) = (&config.source, self.confirmed);
        let missing = match source.message_prefix {
            Some(_) => Missing::Create,
            None => Missing::Recreate,
        };
        let looking = look(config, nats, order, missing);
        let (claimed, truth) = self.writer.alive_during(confirmed, looking).await?;
        // After the stream, as in a session.
        history.wal_end = slot::positions(sql, &source.slot).await?.1;
        if let Some(last) = &truth.last {
            history.check(last, &truth.stream)?;
        }
        let (count, last) = if source.message_prefix.is_some() {
            tracing::warn!(slot = source.slot, %confirmed, cause = %order.cause, "messages from before this point that the stream has lost are lost: no table holds them. What was committed since then is in the slot, and goes on from there");
            (0, None)
        } else {
            let layout = Layout::of(&config.columns, &config.message);
            let maker = Maker {
                source,
                layout: &layout,
                limits: Limits::of(nats, &truth),
                system: history.system,
            };
            let opening = Desk::open(claimed, maker, &truth, confirmed);
            let mut desk = self.writer.alive_during(confirmed, opening).await?;
            let given = (order, &truth, &mut desk);
            self.fill(config, server, sql, nats, given).await?
        };
        Ok(Done {
            count,
            last,
            created_ns: truth.created_ns,
        })
    }

    /// Publishes the rows that neither the stream has nor this slot will bring.
    async fn fill(
        &mut self,
        config: &Config,
        server: &Target,
        sql: &mut Client,
        nats: &Nats,
        (order, truth, desk): (Order<'_>, &Truth, &mut Desk<'_>),
    ) -> Result<Filled> {
        let confirmed = self.confirmed;
        let exporting = export(config, server);
        // The snapshot is there as long as its connection is.
        let (snapshot, connection) = self.writer.alive_during(confirmed, exporting).await?;
        let transaction = copy::begin(sql, &snapshot).await?;
        let noting = compare::note_present(&transaction, nats, &config.stream, truth);
        self.writer.alive_during(confirmed, noting).await?;
        let unread = self.note_unread(config, &transaction, snapshot.consistent_point, desk);
        let unread = unread.await?;
        tracing::info!(unread, "events that the slot has and the stream never had");
        let resume = resume(desk, confirmed)?;
        let given = Copy {
            config,
            nats,
            truth,
            order,
            slot_begins: confirmed,
            resume: Some(&resume),
        };
        let filling = async {
            if truth.unfinished.is_none() {
                mark::begin(nats, &truth.stream, &order.cause.to_string()).await;
            }
            let filled = copy(&transaction, given, desk).await?;
            mark::finish(nats, &truth.stream).await;
            Ok(filled)
        };
        let filled = self.writer.alive_during(confirmed, filling).await?;
        let ended = transaction.commit().await;
        ended.map_err(|e| Error::sql(DURING, &e))?;
        drop(connection);
        Ok(filled)
    }

    /// Reads the slot up to `end`, and notes the events that it is still to bring: they come in their
    /// order from there, and not from the table.
    async fn note_unread(
        &mut self,
        config: &Config,
        transaction: &Transaction<'_>,
        end: PgLsn,
        desk: &Desk<'_>,
    ) -> Result<u64> {
        let resume = Resume::after(desk.done().cloned(), self.confirmed);
        let stops = desk.is_available().err().map(str::to_owned);
        let (system, layout) = (desk.system(), desk.layout());
        let limits = desk.limits();
        let mut intake = Intake::new(&config.source, layout, system, limits, resume, stops);
        let types = Types::read(transaction).await?;
        intake = intake.with_types(types);
        let mut ids = Vec::with_capacity(BATCH_RECORDS_MAX);
        let (mut count, mut asked) = (0, None::<Instant>);
        loop {
            if asked.is_none_or(|asked| asked.elapsed() >= ASK_INTERVAL) {
                self.writer.report(self.confirmed, true).await?;
                asked = Some(Instant::now());
            }
            let Ok(event) = timeout(ASK_INTERVAL, self.reader.next()).await else {
                continue;
            };
            let reached = match event? {
                Event::Data(message) => match intake.take(&message)? {
                    Taken::Event(record) => {
                        ids.push(record.id().to_owned());
                        PgLsn::from(0)
                    }
                    Taken::Offender(item) => {
                        ids.extend(item.names.id);
                        PgLsn::from(0)
                    }
                    Taken::Commit(end) => end,
                    Taken::Begin(_) | Taken::Stored | Taken::Other => PgLsn::from(0),
                },
                Event::Keepalive { wal_end, .. } => {
                    intake.resume().sent(wal_end)?;
                    wal_end
                }
            };
            if ids.len() == BATCH_RECORDS_MAX || reached >= end {
                count += ids.len() as u64;
                compare::note(transaction, &ids).await?;
                ids.clear();
            }
            if reached >= end {
                return Ok(count);
            }
        }
    }

    /// Lets go of the slot in order, so that the session after this one finds it free.
    async fn release(mut self) -> Result<()> {
        self.writer.finish().await?;
        self.reader.finish().await;
        Ok(())
    }
}

/// A snapshot of all that was committed before some place in the WAL, and nothing else.
async fn export(config: &Config, server: &Target) -> Result<(Snapshot, Connection)> {
    let source = &config.source;
    let mut connection = Connection::open(server, source.wal_sender_timeout()).await?;
    let temporary = format!("{}_backfill", source.slot);
    let snapshot = copy::export(&mut connection, &temporary).await?;
    Ok((snapshot, connection))
}

/// Where the WAL was left: after the stream's last event, if the slot is to bring that again, and else
/// where the slot begins.
fn resume(desk: &Desk<'_>, confirmed: PgLsn) -> Result<Stored> {
    let begins = behind(desk.system(), confirmed, 0)?;
    match desk.done() {
        Some(done) if place(done.position) > place(begins) => Ok(done.clone()),
        _ => Ok(Stored {
            position: begins,
            id: PLACE.to_owned(),
        }),
    }
}
