//! The load itself, by `loadgen`, whose arrivals do not wait for answers; and what it reports, second by second.

use std::process::Stdio;
use std::time::Duration;

use harness::{System, binary};
use serde_json::Value;
use tokio::process::Command;

const BEFORE: usize = 5;
/// Of the seconds at either end of a phase, which belong to both: the clock's seconds are not the load's.
const MARGIN: usize = 1;
/// Room for all that is on its way, so that none waits at the side of those who ask: clients are many, and none of
/// them knows of the others.
const IN_FLIGHT: &str = "50000";
const CONNECTIONS: &str = "64";
const REQUEST_TIMEOUT: &str = "10s";

/// Orders a second, and for how long.
#[derive(Debug)]
pub(super) struct Phases {
    pub(super) at_ease: f64,
    pub(super) over: f64,
    pub(super) lasts: Duration,
    /// Seconds at ease afterwards.
    pub(super) after: usize,
}

/// What `loadgen` said and reported.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) said: String,
    report: Value,
    over: f64,
    seconds: usize,
    after: usize,
}

/// Of one second.
#[derive(Clone, Copy, Debug)]
pub(super) struct Second {
    offered: f64,
    settled: f64,
    pub(super) failed: f64,
    unsent: f64,
    /// None where nothing was due that was answered, or settled.
    pub(super) request_p50: Option<Duration>,
    pub(super) settled_p50: Option<Duration>,
}

pub(super) async fn run(system: &System, phases: &Phases) -> Ran {
    let json = system.directory().join("overload.json");
    let seconds = phases.lasts.as_secs() as usize;
    let (at_ease, over, after) = (phases.at_ease, phases.over, phases.after);
    let stages = format!("1ms:{over},{seconds}s:{over},1ms:{at_ease},{after}s:{at_ease}");
    let child = Command::new(binary("loadgen").expect("it is built"))
        .args(["--rate", &at_ease.to_string()])
        .args(["--warm-up", &format!("{BEFORE}s"), "--stages", &stages])
        .args(["--mix", "create=100", "--customers", "100", "--zipf", "0"])
        .args(["--track", "100%", "--request-timeout", REQUEST_TIMEOUT])
        .args(["--in-flight", IN_FLIGHT, "--connections", CONNECTIONS])
        .arg("--json")
        .arg(&json)
        .env("ORDERS_GRPC", system.grpc_url("order-service"))
        .env("CUSTOMERS_GRPC", system.grpc_url("customer-service"))
        .env("NATS_URL", system.nats().url())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("it starts");
    let output = child.wait_with_output().await.expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    println!("{said}");
    // 4: the books do not balance.
    assert_eq!(output.status.code(), Some(0), "{said}");
    let report = std::fs::read_to_string(json).expect("a report");
    let report = serde_json::from_str(&report).expect("JSON");
    Ran {
        said,
        report,
        over,
        seconds,
        after,
    }
}

impl Ran {
    /// The load was what it was meant to be: whoever was due was sent.
    pub(super) fn assert_open(&self) {
        let seconds: Vec<_> = self.timeline(BEFORE..BEFORE + self.seconds).collect();
        let unsent: f64 = seconds.iter().map(|second| second.unsent).sum();
        assert!(unsent == 0.0, "{}", self.said);
        let offered = self.mean(|second| second.offered);
        assert!((offered / self.over - 1.0).abs() < 0.15, "{offered}");
    }

    /// Orders a second that were settled under overload.
    pub(super) fn settled(&self) -> f64 {
        self.mean(|second| second.settled)
    }

    /// Orders a second that were due.
    pub(super) fn offered(&self) -> f64 {
        self.mean(|second| second.offered)
    }

    pub(super) fn refused_p50(&self) -> Option<Duration> {
        micros(&self.report["refused"]["p50"])
    }

    /// The codes of all refusals.
    pub(super) fn codes(&self) -> Vec<String> {
        let errors = self.report["operations"]["create"]["errors"].as_object();
        errors.expect("codes").keys().cloned().collect()
    }

    /// The seconds before the overload.
    pub(super) fn before(&self) -> Vec<Second> {
        self.timeline(0..BEFORE - MARGIN).collect()
    }

    /// The seconds after it.
    pub(super) fn after(&self) -> Vec<Second> {
        let begin = BEFORE + self.seconds;
        self.timeline(begin..begin + self.after).collect()
    }

    fn mean(&self, of: impl Fn(&Second) -> f64) -> f64 {
        let whole = BEFORE + MARGIN..BEFORE + self.seconds - MARGIN;
        let count = whole.len() as f64;
        self.timeline(whole).map(|second| of(&second)).sum::<f64>() / count
    }

    fn timeline(&self, seconds: std::ops::Range<usize>) -> impl Iterator<Item = Second> {
        let points = self.report["timeline"].as_array().expect("a timeline");
        let points = points[seconds].iter();
        points.map(|point| {
            let number = |name: &str| point[name].as_f64().expect("a number");
            Second {
                offered: number("offered"),
                settled: number("settled"),
                failed: number("failed"),
                unsent: number("unsent"),
                request_p50: micros(&point["request_p50"]),
                settled_p50: micros(&point["settled_p50"]),
            }
        })
    }
}

fn micros(value: &Value) -> Option<Duration> {
    value.as_u64().map(Duration::from_micros)
}
