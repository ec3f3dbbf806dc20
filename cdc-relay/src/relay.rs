//! Sessions, one after the other: connect, take the slot, read the stream's truth, run the pipeline,
//! and on any failure begin again from there.
//!
//! ```text
//! connect ─▶ publication, slot ─▶ take the slot (the lease) ─▶ stream's last position ─▶ pipeline
//!    ▲           └ missing: backfill                                                        │
//!    └───────────────────────────── any failure, after a pause ─────────────────────────────┘
//! ```

use std::time::Duration;

use async_nats::Client as Nats;
use chassis::health::Check;
use mailbox::envelope::Position;
use metrics::{counter, gauge};
use rand::RngExt as _;
use tokio::time::sleep;
use tokio_postgres::types::PgLsn;
use tokio_util::sync::CancellationToken;

use crate::{
    backfill::backfill,
    config::Config,
    error::{Error, Result},
    pipeline::Pipeline,
    publish::Appender,
    slot::{self, Slot},
    stream::read_truth,
    wal::{Connection, System, WalReader, WalWriter},
};

/// The first pause after a failure, and the longest.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// How often a standby asks for the slot.
const STANDBY_PAUSE: Duration = Duration::from_millis(500);

/// How often the relay looks whether somebody has mended a definite failure.
const DEFINITE_PAUSE: Duration = Duration::from_secs(10);

/// Publishes until `stop`. Failures are logged, counted and retried; none ends the relay, because
/// whoever mends the cause should not have to restart it as well.
pub async fn run(config: Config, nats: Nats, ready: Check, stop: CancellationToken) {
    let mut failures = 0_u32;
    let mut standing_by = false;
    while !stop.is_cancelled() {
        let ended = session(&config, &nats, &ready, &stop, &mut failures).await;
        gauge!("cdc_relay_streaming").set(0.0);
        let Err(error) = ended else {
            tracing::info!("drained and confirmed");
            return;
        };
        if stop.is_cancelled() {
            tracing::warn!(%error, "stopped before all was drained; the rest is published after the next start");
            return;
        }
        let was_standing_by = std::mem::take(&mut standing_by);
        let pause = match &error {
            Error::SlotHeld(_) => {
                standing_by = true;
                ready.set(true);
                if !was_standing_by {
                    tracing::info!(slot = config.source.slot, %error, "standing by");
                }
                STANDBY_PAUSE
            }
            Error::Transient(_) => {
                ready.set(false);
                counter!("cdc_relay_sessions_failed_total", "kind" => "transient").increment(1);
                tracing::warn!(%error, "starting over");
                backoff(failures)
            }
            Error::Definite(_) => {
                ready.set(false);
                counter!("cdc_relay_sessions_failed_total", "kind" => "definite").increment(1);
                tracing::error!(%error, "stopped until this is mended; nothing is lost meanwhile, and the slot keeps the WAL");
                DEFINITE_PAUSE
            }
        };
        failures = failures.saturating_add(1);
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(pause) => {}
        }
    }
}

async fn session(
    config: &Config,
    nats: &Nats,
    ready: &Check,
    stop: &CancellationToken,
    failures: &mut u32,
) -> Result<()> {
    let started = tokio::select! {
        // Nothing is gathered yet: there is nothing to drain.
        () = stop.cancelled() => return Ok(()),
        started = start(config, nats) => started?,
    };
    let Started {
        system,
        reader,
        writer,
        mut appender,
        stored,
        confirmed,
    } = started;
    tracing::info!(
        slot = config.source.slot, stream = config.stream.name, %confirmed,
        resume_after = stored.map(tracing::field::display), "streaming"
    );
    gauge!("cdc_relay_streaming").set(1.0);
    ready.set(true);
    *failures = 0;
    let pipeline = Pipeline::new(&config.source, &config.subject, system, stored, confirmed);
    pipeline.run(reader, writer, &mut appender, stop).await
}

/// A session that holds the slot and knows where the stream ends.
struct Started {
    system: System,
    reader: WalReader,
    writer: WalWriter,
    appender: Appender,
    stored: Option<Position>,
    confirmed: PgLsn,
}

async fn start(config: &Config, nats: &Nats) -> Result<Started> {
    let source = &config.source;
    let database = &source.database_url.config().map_err(Error::definite)?;
    let mut connection = Connection::open(database, source.wal_sender_timeout()).await?;
    let mut system = connection.identify_system().await?;
    let mut sql = slot::connect(database).await?;
    if slot::prepare(&sql, source).await? == Slot::Missing {
        backfill(config, connection, system, &mut sql, nats).await?;
        connection = Connection::open(database, source.wal_sender_timeout()).await?;
        system = connection.identify_system().await?;
    }
    let streaming = connection.start_replication(&source.slot, &source.publication);
    let (reader, writer) = streaming.await?;
    // Only now, with the slot in hand, nobody else who plays by the rules moves what is read here.
    let confirmed = slot::confirmed(&sql, &source.slot).await?;
    let truth = read_truth(nats, &config.stream).await?;
    let stored = truth.last_position;
    if let Some(stored) = stored {
        check_history(stored, system, &config.stream.name)?;
    }
    let appender = Appender::after(nats.clone(), &truth);
    Ok(Started {
        system,
        reader,
        writer,
        appender,
        stored,
        confirmed,
    })
}

/// The stream must hold nothing that this server's WAL has yet to bring.
fn check_history(stored: Position, system: System, stream: &str) -> Result<()> {
    let mend = format!(
        "publishing after it could leave events out. Point the relay at the right server, or at a new \
         stream instead of {stream}"
    );
    if stored.system != system.id {
        return Err(Error::Definite(format!(
            "stream {stream} was written from Postgres system {}, and this one is {}: {mend}",
            stored.system, system.id
        )));
    }
    if stored.timeline != system.timeline || stored.lsn > u64::from(system.wal_end) {
        return Err(Error::Definite(format!(
            "stream {stream} holds an event at {stored}, and this server's WAL ends at timeline {}, {}: \
             it was restored to an earlier point, or promoted; {mend}",
            system.timeline, system.wal_end
        )));
    }
    Ok(())
}

fn backoff(failures: u32) -> Duration {
    let whole = PAUSE_MIN
        .saturating_mul(1 << failures.min(10))
        .min(PAUSE_MAX);
    whole.mul_f64(rand::rng().random_range(0.5..1.0))
}
