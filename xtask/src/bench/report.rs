//! The figures, as a table for people and as JSON for programs.

use serde_json::{Value, json};

use super::drain::{Contender, Drain};
use super::machine::Machine;
use super::relay::{Case, Found, Outcome};
use super::steady::Steady;
use super::targets::Verdict;

/// A drain that has just ended, so that a long run shows that it lives.
pub(super) fn progress(case: Case, contender: Contender, pass: usize, drain: &Drain) {
    eprintln!(
        "  pass {}: {} a transaction, sync {}: {} {:.0}/s",
        pass + 1,
        case.rows_per_transaction,
        case.sync.name(),
        contender.name(),
        drain.rate()
    );
}

pub(super) fn steady_progress(steady: &Steady) {
    let milliseconds = |quantile| steady.acknowledged.value_at_quantile(quantile) as f64 / 1e3;
    eprintln!(
        "  {} transactions/s for {} s: p50 {:.2} ms, p99 {:.2} ms",
        steady.rate,
        steady.seconds,
        milliseconds(0.5),
        milliseconds(0.99)
    );
}

pub(super) fn print(found: &Found, verdicts: &[Verdict]) {
    print_drains(&found.outcomes);
    print_steady(&found.steady);
    println!();
    verdicts.iter().for_each(Verdict::print);
}

fn print_drains(outcomes: &[Outcome]) {
    let mut last = None;
    for outcome in outcomes {
        if last != Some(outcome.case) {
            last = Some(outcome.case);
            let case = outcome.case;
            println!(
                "\n{} a transaction, sync_interval {}",
                case.rows_per_transaction,
                case.sync.name()
            );
            row([
                "median of the passes",
                "events",
                "events/s",
                "own CPU",
                "Postgres",
                "NATS",
                "peak MiB",
            ]);
        }
        if let Some(drain) = outcome.median() {
            print_drain(outcome.contender, drain);
        }
    }
    println!("CPU: seconds per million events; Postgres: the walsender, or the backend that polls");
}

fn print_drain(contender: Contender, drain: &Drain) {
    let per_million = |seconds: Option<f64>| {
        let seconds = seconds.map(|seconds| seconds * 1e6 / drain.rows as f64);
        seconds.map_or("–".to_owned(), |seconds| format!("{seconds:.2}"))
    };
    let peak = drain.usage.peak_kib.map(|kib| kib as f64 / 1024.0);
    row([
        contender.name(),
        &drain.rows.to_string(),
        &format!("{:.0}", drain.rate()),
        &per_million(drain.usage.contender),
        &per_million(drain.usage.postgres),
        &per_million(drain.usage.nats),
        &peak.map_or("–".to_owned(), |mib| format!("{mib:.1}")),
    ]);
}

fn row(columns: [&str; 7]) {
    let [name, rest @ ..] = columns;
    let rest = rest.map(|column| format!(" {column:>9}"));
    println!("{name:<34}{}", rest.concat());
}

fn print_steady(all: &[Steady]) {
    if all.is_empty() {
        return;
    }
    println!(
        "\n{:<34} {:>9} {:>9} {:>9} {:>9}",
        "steady state, milliseconds", "p50", "p99", "p99.9", "max"
    );
    for steady in all {
        let rate = steady.rate;
        for (what, histogram) in [
            ("acknowledged", &steady.acknowledged),
            ("acknowledged, since sent", &steady.from_sent),
            ("committed", &steady.committed),
        ] {
            let milliseconds = |value: u64| format!("{:.2}", value as f64 / 1e3);
            println!(
                "{:<34} {:>9} {:>9} {:>9} {:>9}",
                format!("{rate}/s: {what}"),
                milliseconds(histogram.value_at_quantile(0.5)),
                milliseconds(histogram.value_at_quantile(0.99)),
                milliseconds(histogram.value_at_quantile(0.999)),
                milliseconds(histogram.max()),
            );
        }
        println!(
            "{:<34} {:>9.2}",
            format!("{rate}/s: commit + ack alone"),
            steady.reference as f64 / 1e3
        );
    }
}

pub(super) fn json(
    machine: &Machine,
    payload_bytes: u32,
    found: &Found,
    verdicts: &[Verdict],
) -> String {
    let page = json!({
        "machine": machine.json(),
        "payload_bytes": payload_bytes,
        "drains": found.outcomes.iter().map(outcome).collect::<Vec<_>>(),
        "steady": found.steady.iter().map(Steady::json).collect::<Vec<_>>(),
        "targets": verdicts.iter().map(Verdict::json).collect::<Vec<_>>(),
    });
    format!("{page:#}\n")
}

fn outcome(outcome: &Outcome) -> Value {
    json!({
        "rows_per_transaction": outcome.case.rows_per_transaction,
        "sync_interval": outcome.case.sync.name(),
        "contender": outcome.contender.key(),
        "median": outcome.median().map(drain),
        "passes": outcome.drains.iter().map(drain).collect::<Vec<_>>(),
    })
}

fn drain(drain: &Drain) -> Value {
    let per_million = |seconds: Option<f64>| seconds.map(|s| s * 1e6 / drain.rows as f64);
    json!({
        "events": drain.rows,
        "seconds": drain.seconds,
        "events_per_second": drain.rate(),
        "first_event_seconds": drain.first_event_seconds,
        "cpu_seconds_per_million": {
            "contender": per_million(drain.usage.contender),
            "postgres": per_million(drain.usage.postgres),
            "nats_server": per_million(drain.usage.nats),
        },
        "peak_resident_kib": drain.usage.peak_kib,
    })
}
