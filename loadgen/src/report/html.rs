//! The page for people: figures, charts and verdicts in one file, which needs nothing from anywhere.

use std::fmt::Write as _;

use super::chart::{Chart, Line, Scale, number};
use super::{Latency, Outcome, Point, Report};

const STYLE: &str = include_str!("page.css");
/// Labels below a chart over time.
const TIME_MARKS: usize = 8;

pub(super) fn page(report: &Report) -> String {
    let (class, verdict) = match report.verdict {
        Outcome::Passed => ("met", "passed"),
        Outcome::SloMissed => ("missed", "an SLO was missed"),
        Outcome::BooksUnbalanced => ("missed", "the books do not balance"),
    };
    let started = serde_json::to_value(report.started).unwrap_or_default();
    let settings = &report.settings;
    let mut body = format!(
        "<h1>Load test: <span class=\"{class}\">{verdict}</span></h1>\
         <p>{:.0} requests a second for {:.0} s over {}, from {}; {} customers, Zipf {}, seed {}{}</p>",
        report.rates.offered,
        settings.counted_seconds,
        serde_json::to_value(settings.via)
            .unwrap_or_default()
            .as_str()
            .unwrap_or_default(),
        started.as_str().unwrap_or_default(),
        settings.customers,
        settings.zipf,
        settings.seed,
        if report.interrupted {
            "; interrupted"
        } else {
            ""
        }
    );
    body.push_str(&verdicts(report));
    body.push_str(&figures(report));
    body.push_str(&rates(report).svg());
    body.push_str(&latency_over_time(report).svg());
    body.push_str(&distribution(report).svg());
    body.push_str(&operations(report));
    body.push_str(&books(report));
    body.push_str(
        "<h2>How it is measured</h2><p>Requests are due by the clock, whatever the services do, and latency \
         runs from when a request was due, so what waited because something before it was slow counts in \
         full. What was not sent, or not answered in time, counts with the whole time that it was given. \
         <em>Settled</em> runs from when an order was due to its outcome, as a client that waits for it sees \
         it. Watches last by nature, and are in no percentile but their own.</p>",
    );
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>Load test: {verdict}</title>\
         <style>{STYLE}</style></head><body>{body}</body></html>\n"
    )
}

fn verdicts(report: &Report) -> String {
    if report.slos.is_empty() {
        return "<p>No SLO was asked for.</p>".to_owned();
    }
    let mut list = String::from("<ul>");
    for slo in &report.slos {
        let class = if slo.met { "met" } else { "missed" };
        let _ = write!(
            list,
            "<li class=\"{class}\">{}</li>",
            escaped(&slo.to_string())
        );
    }
    list + "</ul>"
}

fn figures(report: &Report) -> String {
    let totals = &report.totals;
    let mut table = format!(
        "<table><tr><th>a second</th><td>{:.1} offered</td><td>{:.1} answered</td><td>{:.1} settled</td></tr>\
         <tr><th>requests</th><td>{} offered</td><td>{} ok</td><td>{} failed, {} unsent, {} sent late</td></tr>\
         </table><table><tr><th>ms</th><th>p50</th><th>p90</th><th>p99</th><th>p99.9</th><th>p99.99</th>\
         <th>max</th></tr>",
        report.rates.offered,
        report.rates.answered,
        report.rates.settled,
        totals.offered,
        totals.ok,
        totals.failed,
        totals.unsent,
        totals.late
    );
    let rows = [
        ("due to answered", &report.request),
        ("due to settled", &report.settled),
        ("due to sent", &report.sending),
        ("due to refused", &report.refused),
    ];
    for (what, latency) in rows {
        let _ = write!(table, "<tr><th>{what}</th>{}</tr>", cells(latency));
    }
    table + "</table>"
}

fn cells(latency: &Latency) -> String {
    let mut cells = String::new();
    for value in [
        latency.p50,
        latency.p90,
        latency.p99,
        latency.p99_9,
        latency.p99_99,
        latency.max,
    ] {
        let _ = write!(cells, "<td>{}</td>", number(value as f64 / 1e3));
    }
    cells
}

fn time_marks(report: &Report) -> Vec<(f64, String)> {
    let every = report.timeline.len().div_ceil(TIME_MARKS).max(1);
    let points = report.timeline.iter().step_by(every);
    points
        .map(|point| (point.second, format!("{:.0} s", point.second)))
        .collect()
}

fn over_time(report: &Report, name: &'static str, value: impl Fn(&Point) -> Option<f64>) -> Line {
    let points = report.timeline.iter();
    Line {
        name,
        points: points.map(|point| (point.second, value(point))).collect(),
    }
}

fn rates(report: &Report) -> Chart<'static> {
    Chart {
        title: "Rates over time",
        lines: vec![
            over_time(report, "offered", |point| Some(point.offered)),
            over_time(report, "answered", |point| Some(point.ok)),
            over_time(report, "settled", |point| Some(point.settled)),
            over_time(report, "failed or unsent", |point| {
                Some(point.failed + point.unsent)
            }),
        ],
        scale: Scale::Linear,
        unit: "requests and orders a second",
        marks: time_marks(report),
    }
}

fn latency_over_time(report: &Report) -> Chart<'static> {
    let ms = |value: Option<u64>| value.map(|value| value as f64 / 1e3);
    Chart {
        title: "Latency over time, by when the request was due",
        lines: vec![
            over_time(report, "request p50", move |point| ms(point.request_p50)),
            over_time(report, "request p99", move |point| ms(point.request_p99)),
            over_time(report, "settled p50", move |point| ms(point.settled_p50)),
            over_time(report, "settled p99", move |point| ms(point.settled_p99)),
        ],
        scale: Scale::Logarithmic,
        unit: "milliseconds",
        marks: time_marks(report),
    }
}

/// By the nines: as far to the right for each further one.
fn distribution(report: &Report) -> Chart<'static> {
    let nines = |quantile: f64| -(1.0 - quantile).log10();
    let line = |name, latency: &Latency| Line {
        name,
        points: latency
            .distribution
            .iter()
            .filter(|(quantile, _)| *quantile < 1.0)
            .map(|(quantile, value)| (nines(*quantile), Some(*value as f64 / 1e3)))
            .collect(),
    };
    let lines = vec![
        line("request", &report.request),
        line("settled", &report.settled),
    ];
    let last = lines.iter().flat_map(|line| &line.points);
    let last = last.map(|(place, _)| *place).fold(0.0, f64::max);
    let marks = [0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999]
        .into_iter()
        .filter(|quantile| nines(*quantile) <= last)
        .map(|quantile| {
            let percent = format!("{:.3}", quantile * 100.0);
            let percent = percent.trim_end_matches('0').trim_end_matches('.');
            (nines(quantile), format!("{percent}%"))
        });
    Chart {
        title: "Latency by percentile",
        scale: Scale::Logarithmic,
        unit: "milliseconds",
        marks: marks.collect(),
        lines,
    }
}

fn operations(report: &Report) -> String {
    let mut table = String::from(
        "<h2>Operations</h2><table><tr><th></th><th>offered</th><th>ok</th><th>unsent</th><th>late</th>\
         <th>p50 ms</th><th>p99 ms</th><th>errors</th></tr>",
    );
    for (name, one) in &report.operations {
        let errors = one.errors.iter();
        let errors: Vec<_> = errors
            .map(|(code, count)| format!("{count} {}", escaped(code)))
            .collect();
        let _ = write!(
            table,
            "<tr><th>{name}</th><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            one.offered,
            one.ok,
            one.unsent,
            one.late,
            number(one.latency.p50 as f64 / 1e3),
            number(one.latency.p99 as f64 / 1e3),
            errors.join(", ")
        );
    }
    table + "</table>"
}

fn books(report: &Report) -> String {
    let books = &report.books;
    let mut text = format!(
        "<h2>Books</h2><p>{} customers; {} orders: {} approved, {} cancelled, {} pending. Read through the API \
         after the load, {}.</p>",
        books.customers,
        books.orders,
        books.approved,
        books.cancelled,
        books.pending,
        if books.balanced {
            "they balance"
        } else {
            "they do <strong>not</strong> balance"
        }
    );
    if !books.findings.is_empty() {
        text.push_str("<ul>");
        for finding in &books.findings {
            let _ = write!(text, "<li class=\"missed\">{}</li>", escaped(finding));
        }
        text.push_str("</ul>");
    }
    text
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
