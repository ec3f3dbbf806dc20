//! What processes use while something is measured, from `/proc`: CPU time as the difference between
//! the beginning and the last look, and the most memory that was resident.
//!
//! A walsender is gone the moment its client is, so the last look counts, at most [`EVERY`] before.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// How often processes are looked at.
pub(super) const EVERY: Duration = Duration::from_millis(20);

/// `/proc` counts CPU time in these, on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// Whose use it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Role {
    Contender,
    /// The walsender, or the backend that a polling publisher queries.
    Postgres,
    Nats,
}

#[derive(Debug)]
struct Watched {
    role: Role,
    pid: u32,
    base: f64,
    last: f64,
    peak_kib: Option<u64>,
}

/// Looks at some processes.
#[derive(Debug, Default)]
pub(super) struct Meter {
    watched: Vec<Watched>,
}

/// What was used, CPU in seconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    pub(super) contender: Option<f64>,
    pub(super) postgres: Option<f64>,
    pub(super) nats: Option<f64>,
    pub(super) peak_kib: Option<u64>,
}

impl Meter {
    /// Counts a process from its beginning.
    pub(super) fn watch_new(&mut self, role: Role, pid: u32) {
        self.watched.push(Watched {
            role,
            pid,
            base: 0.0,
            last: 0.0,
            peak_kib: None,
        });
        self.look();
    }

    /// Counts a process from now on.
    pub(super) fn watch_from_now(&mut self, role: Role, pid: u32) -> Result<()> {
        let base = cpu_seconds(pid).with_context(|| format!("process {pid} has gone"))?;
        self.watched.push(Watched {
            role,
            pid,
            base,
            last: base,
            peak_kib: None,
        });
        Ok(())
    }

    /// Looks at all processes; one that has gone keeps what was seen last.
    pub(super) fn look(&mut self) {
        for watched in &mut self.watched {
            if let Some(seconds) = cpu_seconds(watched.pid) {
                watched.last = seconds;
            }
            if watched.role == Role::Contender {
                watched.peak_kib = peak_kib(watched.pid).or(watched.peak_kib);
            }
        }
    }

    pub(super) fn usage(&self) -> Usage {
        let cpu = |role| {
            let found = self.watched.iter().find(|watched| watched.role == role)?;
            Some(found.last - found.base)
        };
        Usage {
            contender: cpu(Role::Contender),
            postgres: cpu(Role::Postgres),
            nats: cpu(Role::Nats),
            peak_kib: self.watched.iter().find_map(|watched| watched.peak_kib),
        }
    }
}

/// User and system time of all threads of a process.
pub(super) fn cpu_seconds(pid: u32) -> Option<f64> {
    ticks(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The name, in parentheses, may hold anything: fields are counted after it.
fn ticks(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut times = fields.split(' ').skip(11).map(str::parse::<f64>);
    Some((times.next()?.ok()? + times.next()?.ok()?) / TICKS_PER_SECOND)
}

/// The process that started it.
pub(super) fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').nth(1)?.parse().ok()
}

pub(super) fn peak_kib(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_read_past_any_name() {
        let stat = "7 (a) b) R 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 1 0";
        assert_eq!(ticks(stat), Some(3.0));
    }

    #[test]
    fn this_process_has_used_something() {
        let pid = std::process::id();
        assert!(cpu_seconds(pid).is_some());
        assert!(peak_kib(pid).unwrap() > 100);
    }
}
