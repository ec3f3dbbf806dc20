//! Steady state: transactions at a constant rate, and how long each takes from the moment at which it
//! was to be sent until JetStream has acknowledged its event.
//!
//! ```text
//! intended ─▶ sent ──INSERT, synced commit──▶ WAL ─▶ relay ─▶ JetStream ──acknowledgement──▶ relay
//!    └────────────────────────── measured ──────────────────────────────────────┘     └──▶ tap
//! ```
//!
//! An open model: a transaction is due by the clock, however long those before it take, and a late
//! beginning counts. The tap is a client that receives the server's acknowledgements to the relay at the
//! same moment as the relay does; nothing is asked of a consumer.

mod load;
mod reference;
mod tap;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use async_nats::jetstream::{self, consumer::pull::OrderedConfig, stream::Stream};
use futures_util::StreamExt;
use harness::{Guard, Nats};
use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::backlog::{self, DATABASE};
use super::drain;
use super::server::{self, STREAM, Sync};
use tap::Tap;

/// Not counted: caches, and the relay's first look at the table.
const WARM_UP: Duration = Duration::from_secs(2);
const SETTLE: Duration = Duration::from_secs(30);

/// Latencies at one rate, in microseconds.
#[derive(Debug)]
pub(super) struct Steady {
    pub(super) rate: u32,
    pub(super) seconds: u64,
    /// Median of one synced commit plus one publish acknowledgement, alone, in the same run.
    pub(super) reference: u64,
    /// From when the transaction was to be sent to the acknowledgement of its event.
    pub(super) acknowledged: Histogram<u64>,
    /// From when it was sent: what the load itself was late is left out.
    pub(super) from_sent: Histogram<u64>,
    /// From when it was to be sent to the answer to its commit.
    pub(super) committed: Histogram<u64>,
}

/// Measures at one rate, on servers of its own.
pub(super) async fn measure(rate: u32, seconds: u64, payload_bytes: u32) -> Result<Steady> {
    let postgres = server::postgres(&Guard::start()?).await?;
    postgres.create_database(DATABASE).await?;
    let sql = postgres.connect(DATABASE).await?;
    sql.batch_execute(backlog::SCHEMA).await?;
    let nats = server::nats(Sync::Default).await?;
    let guard = Guard::start()?;
    let relay = drain::start_relay(&guard, &postgres.url(DATABASE), &nats)?;
    relay.wait_ready().await?;

    let reference = reference::measure(&sql, &nats, payload_bytes).await?;
    let tap = Tap::start(&nats)?;
    let due = WARM_UP + Duration::from_secs(seconds);
    let count = u64::from(rate) * due.as_secs();
    let url = postgres.url(DATABASE);
    let sent = load::run(url, f64::from(rate), count, payload_bytes).await?;
    let mut stream = stored(&nats, count).await?;
    let acknowledged = tap.end(count)?;
    let sequences = sequences(&mut stream, count).await?;
    relay
        .terminate()
        .await
        .with_context(|| relay.log().tail())?;

    let skipped = u64::from(rate) * WARM_UP.as_secs();
    let counted = sent.iter().filter(|sent| sent.number > skipped);
    let mut steady = Steady {
        rate,
        seconds,
        reference,
        acknowledged: Histogram::new(3)?,
        from_sent: Histogram::new(3)?,
        committed: Histogram::new(3)?,
    };
    for sent in counted {
        let sequence = sequences.get(&sent.number).context("an event is missing")?;
        let at = acknowledged.partition_point(|(through, _)| through < sequence);
        let (_, at) = acknowledged
            .get(at)
            .context("an acknowledgement is missing")?;
        steady
            .acknowledged
            .record(microseconds(sent.intended, *at))?;
        steady.from_sent.record(microseconds(sent.sent, *at))?;
        steady
            .committed
            .record(microseconds(sent.intended, sent.committed))?;
    }
    Ok(steady)
}

fn microseconds(from: Instant, to: Instant) -> u64 {
    u64::try_from((to - from).as_micros()).unwrap_or(u64::MAX)
}

/// The stream, once it holds all events.
async fn stored(nats: &Nats, count: u64) -> Result<Stream> {
    let context = jetstream::new(nats.client().await?);
    let mut stream = context.get_stream(STREAM).await?;
    harness::eventually("all events", SETTLE, async || {
        let stored = stream.info().await?.state.messages;
        Ok((stored >= count).then_some(()))
    })
    .await?;
    Ok(stream)
}

/// At which sequence each event stands, by the number in its id.
async fn sequences(stream: &mut Stream, count: u64) -> Result<HashMap<u64, u64>> {
    let config = OrderedConfig {
        headers_only: true,
        ..OrderedConfig::default()
    };
    let mut messages = stream.create_consumer(config).await?.messages().await?;
    let mut sequences = HashMap::new();
    for _ in 0..count {
        let message = messages.next().await.context("the stream ended")??;
        let id = message
            .headers
            .as_ref()
            .and_then(|headers| headers.get("Nats-Msg-Id"));
        let digits = id
            .and_then(|id| id.as_str().rsplit('-').next())
            .context("no id")?;
        let sequence = message
            .info()
            .map_err(|error| anyhow::anyhow!(error))?
            .stream_sequence;
        sequences.insert(u64::from_str_radix(digits, 16)?, sequence);
    }
    Ok(sequences)
}

impl Steady {
    pub(super) fn json(&self) -> Value {
        let quantiles = |histogram: &Histogram<u64>| {
            json!({
                "p50": histogram.value_at_quantile(0.5),
                "p99": histogram.value_at_quantile(0.99),
                "p99_9": histogram.value_at_quantile(0.999),
                "max": histogram.max(),
            })
        };
        json!({
            "transactions_per_second": self.rate,
            "seconds": self.seconds,
            "unit": "microseconds",
            "commit_plus_acknowledgement_alone_p50": self.reference,
            "intended_to_acknowledged": quantiles(&self.acknowledged),
            "sent_to_acknowledged": quantiles(&self.from_sent),
            "intended_to_committed": quantiles(&self.committed),
        })
    }
}
