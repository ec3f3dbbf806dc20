//! `loadgen`: load on the services that holds its rate whatever they do, and a report that judges what came of
//! it: latency from when each request was due, and whether the books balance afterwards.

// Speaking to a person at a terminal is what this program is for.
#![allow(clippy::print_stderr, clippy::print_stdout)]

mod books;
mod cli;
mod mix;
mod progress;
mod reach;
mod record;
mod report;
mod schedule;
mod shop;
mod slo;
mod traffic;
mod value;
mod zipf;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result};
use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};

use self::cli::Cli;
use self::reach::Services;
use self::record::Record;
use self::report::{Circumstances, Outcome, Report};
use self::schedule::Arrivals;
use self::shop::Shop;
use self::traffic::Traffic;
use self::zipf::Zipf;

/// Between the preparations and the first request.
const BREATH: Duration = Duration::from_millis(200);

const SLO_MISSED: u8 = 3;
const BOOKS_UNBALANCED: u8 = 4;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = tokio::runtime::Runtime::new()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(run(&cli)));
    match outcome {
        Ok(Outcome::Passed) => ExitCode::SUCCESS,
        Ok(Outcome::SloMissed) => ExitCode::from(SLO_MISSED),
        Ok(Outcome::BooksUnbalanced) => ExitCode::from(BOOKS_UNBALANCED),
        Err(error) => {
            eprintln!("loadgen: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: &Cli) -> Result<Outcome> {
    let load = &cli.load;
    let profile = load.profile()?;
    let end = profile.end();
    let seed = load.seed.unwrap_or_else(rand::random);
    let services = Services::reach(&cli.connection).await?;
    eprintln!("preparing {} customers; the seed is {seed}", load.customers);
    let shop = Shop::open(&services, load).await?;
    let customers = usize::try_from(load.customers)?;
    let zipf = Zipf::new(customers, load.zipf);
    let arrivals = Arrivals::new(profile, load.arrivals, load.mix, zipf, seed);
    let start = Instant::now() + BREATH;
    let traffic = Arc::new(Traffic {
        services,
        shop,
        record: Record::new(start, (load.warm_up, end), load.request_timeout),
        request_timeout: load.request_timeout,
        settle_timeout: load.settle_timeout,
        track: load.track,
    });
    let started = SystemTime::now();
    let stop = Arc::new(AtomicBool::new(false));
    let signals = tokio::spawn(stop_on_signals(stop.clone()));
    let progress = tokio::spawn(progress::show(traffic.clone()));
    let in_flight = usize::try_from(load.in_flight)?;
    let sent = traffic::run(&traffic, arrivals, in_flight, &stop).await;
    progress.abort();
    progress::end();
    let stopped = sent?;
    eprintln!("reading the books");
    let books = books::audit(&traffic.services, &traffic.shop, load.settle_timeout).await?;
    signals.abort();
    let circumstances = Circumstances {
        seed,
        counted: stopped.unwrap_or(end).saturating_sub(load.warm_up),
        interrupted: stopped.is_some(),
        started,
    };
    let report = Report::new(cli, &circumstances, &traffic.record, books);
    publish(cli, &report)?;
    Ok(report.verdict)
}

/// The first signal ends the load, and what was sent is reported; the second ends the program.
async fn stop_on_signals(stop: Arc<AtomicBool>) {
    let signals = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    );
    let (Ok(mut interrupt), Ok(mut terminate)) = signals else {
        return;
    };
    loop {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        if stop.swap(true, Ordering::Relaxed) {
            std::process::exit(1);
        }
        eprintln!("\nstopping: no more requests; again ends at once");
    }
}

fn publish(cli: &Cli, report: &Report) -> Result<()> {
    for line in report.lines() {
        eprintln!("{line}");
    }
    for finding in &report.books.findings {
        eprintln!("WRONG      {finding}");
    }
    if let Some(path) = &cli.judgement.html {
        write(path, &report.html())?;
    }
    if let Some(path) = &cli.judgement.json {
        write(path, &report.json()?)?;
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    if path == Path::new("-") {
        print!("{text}");
        return Ok(());
    }
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
