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
use metrics::counter;
use tokio_postgres::{Client, types::ToSql};

mod copy;
pub mod kept;
mod rows;
mod twins;

use self::copy::{Copy, behind, copy};
use crate::{
    config::Config,
    error::{Error, Result},
    heal::{Cause, compare, consumers, floor::Removed, mark},
    history::History,
    publish::{Acknowledged, Limits},
    quarantine::{Claimed, Desk, Maker},
    record::Layout,
    slot::{self, Slot},
    stream::{Missing, Truth, read_truth},
    wal::{Connection, Snapshot},
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
    let snapshot = copy::export(&mut connection, &temporary).await?;
    // Another one may have been ready between the look and the lock.
    if slot::find(sql, &source.slot).await? != Slot::Missing {
        return Err(Error::SlotHeld(format!(
            "slot {} was just created",
            source.slot
        )));
    }
    tracing::info!(slot = source.slot, consistent_point = %snapshot.consistent_point, %cause, "publishing what the stream lacks from the table");
    let (claimed, truth) = look(config, nats, order, Missing::Create).await?;
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
    let given = Copy {
        config,
        nats,
        truth: &truth,
        order: Order { cause, ..order },
        slot_begins: snapshot.consistent_point,
        resume: None,
    };
    let (count, last) = first_copy(sql, &snapshot, given, &mut desk).await?;
    desk.begin_anew().await?;
    if last.is_none() && other_history.is_some() {
        let position = behind(system, snapshot.consistent_point, 0)?;
        mark::write(nats, &truth.stream, truth.last_sequence, position).await?;
    }
    if truth.unfinished.is_some() {
        mark::finish(nats, &truth.stream).await;
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

/// The stream's end, once nobody else stores in its quarantine.
async fn look(
    config: &Config,
    nats: &Nats,
    order: Order<'_>,
    missing: Missing,
) -> Result<(Claimed, Truth)> {
    let claimed = Claimed::claim(nats, config.stream.quarantine().as_ref()).await?;
    let mut truth = read_truth(nats, &config.stream, missing).await?;
    if let Some(after) = order.after {
        truth.removed = Removed::UpToId(after.to_owned());
    }
    consumers::set_back(nats, &truth.stream).await?;
    Ok((claimed, truth))
}

/// Where there is a table, what the stream lacks of it.
async fn first_copy(
    sql: &mut Client,
    snapshot: &Snapshot,
    given: Copy<'_>,
    desk: &mut Desk<'_>,
) -> Result<(u64, Option<Acknowledged>)> {
    let Copy { config, truth, .. } = given;
    if config.source.message_prefix.is_some() {
        tracing::warn!(slot = config.source.slot, consistent_point = %snapshot.consistent_point, "messages from before this point that no slot has kept are lost: no table holds them");
        return Ok((0, None));
    }
    let transaction = copy::begin(sql, snapshot).await?;
    compare::note_present(&transaction, given.nats, &config.stream, truth).await?;
    let copied = copy(&transaction, given, desk).await?;
    let ended = transaction.commit().await;
    ended.map_err(|e| Error::sql(DURING, &e))?;
    Ok(copied)
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
