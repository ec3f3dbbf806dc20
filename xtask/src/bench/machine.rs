//! What the figures were taken on: kind and size, no names.

use std::fmt;
use std::fs;
use std::process::Command;

use anyhow::Result;
use serde_json::{Value, json};

#[derive(Debug)]
pub(super) struct Machine {
    processor: String,
    processors: usize,
    memory_gib: u64,
    kernel: String,
    postgres: String,
    nats: String,
    commit: String,
}

pub(super) fn describe() -> Result<Machine> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap_or_default();
        line.split_once(':')
            .map_or("unknown", |(_, value)| value.trim())
            .to_owned()
    };
    let memory = field(&read("/proc/meminfo"), "MemTotal");
    let kib: u64 = memory.trim_end_matches(" kB").parse().unwrap_or_default();
    Ok(Machine {
        processor: field(&read("/proc/cpuinfo"), "model name"),
        processors: std::thread::available_parallelism().map_or(1, usize::from),
        memory_gib: kib.div_ceil(1024 * 1024),
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        postgres: says(
            Command::new(harness::tools::postgres_bin()?.join("postgres")).arg("--version"),
        ),
        nats: says(Command::new(harness::tools::nats_server()?).arg("--version")),
        commit: says(crate::shell::command("git").args(["describe", "--always", "--dirty"])),
    })
}

fn says(command: &mut Command) -> String {
    let output = command
        .output()
        .map(|output| output.stdout)
        .unwrap_or_default();
    String::from_utf8_lossy(&output).trim().to_owned()
}

impl Machine {
    pub(super) fn json(&self) -> Value {
        json!({
            "processor": self.processor,
            "processors": self.processors,
            "memory_gib": self.memory_gib,
            "kernel": self.kernel,
            "postgres": self.postgres,
            "nats_server": self.nats,
            "commit": self.commit,
        })
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} × {}, {} GiB, Linux {}; {}; {}; commit {}",
            self.processors,
            self.processor,
            self.memory_gib,
            self.kernel,
            self.postgres,
            self.nats,
            self.commit
        )
    }
}
