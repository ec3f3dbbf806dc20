//! A Postgres with an outbox table, a NATS, and relays between them.

// Each test binary uses its own part of the rig.
#![allow(dead_code, missing_debug_implementations, unreachable_pub)]
// What a game does is shown with its failure.
#![allow(clippy::print_stdout)]

pub mod appends;
pub mod draw;
pub mod fault;
pub mod game;
pub mod oracle;
pub mod quarantine;
pub mod stage;

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use async_nats::jetstream::{self, consumer::pull::OrderedConfig};
use futures_util::StreamExt as _;
use harness::{Guard, Nats, Postgres, Process, eventually};
use mailbox::envelope::{EVENT_ID, POSITION, Position};
use tokio::time::{MissedTickBehavior, interval};
use tokio_postgres::{Client, NoTls, types::PgLsn};

pub const STREAM: &str = "EVENTS";
pub const SLOT: &str = "relay";
pub const DATABASE: &str = "shop";
pub const SOON: Duration = Duration::from_secs(30);

/// The columns of Debezium's outbox event router, and headers.
pub const OUTBOX: &str = "
    CREATE TABLE outbox (
        id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
        aggregatetype text NOT NULL DEFAULT 'thing',
        aggregateid text NOT NULL DEFAULT '1',
        type text NOT NULL DEFAULT 'Made',
        payload bytea NOT NULL,
        headers jsonb NOT NULL DEFAULT '{}'
    )";

pub struct Rig {
    pub sql: Client,
    pub postgres: Postgres,
    pub nats: Nats,
    pub guard: Guard,
}

/// A message of the stream.
#[derive(Debug)]
pub struct Stored {
    pub id: String,
    pub subject: String,
    pub payload: String,
    pub position: Position,
    pub headers: async_nats::HeaderMap,
}

impl Rig {
    /// Servers, and an empty outbox.
    pub async fn start() -> Result<Self> {
        Self::start_with(&[]).await
    }

    /// The same, with settings of Postgres.
    pub async fn start_with(settings: &[(&str, &str)]) -> Result<Self> {
        Self::start_in(Guard::start()?, settings, "").await
    }

    /// The same with settings for Postgres, and lines for the configuration of NATS.
    pub async fn start_in(guard: Guard, settings: &[(&str, &str)], nats: &str) -> Result<Self> {
        let rig = Self::without_outbox_in(guard, settings, nats).await?;
        rig.sql.batch_execute(OUTBOX).await?;
        Ok(rig)
    }

    pub async fn without_outbox(settings: &[(&str, &str)]) -> Result<Self> {
        Self::without_outbox_in(Guard::start()?, settings, "").await
    }

    async fn without_outbox_in(
        guard: Guard,
        settings: &[(&str, &str)],
        nats: &str,
    ) -> Result<Self> {
        let (postgres, nats) = tokio::try_join!(
            Postgres::start_with(&guard, settings),
            Nats::start_with(&guard, nats),
        )?;
        postgres.create_database(DATABASE).await?;
        let sql = postgres.connect(DATABASE).await?;
        Ok(Self {
            sql,
            postgres,
            nats,
            guard,
        })
    }

    /// Starts a relay. Does not wait until it is ready.
    pub fn relay(&self, name: &str) -> Result<Process> {
        self.relay_with(name, &[])
    }

    pub fn relay_with(&self, name: &str, environment: &[(&str, &str)]) -> Result<Process> {
        let (database, nats) = (self.postgres.url(DATABASE), self.nats.url());
        let mut all = vec![
            ("DATABASE_URL", database.as_str()),
            ("NATS_URL", &nats),
            ("CDC_SLOT", SLOT),
            ("CDC_STREAM", STREAM),
            ("CDC_STREAM_SUBJECTS", "events.>"),
            // The least that the server takes: what holds here does not lean on the server's memory.
            ("CDC_STREAM_DUPLICATE_WINDOW_SECONDS", "1"),
            ("CDC_WAL_SENDER_TIMEOUT_SECONDS", "3"),
        ];
        all.extend(environment);
        Process::start(&self.guard, name, "cdc-relay", &all)
    }

    /// Runs a subcommand with the relay's environment until it ends.
    pub async fn command(
        &self,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<std::process::Output> {
        let mut command = tokio::process::Command::new(harness::binary("cdc-relay")?);
        command
            .args(arguments)
            .env_clear()
            .env("DATABASE_URL", self.postgres.url(DATABASE))
            .env("NATS_URL", self.nats.url())
            .env("CDC_SLOT", SLOT)
            .env("CDC_STREAM", STREAM)
            .envs(environment.iter().copied())
            .kill_on_drop(true);
        Ok(command.output().await?)
    }

    /// Inserts one row in a transaction of its own.
    pub async fn insert(&self, payload: &str) -> Result<()> {
        insert(&self.sql, payload).await
    }

    /// Waits until the stream holds exactly the outbox, and returns it; says what differs.
    pub async fn settled(&self) -> Result<Vec<Stored>> {
        let expected: HashSet<String> = {
            let rows = self.sql.query("SELECT id::text FROM outbox", &[]).await?;
            rows.iter().map(|row| row.get(0)).collect()
        };
        eventually("the stream to hold the outbox", SOON * 2, async || {
            let count = self.count().await?;
            ensure!(
                count >= expected.len() as u64,
                "{count} of {}",
                expected.len()
            );
            Ok(Some(()))
        })
        .await?;
        let stored = self.stored().await?;
        let ids: HashSet<String> = stored.iter().map(|message| message.id.clone()).collect();
        ensure!(
            ids.len() == stored.len(),
            "an event stands twice in the stream"
        );
        ensure!(
            ids == expected,
            "the stream holds other events than the outbox"
        );
        let in_order = stored
            .windows(2)
            .all(|pair| pair[0].position < pair[1].position);
        ensure!(in_order, "the stream is not in commit order");
        Ok(stored)
    }

    /// How many messages the stream holds.
    pub async fn count(&self) -> Result<u64> {
        let jetstream = jetstream::new(self.nats.client().await?);
        let stream = jetstream.get_stream(STREAM).await?;
        Ok(stream.cached_info().state.messages)
    }

    /// Everything in the stream.
    pub async fn stored(&self) -> Result<Vec<Stored>> {
        let jetstream = jetstream::new(self.nats.client().await?);
        let stream = jetstream.get_stream(STREAM).await?;
        let count = usize::try_from(stream.cached_info().state.messages)?;
        let consumer = stream.create_consumer(OrderedConfig::default()).await?;
        let mut messages = consumer.messages().await?.take(count);
        let mut stored = Vec::with_capacity(count);
        while let Some(message) = messages.next().await {
            let message = message?;
            let headers = message.headers.clone().context("no headers")?;
            let header = |name: &str| Some(headers.get(name)?.as_str());
            stored.push(Stored {
                id: header(EVENT_ID).context("no id")?.to_owned(),
                subject: message.subject.to_string(),
                payload: String::from_utf8_lossy(&message.payload).into_owned(),
                position: header(POSITION).context("no position")?.parse()?,
                headers,
            });
        }
        Ok(stored)
    }

    /// Drops the slot, once its relay's connection has ended.
    pub async fn drop_slot(&self) -> Result<()> {
        eventually("the slot to be free", SOON, async || {
            let drop = "SELECT pg_drop_replication_slot($1)";
            self.sql.execute(drop, &[&SLOT]).await?;
            Ok(Some(()))
        })
        .await
    }

    /// What the slot has confirmed.
    pub async fn confirmed(&self) -> Result<PgLsn> {
        let query = "SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = $1";
        let row = self.sql.query_one(query, &[&SLOT]).await?;
        Ok(row.try_get(0)?)
    }

    /// Waits until the relay knows of all that it has published: an append whose connection was lost is
    /// in the stream before the relay has heard of it.
    pub async fn all_confirmed(&self) -> Result<()> {
        let end = self.wal_end().await?;
        eventually("all to be confirmed", SOON, async || {
            let confirmed = self.confirmed().await?;
            ensure!(confirmed >= end, "{confirmed} of {end}");
            Ok(Some(()))
        })
        .await
    }

    /// Where the WAL ends now.
    pub async fn wal_end(&self) -> Result<PgLsn> {
        let row = self
            .sql
            .query_one("SELECT pg_current_wal_lsn()", &[])
            .await?;
        Ok(row.get(0))
    }
}

/// Waits until the relay's log has this text.
pub async fn says(relay: &Process, text: &str) -> Result<()> {
    eventually(&format!("the relay to say `{text}`"), SOON, async || {
        ensure!(relay.log().text().contains(text), "{}", relay.log().tail());
        Ok(Some(()))
    })
    .await
}

pub async fn insert(sql: &Client, payload: &str) -> Result<()> {
    let statement = "INSERT INTO outbox (payload) VALUES (convert_to($1, 'UTF8'))";
    sql.execute(statement, &[&payload]).await?;
    Ok(())
}

/// How often a writer begins a transaction: a stream of work that a debug build keeps up with on a
/// shared machine, so that what is measured is faults and not the backlog.
const PACE: Duration = Duration::from_millis(5);

/// Inserts in transactions of their own until told to stop; returns how many rows it committed for
/// certain. Goes on over lost connections.
pub async fn load(url: String, writer: usize, stop: Arc<AtomicBool>) -> u64 {
    let (mut count, mut tries) = (0, 0_u64);
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !stop.load(Ordering::Relaxed) {
        pace.tick().await;
        let Ok((client, connection)) = tokio_postgres::connect(&url, NoTls).await else {
            continue;
        };
        tokio::spawn(connection);
        while !stop.load(Ordering::Relaxed) {
            pace.tick().await;
            tries += 1;
            // Now and then a transaction larger than a batch, and one that is rolled back.
            let rows = if tries.is_multiple_of(100) {
                1200
            } else {
                1 + tries % 3
            };
            let end = if tries.is_multiple_of(7) {
                "ROLLBACK"
            } else {
                "COMMIT"
            };
            let transaction = format!(
                "BEGIN; INSERT INTO outbox (payload) SELECT convert_to('{writer}-{tries}-' || n, 'UTF8') \
                 FROM generate_series(1, {rows}) n; {end}"
            );
            if client.batch_execute(&transaction).await.is_err() {
                break;
            }
            count += if end == "COMMIT" { rows } else { 0 };
        }
    }
    count
}
