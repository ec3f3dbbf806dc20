//! What the process tells of itself, by the names that Prometheus clients agree on. Read from
//! Linux's `/proc` at each scrape; elsewhere those gauges are absent.

use std::{
    fs,
    time::{SystemTime, UNIX_EPOCH},
};

use metrics::gauge;

/// `/proc` counts CPU time in this many ticks a second on every architecture that Linux runs on.
const TICKS_PER_SECOND: f64 = 100.0;

pub(super) fn describe(service: &'static str) {
    let labels = [("service", service), ("version", env!("CARGO_PKG_VERSION"))];
    gauge!("build_info", &labels).set(1.0);
    if let Ok(now) = SystemTime::now().duration_since(UNIX_EPOCH) {
        gauge!("process_start_time_seconds").set(now.as_secs_f64());
    }
}

/// Takes the current figures. Called at each scrape.
pub(crate) fn record() {
    if let Some(bytes) = resident_memory_bytes() {
        gauge!("process_resident_memory_bytes").set(bytes);
    }
    if let Some(seconds) = cpu_seconds() {
        gauge!("process_cpu_seconds_total").set(seconds);
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        gauge!("process_open_fds").set(open.count() as f64);
    }
}

fn resident_memory_bytes() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kibibytes: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kibibytes * 1024.0)
}

fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name in brackets may hold spaces; the fields are counted from behind it.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut ticks = fields.split_whitespace().skip(11);
    let user: f64 = ticks.next()?.parse().ok()?;
    let system: f64 = ticks.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}
