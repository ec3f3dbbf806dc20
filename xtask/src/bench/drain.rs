//! One drain: a contender takes the whole backlog, on servers that nobody else uses meanwhile.

use std::future::Future;
use std::path::PathBuf;
use std::pin::pin;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use async_nats::jetstream::stream::Stream;
use harness::{Guard, Nats, Process};
use tokio::process::Command;
use tokio::time::{interval, sleep, timeout};

use super::backlog::{Backlog, DATABASE, PUBLICATION, SLOT};
use super::child::Child;
use super::contender::Way;
use super::meter::{self, Meter, Role, Usage};
use super::server::{self, STREAM, SUBJECTS, Sync};

/// A contender that takes longer is broken.
const DEADLINE: Duration = Duration::from_secs(1800);
const WALSENDER_DEADLINE: Duration = Duration::from_secs(60);

/// Who drains.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Contender {
    PgRecvlogical,
    Pipelined,
    Batches,
    Relay,
    Polling,
    Debezium,
}

impl Contender {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::PgRecvlogical => "pg_recvlogical to nowhere",
            Self::Pipelined => "JetStream alone, 1,000 in flight",
            Self::Batches => "JetStream alone, batches of 1,000",
            Self::Relay => "cdc-relay",
            Self::Polling => "polling publisher",
            Self::Debezium => "Debezium's engine to nowhere",
        }
    }

    pub(super) fn key(self) -> &'static str {
        match self {
            Self::PgRecvlogical => "pg_recvlogical",
            Self::Pipelined => "nats_pipelined",
            Self::Batches => "nats_batches",
            Self::Relay => "relay",
            Self::Polling => "polling",
            Self::Debezium => "debezium",
        }
    }
}

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drain {
    pub(super) rows: u64,
    pub(super) seconds: f64,
    /// From the start of the process, where that is worth telling.
    pub(super) first_event_seconds: Option<f64>,
    pub(super) usage: Usage,
}

impl Drain {
    pub(super) fn rate(&self) -> f64 {
        self.rows as f64 / self.seconds
    }
}

/// What a drain takes place on.
#[derive(Debug)]
pub(super) struct Ground<'a> {
    pub(super) backlog: &'a Backlog,
    /// What the relay makes of the backlog.
    pub(super) messages: PathBuf,
    pub(super) sync: Sync,
    /// How many rows of it are drained: fewer where each waits for the disk.
    pub(super) rows: u64,
}

impl Ground<'_> {
    pub(super) async fn drain(&self, contender: Contender) -> Result<Drain> {
        settle().await?;
        let drained = match contender {
            Contender::PgRecvlogical => self.pg_recvlogical().await,
            Contender::Pipelined => self.publish(Way::Pipelined).await,
            Contender::Batches => self.publish(Way::Batches).await,
            Contender::Relay => self.relay(None).await,
            Contender::Polling => self.polling().await,
            Contender::Debezium => super::debezium::drain(self).await,
        };
        drained.with_context(|| contender.name())
    }

    async fn pg_recvlogical(&self) -> Result<Drain> {
        let backlog = self.backlog;
        backlog.copy_slot().await?;
        let mut command = Command::new(backlog.postgres.bin().join("pg_recvlogical"));
        command
            .args([
                "--start",
                "--no-loop",
                "--plugin=pgoutput",
                "--file=/dev/null",
            ])
            .arg(format!("--slot={SLOT}"))
            .arg(format!("--endpos={}", backlog.end))
            .args(["--option=proto_version=1", "--option=binary=true"])
            .arg(format!("--option=publication_names={PUBLICATION}"))
            .arg(format!("--dbname={}", backlog.postgres.url(DATABASE)))
            .kill_on_drop(true);
        let begun = SystemTime::now();
        let mut process = command.spawn().context("cannot start pg_recvlogical")?;
        let mut meter = Meter::default();
        meter.watch_new(Role::Contender, process.id().context("it has ended")?);
        let ended = async { Ok(process.wait().await?) };
        let status = self.looking_at_walsender(&mut meter, ended).await?;
        let seconds = begun.elapsed()?.as_secs_f64();
        ensure!(status.success(), "pg_recvlogical ended with {status}");
        backlog.drop_slot().await?;
        Ok(self.drained(seconds, meter.usage()))
    }

    async fn publish(&self, way: Way) -> Result<Drain> {
        let nats = server::nats(self.sync).await?;
        let stream = server::create_stream(&nats).await?;
        let mut command = self.contender(way, &nats)?;
        command.arg("--messages").arg(&self.messages);
        let (seconds, _, mut usage) = work(command, &nats, |_| None).await?;
        ensure_stored(stream, self.rows).await?;
        // It holds all messages, which a publisher need not.
        usage.peak_kib = None;
        Ok(self.drained(seconds, usage))
    }

    async fn polling(&self) -> Result<Drain> {
        self.backlog.refill_polled(self.rows).await?;
        let nats = server::nats(self.sync).await?;
        let stream = server::create_stream(&nats).await?;
        let mut command = self.contender(Way::Polling, &nats)?;
        command
            .arg("--database")
            .arg(self.backlog.postgres.url(DATABASE));
        let backend = |said: &serde_json::Value| said["backend"].as_u64();
        let (seconds, _, usage) = work(command, &nats, backend).await?;
        ensure_stored(stream, self.rows).await?;
        Ok(self.drained(seconds, usage))
    }

    /// Drains by the relay itself; with a path, saves the messages that it made.
    pub(super) async fn relay(&self, save: Option<&std::path::Path>) -> Result<Drain> {
        self.backlog.copy_slot().await?;
        let nats = server::nats(self.sync).await?;
        let mut stream = server::create_stream(&nats).await?;
        let guard = Guard::start()?;
        let mut meter = Meter::default();
        meter.watch_from_now(Role::Nats, nats.pid().context("NATS has ended")?)?;
        let begun = SystemTime::now();
        let relay = start_relay(&guard, &self.backlog.postgres.url(DATABASE), &nats)?;
        meter.watch_new(Role::Contender, relay.pid().context("the relay has ended")?);
        meter.watch_new(Role::Postgres, self.walsender().await?);
        let stored = async {
            loop {
                relay.ensure_alive()?;
                let state = &stream.info().await?.state;
                if state.messages >= self.rows {
                    let nanoseconds = [state.first_timestamp, state.last_timestamp];
                    return Ok(nanoseconds.map(|time| time.unix_timestamp_nanos()));
                }
                sleep(meter::EVERY).await;
            }
        };
        let [first, last] = looking(&mut meter, stored)
            .await
            .with_context(|| relay.log().tail())?;
        let usage = meter.usage();
        // The server's clock is this machine's.
        let begun = begun
            .duration_since(SystemTime::UNIX_EPOCH)?
            .as_nanos()
            .cast_signed();
        let since = |nanoseconds: i128| (nanoseconds - begun) as f64 / 1e9;
        if let Some(path) = save {
            super::messages::save(&stream, self.rows, path).await?;
        }
        relay.terminate().await?;
        ensure_stored(stream, self.rows).await?;
        self.backlog.drop_slot().await?;
        let mut drained = self.drained(since(last), usage);
        drained.first_event_seconds = Some(since(first));
        Ok(drained)
    }

    /// As [`looking`], at the walsender too once there is one. Work that ends by itself may be done
    /// before anybody sees its walsender, whose use is then not known.
    async fn looking_at_walsender<T>(
        &self,
        meter: &mut Meter,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let mut work = pin!(work);
        tokio::select! {
            biased;
            done = &mut work => return done,
            walsender = self.walsender() => meter.watch_new(Role::Postgres, walsender?),
        }
        looking(meter, work).await
    }

    pub(super) async fn walsender(&self) -> Result<u32> {
        harness::eventually("a walsender", WALSENDER_DEADLINE, async || {
            self.backlog.walsender().await
        })
        .await
    }

    pub(super) fn drained(&self, seconds: f64, usage: Usage) -> Drain {
        Drain {
            rows: self.rows,
            seconds,
            first_event_seconds: None,
            usage,
        }
    }

    fn contender(&self, way: Way, nats: &Nats) -> Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        let way = match way {
            Way::Pipelined => "pipelined",
            Way::Batches => "batches",
            Way::Polling => "polling",
        };
        command
            .args(["bench", "contend", way, "--nats", &nats.url()])
            .args(["--count", &self.rows.to_string()]);
        Ok(command)
    }
}

/// The relay as a user would run it: everything that is not a name or an address is the default.
pub(super) fn start_relay(guard: &Guard, database: &str, nats: &Nats) -> Result<Process> {
    let environment = [
        ("DATABASE_URL", database),
        ("NATS_URL", &nats.url()),
        ("CDC_SLOT", SLOT),
        ("CDC_PUBLICATION", PUBLICATION),
        ("CDC_STREAM", STREAM),
        ("CDC_STREAM_SUBJECTS", SUBJECTS),
    ];
    Process::start(guard, "relay", "cdc-relay", &environment)
}

/// Lets a child of ours work: seconds, from its own clock, and what was used.
async fn work(
    command: Command,
    nats: &Nats,
    backend: impl Fn(&serde_json::Value) -> Option<u64>,
) -> Result<(f64, Option<f64>, Usage)> {
    let mut child = Child::start("the contender", command)?;
    let said = child.says().await?;
    let mut meter = Meter::default();
    meter.watch_from_now(Role::Contender, child.pid()?)?;
    meter.watch_from_now(Role::Nats, nats.pid().context("NATS has ended")?)?;
    if let Some(pid) = backend(&said) {
        meter.watch_from_now(Role::Postgres, u32::try_from(pid)?)?;
    }
    child.begin().await?;
    let said = looking(&mut meter, child.says()).await?;
    let seconds = said["seconds"].as_f64().context("no seconds")?;
    child.end().await?;
    Ok((seconds, said["first"].as_f64(), meter.usage()))
}

/// Awaits the end of the work, with an eye on its processes.
pub(super) async fn looking<T>(
    meter: &mut Meter,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let mut work = pin!(work);
    let mut clock = interval(meter::EVERY);
    let looking = async {
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                _ = clock.tick() => meter.look(),
            }
        }
    };
    let Ok(done) = timeout(DEADLINE, looking).await else {
        bail!("not done after {DEADLINE:?}");
    };
    meter.look();
    done
}

/// Writes back what the one before has left, so that it does not slow the next one.
async fn settle() -> Result<()> {
    let status = Command::new("sync").status().await?;
    ensure!(status.success(), "sync ended with {status}");
    Ok(())
}

/// Exactly the backlog, once: who cheats is no contender.
async fn ensure_stored(mut stream: Stream, rows: u64) -> Result<()> {
    let stored = stream.info().await?.state.messages;
    ensure!(
        stored == rows,
        "the stream holds {stored} messages of {rows}"
    );
    Ok(())
}
