//! Sessions, one after the other: look at the slot, take it, read the stream's truth, run the
//! pipeline, and on any failure begin again from there.
//!
//! ```text
//! publication, slot ─▶ take the slot (the lease) ─▶ the stream's last event ─▶ pipeline
//!    ▲       └ missing, lost or in doubt: backfill                                │
//!    └───────────────────────── any failure, after a pause ───────────────────────┘
//! ```

use std::time::{Duration, Instant};

use async_nats::Client as Nats;
use chassis::{health::Check, postgres::Target};
use metrics::{counter, gauge};
use rand::RngExt as _;
use tokio::time::sleep;
use tokio_postgres::{Client, types::PgLsn};
use tokio_util::sync::CancellationToken;

use crate::{
    backfill::{Order, backfill, kept},
    background::{self, Background},
    config::Config,
    error::{Error, Result},
    heal::{Cause, consumers, memory::Memory},
    history::{History, Resume},
    intake::Intake,
    pipeline::Pipeline,
    primary,
    publish::{Appender, Limits},
    quarantine::{Claimed, Desk, Maker},
    record::Layout,
    retention::enough,
    slot::{self, Slot},
    spool::{CommitOrder, Spool},
    standby,
    stream::{self, Missing, Truth, read_truth},
    types::Types,
    wal::{Connection, System, WalWriter},
};

/// The first pause after a failure, and the longest.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// A session that lasted so long was a good one: the next pause begins small again.
const GOOD_SESSION: Duration = PAUSE_MAX;

/// Before a relay that did not get the slot begins to wait for it, or looks at everything again.
const STANDBY_PAUSE: Duration = Duration::from_millis(100);

/// How often the relay looks whether somebody has mended a definite failure.
const DEFINITE_PAUSE: Duration = Duration::from_secs(10);

/// How long a look at publication and slot may take.
const SQL_TIMEOUT: Duration = Duration::from_secs(30);

/// Publishes until `stop`. Failures are logged, counted and retried; none ends the relay, because
/// whoever mends the cause should not have to restart it as well.
pub async fn run(config: Config, nats: Nats, ready: Check, stop: CancellationToken) {
    let mut failures = 0_u32;
    let mut known = Known {
        streaming: config.spool.is_on(),
        ..Known::default()
    };
    while !stop.is_cancelled() {
        let begun = Instant::now();
        let ended = session(&config, &nats, &ready, &stop, &mut known).await;
        gauge!("cdc_relay_streaming").set(0.0);
        // Nobody here knows it now; the last value would look healthy.
        for lag in ["bytes", "events", "seconds"] {
            gauge!(format!("cdc_relay_lag_{lag}")).set(f64::NAN);
        }
        let Err(error) = ended else { return };
        if stop.is_cancelled() {
            tracing::warn!(%error, "stopped before all was drained; the rest is published after the next start");
            return;
        }
        if begun.elapsed() >= GOOD_SESSION {
            failures = 0;
        }
        ready.set(matches!(error, Error::SlotHeld(_)));
        let pause = match &error {
            Error::SlotHeld(holder) => {
                // Another one publishes meanwhile, and may not see what is lost.
                known.verified = false;
                if !known.standing_by {
                    tracing::info!(slot = config.source.slot, %holder, "standing by");
                }
                STANDBY_PAUSE
            }
            Error::Transient(_) | Error::AlreadyExists(_) | Error::Unclear(_) => {
                known.careful |= matches!(error, Error::Unclear(_));
                failed("transient");
                tracing::warn!(%error, "starting over");
                failures = failures.saturating_add(1);
                backoff(failures)
            }
            Error::Spool(_) => {
                failed("transient");
                tracing::warn!(%error, "starting over with streaming off, until this relay is started again: Postgres holds large transactions back itself, and nothing is lost");
                known.streaming = false;
                PAUSE_MIN
            }
            Error::Heal(cause) => {
                failed("transient");
                tracing::warn!(%cause, "slot, stream and table do not belong together; what the stream lacks is published");
                known.wrong = Some(cause.clone());
                PAUSE_MIN
            }
            Error::Definite(_) | Error::Undecodable(_) => {
                failed("definite");
                tracing::error!(%error, "stopped until this is mended, and looking again every 10 s; the slot keeps the WAL meanwhile, if there is one yet: do not delete rows of the outbox");
                DEFINITE_PAUSE
            }
        };
        known.standing_by = matches!(error, Error::SlotHeld(_));
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(pause) => {}
        }
    }
}

/// What outlives a session.
#[derive(Debug, Default)]
struct Known {
    /// What the last one found wrong, until it is mended.
    wrong: Option<Cause>,
    memory: Memory,
    /// The stream was compared with the table since this process began or stood by.
    verified: bool,
    /// A session has streamed since this process began.
    started: bool,
    /// Old rows may be removed from the table.
    retires: bool,
    /// Another relay had the slot.
    standing_by: bool,
    /// The last append was refused, and it is not known which of its records is the cause.
    careful: bool,
    /// Whether large transactions are taken while they run; until the spool fails.
    streaming: bool,
}

async fn session(
    config: &Config,
    nats: &Nats,
    ready: &Check,
    stop: &CancellationToken,
    known: &mut Known,
) -> Result<()> {
    let started = tokio::select! {
        // Nothing is gathered yet: there is nothing to drain.
        () = stop.cancelled() => return Ok(()),
        started = start(config, nats, known) => started?,
    };
    let Started {
        system,
        reader,
        mut writer,
        claimed,
        truth,
        confirmed,
        to_nats,
        is_new_slot,
        types,
    } = started;
    let limits = Limits::of(nats, &truth);
    let layout = Layout::of(&config.columns, &config.message);
    let maker = Maker {
        source: &config.source,
        layout: &layout,
        limits: limits.clone(),
        system,
    };
    let opening = Desk::open(claimed, maker, &truth, confirmed);
    let mut desk = tokio::select! {
        () = stop.cancelled() => return Ok(()),
        opened = writer.alive_during(confirmed, opening) => opened?,
    };
    let resume_after = desk
        .done()
        .map(|done| tracing::field::display(done.position));
    tracing::info!(slot = config.source.slot, stream = truth.stream, path = truth.paths.name(), %confirmed, resume_after, "streaming");
    gauge!("cdc_relay_streaming").set(1.0);
    truth.show_path();
    ready.set(true);

    let appender = Appender::after(nats.clone(), &truth);
    let mut appender = appender.taking(config.stream.transactions);
    if std::mem::take(&mut known.careful) {
        appender.be_careful();
    }
    let (created_ns, found) = (truth.created_ns, truth.acknowledged());
    let resume = Resume::after(desk.done().cloned(), confirmed);
    let stops = desk.is_available().err().map(str::to_owned);
    let pipeline = Pipeline::new(confirmed, resume.is_proven());
    let intake = Intake::new(&config.source, &layout, system, limits, resume, stops);
    let intake = intake.with_types(types);
    let mut background = Background::start(config, (nats, to_nats), !known.verified, known.retires);
    known.started = true;
    let ended = tokio::select! {
        ended = pipeline.run(reader, writer, intake, (&mut appender, &mut desk), stop) => ended,
        cause = background.wrong(config, &mut known.verified) => Err(Error::Heal(cause)),
        () = background::reconnected(nats, to_nats) => Err(Error::Transient(
            "the connection to NATS is a new one: looking whether the stream is what it was".to_owned(),
        )),
    };
    drop(background);
    known
        .memory
        .note(created_ns, appender.last_acknowledged().cloned().or(found));
    concluded(ended, is_new_slot, config)
}

/// What the end of a session means.
fn concluded(ended: Result<()>, is_new_slot: bool, config: &Config) -> Result<()> {
    match ended {
        Ok(()) => {
            tracing::info!("drained and confirmed");
            Ok(())
        }
        // Nothing but what the table holds can be behind it: no relay has ever gone on from it.
        Err(Error::Undecodable(why)) if is_new_slot => Err(Error::Heal(Cause::SlotLost(why))),
        Err(error) => Err(permitted(error, config)),
    }
}

/// A session that holds the slot and knows where the stream ends.
struct Started {
    system: System,
    reader: CommitOrder,
    writer: WalWriter,
    claimed: Claimed,
    truth: Truth,
    confirmed: PgLsn,
    /// The one to NATS by which the stream was looked at.
    to_nats: u64,
    is_new_slot: bool,
    types: Types,
}

async fn start(config: &Config, nats: &Nats, known: &mut Known) -> Result<Started> {
    let source = &config.source;
    let spool = config.spool.settings();
    if known.streaming {
        spool.probe()?;
    }
    let (server, mut sql) = primary::connect(&source.database_url).await?;
    let during = "look at publication and slot";
    if known.standing_by {
        standby::wait(&sql, &source.slot).await?;
    }
    let prepared = Error::within(during, SQL_TIMEOUT, slot::prepare(&sql, source)).await?;
    // A relay that JetStream does not answer must not take the slot from a standby that it does.
    let found = stream::reach(nats, &config.stream).await?;
    let to_nats = background::connection(nats);
    known.retires = enough::permit(config, found.as_ref(), !known.started).await?;
    let cause = match (prepared.clone(), known.wrong.clone()) {
        (Slot::Missing, found) => Some(found.unwrap_or(Cause::NoSlot)),
        (Slot::Lost(why), _) => Some(Cause::SlotLost(why)),
        (Slot::Ready { .. }, found) => found,
    };
    let mut is_new_slot = false;
    if let Some(cause) = &cause {
        let cause = cause.clone().permitted(&config.healing, &source.slot)?;
        let mended = mend(config, &server, &mut sql, nats, (&cause, &prepared), known);
        is_new_slot = mended.await.map_err(|error| permitted(error, config))?;
    }
    let mut connection = Connection::open(&server, source.wal_sender_timeout()).await?;
    let system = connection.identify_system().await?;
    let ancestors = connection.ancestors(system.timeline).await?;
    if config.healing.slot_failover
        && (is_new_slot || !prepared.follows_failover())
        && slot::knows_failover(&sql).await?
    {
        connection.enable_failover(&source.slot).await?;
    }
    let (reader, writer) = connection
        .start_replication(source, known.streaming)
        .await?;
    // Only now, with the slot in hand, nobody else who plays by the rules moves what is read here.
    let looked = look(config, nats, &known.memory).await;
    let (claimed, truth) = looked.map_err(|error| permitted(error, config))?;
    // After the stream: another relay, with a slot of its own, may have gone on meanwhile, and what it has
    // published is in the WAL before it is in the stream.
    let positions = slot::positions(&sql, &source.slot);
    let (confirmed, wal_end) = Error::within(during, SQL_TIMEOUT, positions).await?;
    let types = Error::within(during, SQL_TIMEOUT, Types::read(&sql)).await?;
    let history = History {
        system,
        ancestors,
        wal_end,
        is_trusted: false,
    };
    if let Some(last) = &truth.last {
        let checked = history.check(last, &truth.stream);
        checked.map_err(|error| permitted(error, config))?;
    }
    let set_back = set_back(nats, &truth.stream).await;
    set_back.map_err(|error| permitted(error, config))?;
    Ok(Started {
        system,
        reader: CommitOrder::new(reader, Spool::new(spool, source.table.clone())),
        writer,
        claimed,
        truth,
        confirmed,
        to_nats,
        is_new_slot,
        types,
    })
}

/// Publishes what the stream lacks, and makes the slot behind it where there is none of use. Whether it
/// is a new one.
async fn mend(
    config: &Config,
    server: &Target,
    sql: &mut Client,
    nats: &Nats,
    (cause, prepared): (&Cause, &Slot),
    known: &mut Known,
) -> Result<bool> {
    let slot = &config.source.slot;
    let order = Order {
        is_careful: std::mem::take(&mut known.careful),
        ..Order::of(cause)
    };
    let is_kept = cause.keeps_slot() && matches!(prepared, Slot::Ready { .. });
    let done = if is_kept {
        kept::heal(config, (server, known.streaming), sql, nats, order).await?
    } else {
        if *prepared != Slot::Missing {
            tracing::warn!(slot, %cause, "dropping the slot, to make it anew");
            slot::discard(sql, slot).await?;
        }
        backfill(config, server, sql, nats, order).await?
    };
    known.memory.forget();
    known.memory.filled(done.created_ns, done.last);
    known.wrong = None;
    // The comparison has just been made.
    known.verified = true;
    gauge!("cdc_relay_verification_missing").set(0.0);
    Ok(!is_kept)
}

/// The error, or the refusal to heal what it found.
fn permitted(error: Error, config: &Config) -> Error {
    match error {
        Error::Heal(cause) => match cause.permitted(&config.healing, &config.source.slot) {
            Ok(cause) => Error::Heal(cause),
            Err(refused) => refused,
        },
        error => error,
    }
}

/// The stream's truth, if it is all that it was; and the quarantine, in which from then on no other relay
/// stores.
async fn look(config: &Config, nats: &Nats, memory: &Memory) -> Result<(Claimed, Truth)> {
    let claimed = Claimed::claim(nats, config.stream.quarantine().as_ref()).await?;
    let truth = read_truth(nats, &config.stream, Missing::Heal).await?;
    memory.check(nats, &truth).await?;
    Ok((claimed, truth))
}

/// Sets back consumers that the stream has left behind.
///
/// # Errors
/// [`Error::Heal`] when there were any: the stream was longer once.
async fn set_back(nats: &Nats, stream: &str) -> Result<()> {
    match consumers::set_back(nats, stream).await? {
        0 => Ok(()),
        ahead => Err(Error::Heal(Cause::LostTail(format!(
            "{ahead} consumers of stream {stream} were ahead of it: JetStream lost its tail"
        )))),
    }
}

fn failed(kind: &'static str) {
    counter!("cdc_relay_sessions_failed_total", "kind" => kind).increment(1);
}

fn backoff(failures: u32) -> Duration {
    let whole = PAUSE_MIN
        .saturating_mul(1 << failures.min(10))
        .min(PAUSE_MAX);
    whole.mul_f64(rand::rng().random_range(0.5..1.0))
}
