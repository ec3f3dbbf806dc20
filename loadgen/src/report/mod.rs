//! What is reported, for programs as JSON and for people as one page: both from the same figures.

mod chart;
mod html;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hdrhistogram::{Counter, Histogram};
use proto::Timestamp;
use serde::Serialize;

use crate::books::Books;
use crate::cli::Cli;
use crate::mix::Operation;
use crate::record::{Interval, Numbers, OfOperation, Record};
use crate::slo::Verdict;

/// Changes when a field is taken away or changes its meaning; a new one is no change.
const SCHEMA: &str = "loadgen-report/1";
/// So many steps in each halving of what is left up to 100%.
const STEPS: u32 = 5;

/// `loadgen/report.schema.json` describes it.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    schema: &'static str,
    version: &'static str,
    pub(crate) verdict: Outcome,
    started: Timestamp,
    interrupted: bool,
    settings: Settings,
    rates: Rates,
    totals: Totals,
    operations: BTreeMap<&'static str, OperationReport>,
    latency_unit: &'static str,
    request: Latency,
    settled: Latency,
    sending: Latency,
    refused: Latency,
    orders: OrdersReport,
    interval_seconds: f64,
    timeline: Vec<Point>,
    pub(crate) slos: Vec<Verdict>,
    pub(crate) books: Books,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    Passed,
    SloMissed,
    BooksUnbalanced,
}

#[derive(Debug, Serialize)]
struct Settings {
    via: crate::cli::Via,
    rate: f64,
    arrivals: crate::schedule::ArrivalKind,
    stages: Vec<(f64, f64)>,
    warm_up_seconds: f64,
    counted_seconds: f64,
    mix: BTreeMap<&'static str, f64>,
    customers: u64,
    zipf: f64,
    amount: i64,
    credit_limit: i64,
    in_flight: u64,
    request_timeout_seconds: f64,
    settle_timeout_seconds: f64,
    track: f64,
    seed: u64,
    connections: u16,
}

/// A second, over what was counted.
#[derive(Debug, Serialize)]
struct Rates {
    offered: f64,
    answered: f64,
    settled: f64,
}

#[derive(Debug, Default, Serialize)]
struct Totals {
    offered: u64,
    ok: u64,
    failed: u64,
    unsent: u64,
    late: u64,
}

#[derive(Debug, Serialize)]
struct OperationReport {
    offered: u64,
    ok: u64,
    failed: u64,
    unsent: u64,
    late: u64,
    errors: BTreeMap<String, u64>,
    latency: Latency,
}

/// Microseconds; nothing but the count where nothing was recorded.
#[derive(Debug, Serialize)]
struct Latency {
    count: u64,
    mean: f64,
    p50: u64,
    p90: u64,
    p99: u64,
    p99_9: u64,
    p99_99: u64,
    max: u64,
    /// Quantile and value.
    distribution: Vec<(f64, u64)>,
}

#[derive(Debug, Serialize)]
struct OrdersReport {
    created: u64,
    approved: u64,
    cancelled: u64,
    unsettled: u64,
    untracked: u64,
}

#[derive(Debug, Serialize)]
struct Point {
    second: f64,
    warm_up: bool,
    offered: f64,
    ok: f64,
    failed: f64,
    unsent: f64,
    settled: f64,
    request_p50: Option<u64>,
    request_p99: Option<u64>,
    settled_p50: Option<u64>,
    settled_p99: Option<u64>,
}

impl Latency {
    fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile);
        let distribution = histogram
            .iter_quantiles(STEPS)
            .map(|step| {
                (
                    step.quantile_iterated_to(),
                    histogram.value_at_quantile(step.quantile_iterated_to()),
                )
            })
            .collect();
        Self {
            count: histogram.len(),
            mean: histogram.mean(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            p99_99: at(0.9999),
            max: histogram.max(),
            distribution,
        }
    }
}

impl OperationReport {
    fn of(one: &OfOperation) -> Self {
        Self {
            offered: one.offered,
            ok: one.ok,
            failed: one.failed(),
            unsent: one.unsent,
            late: one.late,
            errors: one.errors.clone(),
            latency: Latency::of(&one.latency),
        }
    }
}

fn quantile<C: Counter>(histogram: Option<&Histogram<C>>, quantile: f64) -> Option<u64> {
    histogram.map(|histogram| histogram.value_at_quantile(quantile))
}

impl Point {
    fn of(index: usize, one: &Interval, width: Duration, warm_up: Duration) -> Self {
        let width = width.as_secs_f64();
        let second = index as f64 * width;
        let a_second = |count: u64| count as f64 / width;
        Self {
            second,
            warm_up: second < warm_up.as_secs_f64(),
            offered: a_second(one.offered),
            ok: a_second(one.ok),
            failed: a_second(one.failed),
            unsent: a_second(one.unsent),
            settled: a_second(one.settled),
            request_p50: quantile(one.request.as_ref(), 0.5),
            request_p99: quantile(one.request.as_ref(), 0.99),
            settled_p50: quantile(one.settling.as_ref(), 0.5),
            settled_p99: quantile(one.settling.as_ref(), 0.99),
        }
    }
}

/// What the run was like, besides its numbers.
#[derive(Debug)]
pub(crate) struct Circumstances {
    pub(crate) seed: u64,
    /// How long requests were counted.
    pub(crate) counted: Duration,
    pub(crate) interrupted: bool,
    pub(crate) started: SystemTime,
}

impl Report {
    pub(crate) fn new(
        cli: &Cli,
        circumstances: &Circumstances,
        record: &Record,
        books: Books,
    ) -> Self {
        let numbers = record.numbers();
        let slos: Vec<_> = cli
            .judgement
            .slo
            .iter()
            .map(|slo| slo.judge(&numbers))
            .collect();
        let verdict = if !books.balanced {
            Outcome::BooksUnbalanced
        } else if slos.iter().any(|slo| !slo.met) {
            Outcome::SloMissed
        } else {
            Outcome::Passed
        };
        let operations = Operation::ALL
            .iter()
            .zip(&numbers.operations)
            .map(|(operation, one)| (operation.name(), OperationReport::of(one)))
            .collect();
        let points = numbers.intervals.iter().enumerate();
        let timeline = points
            .map(|(index, one)| Point::of(index, one, record.interval(), cli.load.warm_up))
            .collect();
        Self {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION"),
            verdict,
            started: timestamp(circumstances.started),
            interrupted: circumstances.interrupted,
            settings: settings(cli, circumstances),
            rates: rates(&numbers, circumstances.counted),
            totals: totals(&numbers),
            operations,
            latency_unit: "microseconds",
            request: Latency::of(&numbers.request),
            settled: Latency::of(&numbers.settled),
            sending: Latency::of(&numbers.sending),
            refused: Latency::of(&numbers.refused),
            orders: OrdersReport {
                created: numbers.orders.created,
                approved: numbers.orders.approved,
                cancelled: numbers.orders.cancelled,
                unsettled: numbers.orders.unsettled,
                untracked: numbers.orders.untracked,
            },
            interval_seconds: record.interval().as_secs_f64(),
            timeline,
            slos,
            books,
        }
    }

    pub(crate) fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self).map(|page| page + "\n")
    }

    pub(crate) fn html(&self) -> String {
        html::page(self)
    }

    /// What a person at a terminal wants to know.
    pub(crate) fn lines(&self) -> Vec<String> {
        let latency = |what: &str, one: &Latency| {
            let ms = |value: u64| value as f64 / 1e3;
            format!(
                "{what:<10} p50 {:.1} ms, p90 {:.1} ms, p99 {:.1} ms, p99.9 {:.1} ms, max {:.1} ms",
                ms(one.p50),
                ms(one.p90),
                ms(one.p99),
                ms(one.p99_9),
                ms(one.max)
            )
        };
        let mut lines = vec![
            format!(
                "rates      {:.1}/s offered, {:.1}/s answered, {:.1}/s settled",
                self.rates.offered, self.rates.answered, self.rates.settled
            ),
            format!(
                "requests   {} offered: {} ok, {} failed, {} unsent; {} sent late",
                self.totals.offered,
                self.totals.ok,
                self.totals.failed,
                self.totals.unsent,
                self.totals.late
            ),
            latency("request", &self.request),
            latency("settled", &self.settled),
        ];
        if self.refused.count > 0 {
            lines.push(latency("refused", &self.refused));
        }
        for (operation, one) in &self.operations {
            for (code, count) in &one.errors {
                lines.push(format!("errors     {operation}: {count} {code}"));
            }
        }
        let books = &self.books;
        lines.push(format!(
            "books      {} customers, {} orders: {} approved, {} cancelled, {} pending: {}",
            books.customers,
            books.orders,
            books.approved,
            books.cancelled,
            books.pending,
            if books.balanced {
                "they balance"
            } else {
                "THEY DO NOT BALANCE"
            }
        ));
        lines.extend(self.slos.iter().map(|slo| format!("slo        {slo}")));
        lines
    }
}

fn settings(cli: &Cli, circumstances: &Circumstances) -> Settings {
    let load = &cli.load;
    let stages = load.stages.iter();
    Settings {
        via: cli.connection.via,
        rate: load.rate,
        arrivals: load.arrivals,
        stages: stages
            .map(|stage| (stage.lasts.as_secs_f64(), stage.rate))
            .collect(),
        warm_up_seconds: load.warm_up.as_secs_f64(),
        counted_seconds: circumstances.counted.as_secs_f64(),
        mix: load
            .mix
            .shares()
            .map(|(operation, share)| (operation.name(), share))
            .collect(),
        customers: load.customers,
        zipf: load.zipf,
        amount: load.amount,
        credit_limit: load.credit_limit,
        in_flight: load.in_flight,
        request_timeout_seconds: load.request_timeout.as_secs_f64(),
        settle_timeout_seconds: load.settle_timeout.as_secs_f64(),
        track: load.track,
        seed: circumstances.seed,
        connections: cli.connection.connections,
    }
}

fn totals(numbers: &Numbers) -> Totals {
    let mut totals = Totals::default();
    for one in &numbers.operations {
        totals.offered += one.offered;
        totals.ok += one.ok;
        totals.failed += one.failed();
        totals.unsent += one.unsent;
        totals.late += one.late;
    }
    totals
}

fn rates(numbers: &Numbers, counted: Duration) -> Rates {
    let seconds = counted.as_secs_f64().max(f64::MIN_POSITIVE);
    Rates {
        offered: totals(numbers).offered as f64 / seconds,
        answered: numbers.answered_within as f64 / seconds,
        settled: numbers.settled_within as f64 / seconds,
    }
}

fn timestamp(time: SystemTime) -> Timestamp {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or_default(),
        nanos: 0,
    }
}
