//! `cargo xtask bench saga`: orders settled per second by the whole system, beside what Postgres does alone
//! with the same SQL, and beside the same system that applies one event a transaction.
//!
//! ```text
//! gRPC CreateOrder ─▶ order-service ─▶ Postgres ─▶ relay ─▶ JetStream ─▶ customer-service ─▶ Postgres ─┐
//!      └───────────── measured ───────────── OrderApproved ◀─ JetStream ◀─ relay ◀─ … order-service ◀──┘
//! ```

mod ceiling;
mod load;
mod report;
mod usage;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::System;
use hdrhistogram::Histogram;

use super::{machine, release};
use load::Model;
use usage::{Look, Usage};

/// So many share the orders.
const CUSTOMERS: usize = 1000;

const WARM_UP: Duration = Duration::from_secs(3);
const UNLOADED: Duration = Duration::from_secs(5);
/// Linux writes what has been dirty for half a minute to disk at once, and syncs of the WAL wait behind it for a
/// moment: in so long a measurement that counts for as much as it happens.
const HALF_LOAD: u32 = 4;

/// Production's durability, and no checkpoint by itself within a run.
const SETTINGS: [(&str, &str); 5] = [
    ("fsync", "on"),
    ("synchronous_commit", "on"),
    ("shared_buffers", "256MB"),
    ("max_wal_size", "16GB"),
    ("checkpoint_timeout", "1h"),
];

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Seconds that each measurement takes; that of latency at half of saturation takes four times as long
    #[arg(long, default_value_t = 15)]
    seconds: u64,
    /// How often all is measured; the medians count
    #[arg(long, default_value_t = 3)]
    passes: usize,
    /// Orders under way at saturation
    #[arg(long, default_value_t = 1024)]
    under_way: usize,
    /// Writes all figures to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Measures the binaries beside this program, whatever they were built for
    #[arg(long, hide = true)]
    no_build: bool,
}

/// What one pass has found, in sagas a second and microseconds.
#[derive(Debug)]
struct Pass {
    ceiling: f64,
    one_message: f64,
    system: f64,
    usage: Vec<Usage>,
    unloaded: Histogram<u64>,
    half: Histogram<u64>,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    ensure!(
        cfg!(target_os = "linux"),
        "the benchmark reads /proc: it needs Linux"
    );
    if !arguments.no_build {
        return release::build_and_run(2, &["order-service", "customer-service", "cdc-relay"]);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(measure(arguments))
}

async fn measure(arguments: &Arguments) -> Result<()> {
    let machine = machine::describe()?;
    eprintln!("{machine}");
    let mut passes = Vec::new();
    for number in 1..=arguments.passes.max(1) {
        let pass = pass(arguments).await?;
        eprintln!(
            "  pass {number}: pgbench {:.0}/s, one message a transaction {:.0}/s, the system {:.0}/s",
            pass.ceiling, pass.one_message, pass.system
        );
        passes.push(pass);
    }
    let verdicts = report::judge(&passes);
    report::print(&passes, &verdicts);
    if let Some(path) = &arguments.json {
        let page = report::json(&machine, &passes, &verdicts);
        std::fs::write(path, page).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

async fn pass(arguments: &Arguments) -> Result<Pass> {
    let counted = Duration::from_secs(arguments.seconds);
    let saturating = Model::Closed(arguments.under_way);
    let ceiling = ceiling::measure(arguments.seconds).await?;

    let one_message = {
        let system = system(&[("CONSUMER_BATCH_MAX", "1")]).await?;
        let customers = load::customers(&system).await?;
        let settled = load::run(&system, &customers, saturating, (WARM_UP, counted)).await?;
        settled.per_second
    };

    let system = system(&[]).await?;
    let customers = load::customers(&system).await?;
    let alone = Model::Closed(1);
    let unloaded = load::run(
        &system,
        &customers,
        alone,
        (Duration::from_secs(1), UNLOADED),
    )
    .await?;
    let look = Look::at(&system)?;
    let settled = load::run(&system, &customers, saturating, (WARM_UP, counted)).await?;
    let usage = look.until_now(&system)?;
    let half = Model::Open(settled.per_second / 2.0);
    let half = load::run(&system, &customers, half, (WARM_UP, counted * HALF_LOAD)).await?;
    Ok(Pass {
        ceiling,
        one_message,
        system: settled.per_second,
        usage,
        unloaded: unloaded.latency,
        half: half.latency,
    })
}

/// Both services and both relays, with some variables of the services.
async fn system(environment: &[(&str, &str)]) -> Result<System> {
    let mut builder = System::builder();
    for (name, value) in SETTINGS {
        builder = builder.postgres(name, value);
    }
    for service in ["order-service", "customer-service"] {
        for (key, value) in environment {
            builder = builder.env(service, key, value);
        }
    }
    builder.start().await
}
