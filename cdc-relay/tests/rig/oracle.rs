//! What must stand in the stream, from somewhere else than the relay's own positions: each transaction
//! takes a ticket as its last act, under a lock that it holds until it has committed. So the order of
//! the tickets is the order of the commits, and a ticket that was rolled back is taken again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Result, anyhow, bail, ensure};
use async_nats::{
    Client as Nats,
    jetstream::{
        self, Message,
        consumer::{AckPolicy, DeliverPolicy, pull},
    },
};
use futures_util::StreamExt as _;
use harness::eventually;
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};
use tokio_postgres::{Client, NoTls};

use super::STREAM;

pub const TABLES: &str = "
    CREATE TABLE outbox (
        id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
        aggregatetype text NOT NULL DEFAULT 'thing',
        aggregateid text NOT NULL DEFAULT '1',
        type text NOT NULL DEFAULT 'Made',
        payload text NOT NULL
    );
    CREATE TABLE ticket (last bigint NOT NULL);
    INSERT INTO ticket VALUES (0);
    CREATE TABLE commits (ticket bigint PRIMARY KEY, writer text NOT NULL, rows int NOT NULL)";

const WRITERS: usize = 3;

/// A stream of work that a debug build keeps up with on a shared machine: what is measured is faults.
const PACE: Duration = Duration::from_millis(8);

/// How long the stream may take to hold everything, once nothing is broken any more.
const SETTLE_DEADLINE: Duration = Duration::from_secs(120);

/// How long reading on in the stream may wait for one message.
const READ_DEADLINE: Duration = Duration::from_secs(20);

/// How often the stream is read again after a failure.
const READ_TRIES: usize = 4;

/// Writers that go on over lost connections until they are stopped.
pub struct Writers {
    stop: Arc<AtomicBool>,
    writers: JoinSet<()>,
}

impl Writers {
    pub fn start(url: &str, round: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            let name = format!("{round}.{writer}");
            writers.spawn(write(url.to_owned(), name, stop.clone()));
        }
        Self { stop, writers }
    }

    pub async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.writers.join_all().await;
    }
}

async fn write(url: String, name: String, stop: Arc<AtomicBool>) {
    let mut tries = 0_u64;
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
            if client
                .batch_execute(&transaction(&name, tries))
                .await
                .is_err()
            {
                break;
            }
        }
    }
}

/// Most are small; now and then one is larger than a batch, and one is rolled back.
fn transaction(writer: &str, number: u64) -> String {
    let rows = match number % 60 {
        30 => 1200,
        0 => 70,
        other => 1 + other % 3,
    };
    let end = if number.is_multiple_of(7) {
        "ROLLBACK"
    } else {
        "COMMIT"
    };
    let writer = format!("{writer}.{number}");
    format!(
        "BEGIN; INSERT INTO outbox (payload) SELECT '{writer}/' || n FROM generate_series(1, {rows}) n; \
         UPDATE ticket SET last = last + 1; \
         INSERT INTO commits SELECT last, '{writer}', {rows} FROM ticket; {end}"
    )
}

/// How far the stream has been compared with the tickets.
#[derive(Debug, Default)]
pub struct Oracle {
    ticket: i64,
    sequence: u64,
    pub events: u64,
}

impl Oracle {
    /// Waits until the stream holds as many events as were committed, and compares what has come since
    /// the last time: each transaction whole, in the order of the commits, and nothing else. Nobody
    /// writes meanwhile.
    pub async fn check(&mut self, sql: &Client, nats: &Nats) -> Result<()> {
        let query = "SELECT ticket, writer, rows FROM commits WHERE ticket > $1 ORDER BY ticket";
        let commits = sql.query(query, &[&self.ticket]).await?;
        let mut expected = Vec::new();
        for commit in commits {
            let (ticket, writer, rows): (i64, String, i32) =
                (commit.get(0), commit.get(1), commit.get(2));
            ensure!(
                ticket == self.ticket + 1,
                "the tickets have a gap at {ticket}"
            );
            self.ticket = ticket;
            expected.extend((1..=rows).map(|row| format!("{writer}/{row}")));
        }
        let jetstream = jetstream::new(nats.clone());
        let end = self.sequence + expected.len() as u64;
        let (from, mut seen) = (self.sequence, 0);
        let awaited = eventually(
            "the stream to hold what was committed",
            SETTLE_DEADLINE,
            async || {
                let stream = jetstream.get_stream(STREAM).await?;
                seen = stream.cached_info().state.last_sequence;
                ensure!(seen >= end, "it ends at {seen}, and should at {end}");
                Ok(Some(()))
            },
        );
        let awaited = awaited.await;
        let found = read(nats, self.sequence, seen).await?;
        let text = |message: &Message| String::from_utf8_lossy(&message.payload).into_owned();
        let found: Vec<_> = found.iter().map(text).collect();
        if let Some(at) = (0..found.len()).find(|at| found.get(*at) != expected.get(*at)) {
            let around = |list: &[String]| {
                let (first, last) = (at.saturating_sub(3), list.len().min(at + 4));
                list[first.min(last)..last].join(", ")
            };
            bail!(
                "message {} is wrong: around it stand\n  {}\nand should\n  {}",
                from + at as u64 + 1,
                around(&found),
                around(&expected)
            );
        }
        awaited?;
        self.sequence = end;
        self.events += expected.len() as u64;
        Ok(())
    }
}

/// The messages behind `after` up to `end`, none left out.
pub async fn read(nats: &Nats, after: u64, end: u64) -> Result<Vec<Message>> {
    let mut tries = 0;
    loop {
        tries += 1;
        match read_once(nats, after, end).await {
            // A leader may be lost meanwhile. What is wrong with the stream stays.
            Err(error) if tries < READ_TRIES => println!("    reading again: {error:#}"),
            read => return read,
        }
    }
}

/// Not by an ordered consumer: when that is made again before its first message came, it begins at the
/// stream's first (async-nats 0.51).
async fn read_once(nats: &Nats, after: u64, end: u64) -> Result<Vec<Message>> {
    let mut found = Vec::new();
    if end <= after {
        return Ok(found);
    }
    let stream = jetstream::new(nats.clone()).get_stream(STREAM).await?;
    let config = pull::Config {
        deliver_policy: DeliverPolicy::ByStartSequence {
            start_sequence: after + 1,
        },
        ack_policy: AckPolicy::None,
        inactive_threshold: READ_DEADLINE,
        memory_storage: true,
        num_replicas: 1,
        ..pull::Config::default()
    };
    let consumer = stream.create_consumer(config).await?;
    loop {
        let left = usize::try_from(end - after)? - found.len();
        let batch = consumer
            .batch()
            .max_messages(left.min(10_000))
            .expires(READ_DEADLINE);
        let mut messages = batch.messages().await?;
        let before = found.len();
        while let Some(message) = messages.next().await {
            let message = message.map_err(|error| anyhow!("{error}"))?;
            let sequence = message
                .info()
                .map_err(|error| anyhow!("{error}"))?
                .stream_sequence;
            let expected = after + 1 + found.len() as u64;
            ensure!(
                sequence == expected,
                "message {expected} is gone: {sequence} comes in its place"
            );
            found.push(message);
            if sequence == end {
                return Ok(found);
            }
        }
        ensure!(
            found.len() > before,
            "the stream says nothing after {}",
            after + before as u64
        );
    }
}
