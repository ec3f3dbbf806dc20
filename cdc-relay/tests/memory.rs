//! I12: what the relay takes of memory does not depend on a transaction's size, nor on what is rolled
//! back in it.
//!
//! `CDC_TEST_ROWS` sets how many rows the large transaction has: two million take their time in a debug
//! build.

mod rig;

use std::fs;

use anyhow::{Context as _, Result, ensure};
use async_nats::jetstream::{self, consumer::pull::OrderedConfig};
use futures_util::StreamExt as _;
use harness::{Process, eventually};
use mailbox::envelope::{POSITION, Position};
use rig::{DATABASE, Rig, STREAM};
use std::time::Duration;
use tokio_postgres::Client;

const ROWS: u64 = 200_000;
const PARTS: u64 = 20;
const SMALL: u64 = 3;

/// Resident memory, at its highest.
const PEAK_MIB_MAX: u64 = 64;

/// A debug build on a busy machine publishes some thousands of rows a second.
const DEADLINE: Duration = Duration::from_secs(1800);

async fn rows(sql: &Client, name: &str, from: u64, to: u64) -> Result<()> {
    let statement = format!(
        "INSERT INTO outbox (payload) SELECT convert_to('{name}-' || n, 'UTF8') FROM generate_series({from}, {to}) n"
    );
    Ok(sql.batch_execute(&statement).await?)
}

fn peak_mib(relay: &Process) -> Result<u64> {
    let pid = relay.pid().context("the relay does not run")?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.context("no VmHWM")?.parse::<u64>()? / 1024)
}

/// Reads the stream from its beginning: the payloads have to be these, in commit order.
async fn ensure_holds(rig: &Rig, mut expected: impl Iterator<Item = String>) -> Result<()> {
    let jetstream = jetstream::new(rig.nats.client().await?);
    let stream = jetstream.get_stream(STREAM).await?;
    let count = usize::try_from(stream.cached_info().state.messages)?;
    let consumer = stream.create_consumer(OrderedConfig::default()).await?;
    let mut messages = consumer.messages().await?.take(count);
    let mut last: Option<Position> = None;
    while let Some(message) = messages.next().await {
        let message = message?;
        let headers = message.headers.as_ref().context("no headers")?;
        let position: Position = headers
            .get(POSITION)
            .context("no position")?
            .as_str()
            .parse()?;
        ensure!(
            last.is_none_or(|last| last < position),
            "not in commit order at {position}"
        );
        last = Some(position);
        let payload = std::str::from_utf8(&message.payload)?;
        let next = expected.next();
        ensure!(
            next.as_deref() == Some(payload),
            "{payload} stands where {next:?} should"
        );
    }
    ensure!(
        expected.next().is_none(),
        "the stream ends too early, after {count}"
    );
    Ok(())
}

#[tokio::test]
async fn a_transaction_of_any_size_beside_small_ones_takes_no_memory() -> Result<()> {
    let total = match std::env::var("CDC_TEST_ROWS") {
        Ok(rows) => rows.parse()?,
        Err(_) => ROWS,
    };
    let part = total / PARTS;
    let rig = Rig::start_with(&[("logical_decoding_work_mem", "64kB")]).await?;
    let relay = rig.relay("relay")?;
    relay.wait_ready().await?;
    let (large, never) = (
        rig.postgres.connect(DATABASE).await?,
        rig.postgres.connect(DATABASE).await?,
    );
    large.batch_execute("BEGIN").await?;
    never.batch_execute("BEGIN").await?;
    let mut small = 0;
    for at in 0..PARTS {
        rows(&large, "large", at * part + 1, (at + 1) * part).await?;
        large.batch_execute("SAVEPOINT s").await?;
        rows(&large, "taken back", 1, part / 10).await?;
        large.batch_execute("ROLLBACK TO s").await?;
        rows(&never, "never", 1, part / 10).await?;
        for _ in 0..SMALL {
            small += 1;
            rig.insert(&format!("small-{small}")).await?;
        }
    }
    let before = small;
    eventually("the small ones", DEADLINE, async || {
        let count = rig.count().await?;
        ensure!(count == before, "{count} of {before}");
        Ok(Some(()))
    })
    .await?;
    never.batch_execute("ROLLBACK").await?;
    large.batch_execute("COMMIT").await?;
    for _ in 0..SMALL {
        small += 1;
        rig.insert(&format!("small-{small}")).await?;
    }
    eventually("all of it", DEADLINE, async || {
        let count = rig.count().await?;
        ensure!(count == small + part * PARTS, "{count}");
        Ok(Some(()))
    })
    .await?;
    let peak = peak_mib(&relay)?;
    assert_eq!(
        relay.metric("cdc_relay_spool_replayed_total").await?,
        Some(1.0)
    );
    ensure!(peak < PEAK_MIB_MAX, "{peak} MiB at the highest");

    let expected = (1..=before).map(|n| format!("small-{n}"));
    let expected = expected.chain((1..=part * PARTS).map(|n| format!("large-{n}")));
    let expected = expected.chain((before + 1..=small).map(|n| format!("small-{n}")));
    ensure_holds(&rig, expected).await?;
    // Shown when all goes well, too: with --nocapture.
    #[allow(clippy::print_stdout, reason = "the figure is the point")]
    {
        println!("{total} rows: {peak} MiB at the highest");
    }
    Ok(())
}
