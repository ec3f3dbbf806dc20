//! The figures, as a table for people and as JSON for programs, and whether they meet the targets.

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::Pass;
use super::usage::Usage;
use crate::bench::machine::Machine;
use crate::bench::targets::Verdict;

const PEAK_MIB: f64 = 64.0;

/// The pass of the median of `figure`.
fn median(passes: &[Pass], figure: impl Fn(&Pass) -> f64) -> f64 {
    let mut all: Vec<f64> = passes.iter().map(figure).collect();
    all.sort_by(f64::total_cmp);
    all[(all.len() - 1) / 2]
}

fn milliseconds(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    histogram.value_at_quantile(quantile) as f64 / 1e3
}

fn peak_mib(usage: &Usage) -> Option<f64> {
    usage.peak_kib.map(|kib| kib as f64 / 1024.0)
}

/// Ours: what the targets bound.
fn is_ours(usage: &Usage) -> bool {
    usage.process.ends_with("-service") || usage.process.ends_with("-relay")
}

/// Ratios are taken within a pass, then their median.
pub(super) fn judge(passes: &[Pass]) -> Vec<Verdict> {
    let peaks = passes.iter().flat_map(|pass| &pass.usage);
    let peaks = peaks.filter(|usage| is_ours(usage)).filter_map(peak_mib);
    vec![
        Verdict {
            what: "settled orders/s: the system ÷ pgbench alone".to_owned(),
            value: median(passes, |pass| pass.system / pass.ceiling),
            bound: 1.2,
            at_most: false,
        },
        Verdict {
            what: "settled orders/s: the system ÷ itself with one message a transaction".to_owned(),
            value: median(passes, |pass| pass.system / pass.one_message),
            bound: 3.0,
            at_most: false,
        },
        Verdict {
            what: "request to settled: p99 at half of saturation ÷ the unloaded median".to_owned(),
            value: median(passes, |pass| {
                milliseconds(&pass.half, 0.99) / milliseconds(&pass.unloaded, 0.5)
            }),
            bound: 10.0,
            at_most: true,
        },
        Verdict {
            what: "peak of the largest process, MiB".to_owned(),
            value: peaks.fold(0.0, f64::max),
            bound: PEAK_MIB,
            at_most: true,
        },
    ]
}

pub(super) fn print(passes: &[Pass], verdicts: &[Verdict]) {
    println!(
        "\nsettled orders a second, median of {} passes",
        passes.len()
    );
    for (what, figure) in [
        (
            "pgbench alone, one message a transaction",
            median(passes, |pass| pass.ceiling),
        ),
        (
            "the system, one message a transaction",
            median(passes, |pass| pass.one_message),
        ),
        ("the system", median(passes, |pass| pass.system)),
    ] {
        println!("{what:<44} {figure:>8.0}");
    }
    println!(
        "\n{:<44} {:>8} {:>8} {:>8}",
        "request to settled, ms", "p50", "p99", "p99.9"
    );
    for (what, histogram) in [
        (
            "unloaded: one order at a time",
            (|pass| &pass.unloaded) as fn(&Pass) -> &Histogram<u64>,
        ),
        ("at half of saturation, from when it was due", |pass| {
            &pass.half
        }),
    ] {
        let at = |quantile| median(passes, |pass| milliseconds(histogram(pass), quantile));
        println!(
            "{what:<44} {:>8.1} {:>8.1} {:>8.1}",
            at(0.5),
            at(0.99),
            at(0.999)
        );
    }
    if let Some(pass) = passes.last() {
        println!(
            "\n{:<44} {:>8} {:>8}",
            "at saturation, last pass", "CPUs", "peak MiB"
        );
        for usage in &pass.usage {
            let peak = peak_mib(usage).map_or("–".to_owned(), |mib| format!("{mib:.1}"));
            println!("{:<44} {:>8.2} {peak:>8}", usage.process, usage.processors);
        }
    }
    println!();
    verdicts.iter().for_each(Verdict::print);
}

pub(super) fn json(machine: &Machine, passes: &[Pass], verdicts: &[Verdict]) -> String {
    let quantiles = |histogram: &Histogram<u64>| {
        json!({
            "p50": histogram.value_at_quantile(0.5),
            "p99": histogram.value_at_quantile(0.99),
            "p99_9": histogram.value_at_quantile(0.999),
            "max": histogram.max(),
            "count": histogram.len(),
        })
    };
    let usage = |usage: &Usage| {
        json!({
            "process": usage.process,
            "processors": usage.processors,
            "peak_kib": usage.peak_kib,
        })
    };
    let pass = |pass: &Pass| {
        json!({
            "pgbench_sagas_per_second": pass.ceiling,
            "one_message_settled_per_second": pass.one_message,
            "settled_per_second": pass.system,
            "latency_unit": "microseconds",
            "unloaded": quantiles(&pass.unloaded),
            "at_half_of_saturation": quantiles(&pass.half),
            "at_saturation": pass.usage.iter().map(usage).collect::<Vec<_>>(),
        })
    };
    let page: Value = json!({
        "machine": machine.json(),
        "passes": passes.iter().map(pass).collect::<Vec<_>>(),
        "targets": verdicts.iter().map(Verdict::json).collect::<Vec<_>>(),
    });
    format!("{page:#}\n")
}
