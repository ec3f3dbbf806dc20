//! Where the processors' time goes while the system is saturated, by process.

use std::fs;
use std::time::Instant;

use anyhow::{Context, Result};
use harness::System;

use crate::bench::meter;

/// CPU seconds that some processes have used so far.
#[derive(Debug)]
pub(super) struct Look {
    at: Instant,
    seconds: Vec<(String, f64)>,
}

/// What a process used: CPU as a share of one processor, and the most resident memory so far, in KiB.
#[derive(Clone, Debug)]
pub(super) struct Usage {
    pub(super) process: String,
    pub(super) processors: f64,
    pub(super) peak_kib: Option<u64>,
}

impl Look {
    pub(super) fn at(system: &System) -> Result<Self> {
        let mut seconds = Vec::new();
        for (name, pids) in processes(system)? {
            let used = pids.iter().filter_map(|pid| meter::cpu_seconds(*pid)).sum();
            seconds.push((name, used));
        }
        Ok(Self {
            at: Instant::now(),
            seconds,
        })
    }

    /// What was used since then. Postgres' peak is left out: its processes share most of it.
    pub(super) fn until_now(&self, system: &System) -> Result<Vec<Usage>> {
        let now = Self::at(system)?;
        let took = (now.at - self.at).as_secs_f64();
        let processes = processes(system)?;
        let used = self.seconds.iter().zip(now.seconds).zip(processes);
        let used = used.map(|(((process, before), (_, after)), (_, pids))| Usage {
            process: process.clone(),
            processors: (after - before) / took,
            peak_kib: match pids.as_slice() {
                [pid] => meter::peak_kib(*pid),
                _ => None,
            },
        });
        Ok(used.collect())
    }
}

/// Ours by name, nats-server, Postgres with all its children, and this load generator.
fn processes(system: &System) -> Result<Vec<(String, Vec<u32>)>> {
    let mut all = Vec::new();
    for process in system.processes() {
        let pid = process.pid().context("a process has ended")?;
        all.push((process.name().to_owned(), vec![pid]));
    }
    let nats = system.nats().pid().context("nats-server has ended")?;
    all.push(("nats-server".to_owned(), vec![nats]));
    let postmaster = system.postgres().pid().context("Postgres has ended")?;
    let mut postgres = vec![postmaster];
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let pid = name.to_str().and_then(|name| name.parse().ok());
        if let Some(pid) = pid.filter(|pid| meter::parent(*pid) == Some(postmaster)) {
            postgres.push(pid);
        }
    }
    all.push(("postgres".to_owned(), postgres));
    all.push(("this load".to_owned(), vec![std::process::id()]));
    Ok(all)
}
