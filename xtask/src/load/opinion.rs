//! What one program says of a load, and how far two may be apart.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Of the rates: both keep the clock.
const RATE_APART_MAX: f64 = 0.01;
/// Of a percentile of the one to that of the other, or so many milliseconds where that is more: a few requests
/// decide what p99 is, and whatever else the machine does decides those.
const P50_APART_MAX: (f64, f64) = (0.25, 0.5);
const P99_APART_MAX: (f64, f64) = (0.5, 3.0);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Operation {
    Create,
    Get,
}

const OPERATIONS: [Operation; 2] = [Operation::Create, Operation::Get];

/// Of both operations.
#[derive(Clone, Debug)]
pub(super) struct Opinion {
    of: [Figures; 2],
}

/// Answered requests a second, and latency in microseconds.
#[derive(Clone, Copy, Debug)]
struct Figures {
    rate: f64,
    p50: f64,
    p99: f64,
}

impl Opinion {
    /// By `loadgen --json`: latency from when a request was due.
    pub(super) fn of_loadgen(report: &Value) -> Result<Self> {
        let seconds = report["settings"]["counted_seconds"].as_f64();
        let seconds = seconds.context("a report without seconds")?;
        let figures = |operation: &str| {
            let one = &report["operations"][operation];
            let number = |pointer: &str| {
                let number = one.pointer(pointer).and_then(Value::as_f64);
                number.with_context(|| format!("a report without {operation}{pointer}"))
            };
            anyhow::Ok(Figures {
                rate: number("/ok")? / seconds,
                p50: number("/latency/p50")?,
                p99: number("/latency/p99")?,
            })
        };
        Ok(Self {
            of: [figures("create")?, figures("get")?],
        })
    }

    /// By the lines of `h2load --log-file`: when it was sent and how long it took, in microseconds, and the status
    /// of HTTP between.
    pub(super) fn of_h2load(logs: [&str; 2], warm_up: u64, seconds: u64) -> Result<Self> {
        let figures = |log: &str| {
            let lines = log.lines().map(|line| -> Option<(u64, u64)> {
                let mut cells = line.split('\t');
                let (begun, status, took) = (cells.next()?, cells.next()?, cells.next()?);
                (status == "200").then_some((begun.parse().ok()?, took.parse().ok()?))
            });
            let lines: Option<Vec<_>> = lines.collect();
            let lines = lines.context("h2load had no answer to a request")?;
            let first = lines
                .iter()
                .map(|(begun, _)| *begun)
                .min()
                .context("h2load sent nothing")?;
            let from = first + warm_up * 1_000_000;
            let counted = from..from + seconds * 1_000_000;
            let mut took: Vec<_> = lines
                .into_iter()
                .filter(|(begun, _)| counted.contains(begun))
                .map(|(_, took)| took as f64)
                .collect();
            ensure!(!took.is_empty(), "h2load sent nothing after the warm-up");
            took.sort_by(f64::total_cmp);
            let at = |quantile: f64| {
                took[((took.len() as f64 * quantile).ceil() as usize).clamp(1, took.len()) - 1]
            };
            Ok(Figures {
                rate: took.len() as f64 / seconds as f64,
                p50: at(0.5),
                p99: at(0.99),
            })
        };
        Ok(Self {
            of: [figures(logs[0])?, figures(logs[1])?],
        })
    }
}

impl Opinion {
    /// Of both operations together: which of the two is due, loadgen draws.
    fn rate(&self) -> f64 {
        self.of.iter().map(|figures| figures.rate).sum()
    }
}

/// The median of a figure over the passes.
fn middle(opinions: &[Opinion], figure: impl Fn(&Opinion) -> f64) -> f64 {
    let mut all: Vec<_> = opinions.iter().map(figure).collect();
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Prints both, and ends well if they agree.
pub(super) fn judge(rate: u64, ours: &[Opinion], theirs: &[Opinion]) -> ExitCode {
    let (table, apart) = table(rate, ours, theirs);
    print!("{table}");
    match apart.as_slice() {
        [] => {
            println!("they agree");
            ExitCode::SUCCESS
        }
        apart => {
            println!("they do not agree on {}", apart.join(", "));
            ExitCode::FAILURE
        }
    }
}

/// As a table of Markdown, and what they are too far apart on.
fn table(rate: u64, ours: &[Opinion], theirs: &[Opinion]) -> (String, Vec<String>) {
    let mut text = format!(
        "{rate} requests a second, medians of {} passes; apart at most: rates {:.0}%, p50 {:.0}% or {:.1} ms, \
         p99 {:.0}% or {:.1} ms\n\n| | loadgen | h2load | apart |\n| --- | --- | --- | --- |\n",
        ours.len(),
        RATE_APART_MAX * 100.0,
        P50_APART_MAX.0 * 100.0,
        P50_APART_MAX.1,
        P99_APART_MAX.0 * 100.0,
        P99_APART_MAX.1,
    );
    let mut apart = Vec::new();
    let mut row = |what: &str, [a, b]: [f64; 2], (share, least): (f64, f64)| {
        let by = (a - b).abs();
        // With what is not a number, too: nothing was measured then.
        let fine = by <= (share * a.min(b)).max(least);
        if !fine {
            apart.push(what.to_owned());
        }
        // Into a String, this cannot fail.
        let _ = writeln!(
            text,
            "| {what} | {a:.2} | {b:.2} | {:.0}% |",
            by / a.min(b) * 100.0
        );
    };
    let rates = [ours, theirs].map(|opinions| middle(opinions, Opinion::rate));
    row("answered a second", rates, (RATE_APART_MAX, 0.0));
    for operation in OPERATIONS {
        let name = format!("{operation:?}").to_lowercase();
        let of = |figure: fn(&Figures) -> f64| {
            [ours, theirs].map(|opinions| {
                middle(opinions, |one| figure(&one.of[operation as usize]) / 1000.0)
            })
        };
        row(
            &format!("{name}, p50, ms"),
            of(|one| one.p50),
            P50_APART_MAX,
        );
        row(
            &format!("{name}, p99, ms"),
            of(|one| one.p99),
            P99_APART_MAX,
        );
    }
    (text + "\n", apart)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn opinion(rate: f64, p50: f64, p99: f64) -> Opinion {
        Opinion {
            of: [Figures { rate, p50, p99 }; 2],
        }
    }

    #[test]
    fn of_h2load_what_is_sent_in_the_time_that_counts_is_counted() {
        let line = |second: f64, took: u64| format!("{:.0}\t200\t{took}\n", 1e15 + second * 1e6);
        let log: String = (0..400)
            .map(|number| line(f64::from(number) / 100.0, 1000 + number as u64))
            .collect();
        let [one, _] = Opinion::of_h2load([&log, &log], 1, 2).unwrap().of;
        // The second and the third hundred of two.
        assert_eq!((one.rate, one.p50, one.p99), (100.0, 1199.0, 1297.0));
        let failed = log.replacen("\t200\t", "\t-1\t", 1);
        assert!(Opinion::of_h2load([&failed, &log], 1, 2).is_err());
    }

    #[test]
    fn of_loadgen_the_figures_of_each_operation_are_taken() {
        let one = json!({ "ok": 500, "latency": { "p50": 900, "p99": 4000 } });
        let report = json!({ "settings": { "counted_seconds": 5.0 }, "operations": { "create": one, "get": one } });
        let [one, _] = Opinion::of_loadgen(&report).unwrap().of;
        assert_eq!((one.rate, one.p50, one.p99), (100.0, 900.0, 4000.0));
        assert!(Opinion::of_loadgen(&json!({})).is_err());
    }

    #[test]
    fn what_is_too_far_apart_is_named() {
        let apart = |theirs: &[Opinion]| table(200, &[opinion(100.0, 4000.0, 20_000.0)], theirs).1;
        assert_eq!(
            apart(&[opinion(100.5, 4900.0, 29_000.0)]),
            Vec::<String>::new()
        );
        assert_eq!(
            apart(&[opinion(98.0, 4000.0, 20_000.0)]).len(),
            1,
            "the rate"
        );
        assert_eq!(apart(&[opinion(100.0, 5100.0, 20_000.0)]).len(), 2, "p50");
        assert_eq!(apart(&[opinion(100.0, 4000.0, 31_000.0)]).len(), 2, "p99");
        assert_eq!(apart(&[]).len(), 5, "nothing was measured");
    }

    #[test]
    fn one_odd_pass_of_three_changes_nothing() {
        let odd = [
            opinion(100.0, 4000.0, 20_000.0),
            opinion(10.0, 90_000.0, 900_000.0),
            opinion(100.0, 4000.0, 20_000.0),
        ];
        assert!(
            table(200, &odd, &[opinion(100.0, 4000.0, 20_000.0)])
                .1
                .is_empty()
        );
    }
}
