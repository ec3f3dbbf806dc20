//! The running system, with what the story needs of it.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use harness::{Process, System};

use super::deadline::DEADLINE;
use super::hand::Hand;
use super::show::{Show, span};
use crate::shell;

/// Of a process that still runs, only so many warnings and errors of its log are shown.
const WARNINGS_MAX: usize = 5;
/// The process that the step with the deadline adds.
const REPLICA: &str = "order-service-2";
/// How often `--keep` looks whether all still run.
const LOOK: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(super) struct Stage {
    pub(super) system: System,
    pub(super) nats: async_nats::Client,
    pub(super) show: Show,
    pub(super) hand: Hand,
}

impl Stage {
    pub(super) async fn start(show: Show) -> Result<Self> {
        let begun = Instant::now();
        show.progress("start", "Postgres, NATS, two services, two relays …");
        let system = ["order-service", "customer-service", "cdc-relay"]
            .into_iter()
            // People read these logs.
            .fold(System::builder(), |builder, program| {
                builder.env(program, "LOG_FORMAT", "text")
            })
            .env(REPLICA, "ORDER_DEADLINE_SECONDS", DEADLINE)
            .start()
            .await?;
        let nats = system.nats().client().await?;
        let hand = Hand::write(&system)?;
        let stage = Self {
            system,
            nats,
            show,
            hand,
        };
        stage.cast(begun.elapsed());
        Ok(stage)
    }

    fn cast(&self, took: Duration) {
        self.show.row(
            "started",
            &format!(
                "all ready after {}; files and logs in {}",
                span(took),
                self.system.directory().display()
            ),
        );
        for process in self.system.processes() {
            let pid = process
                .pid()
                .map_or_else(String::new, |pid| pid.to_string());
            let admin = process.admin_port();
            let name = process.name();
            self.show.row(
                "",
                &format!("{name:<17} pid {pid:<7} admin http://127.0.0.1:{admin}"),
            );
        }
        self.show.commands("by hand", &[self.hand.source()]);
        self.show.row(
            "",
            "in a second terminal, in this folder, while `cargo xtask demo --keep` runs;",
        );
        self.show.row("", "then each command below can be tried");
    }

    /// Leaves everything running; only a signal ends this.
    pub(super) async fn keep(&self) -> Result<()> {
        let system = &self.system;
        let show = self.show;
        show.step("", "All of it is left running; Ctrl-C ends it");
        for name in ["order-service", "customer-service"] {
            let address = system.grpc_url(name);
            show.row(
                "gRPC",
                &format!("{name:<17} {}", address.trim_start_matches("http://")),
            );
        }
        let nats = system.nats();
        show.row(
            "NATS",
            &format!(
                "{} (monitoring http://127.0.0.1:{})",
                nats.url(),
                nats.monitoring_port()
            ),
        );
        for database in ["orders", "customers"] {
            show.row("Postgres", &system.postgres().url(database));
        }
        for process in self.running() {
            let (name, admin) = (process.name(), process.admin_port());
            show.row(
                "admin",
                &format!("{name:<17} http://127.0.0.1:{admin}  /livez /readyz /metrics"),
            );
        }
        let logs = self.running().map(Process::log);
        for log in logs.chain([system.postgres().log(), nats.log()]) {
            show.row("log", &log.path().display().to_string());
        }
        self.watch().await
    }

    /// What the story has not ended.
    fn running(&self) -> impl Iterator<Item = &Process> {
        let processes = self.system.processes();
        processes.filter(|process| process.ensure_alive().is_ok())
    }

    /// Says when a process ends, as it does when a person kills it.
    async fn watch(&self) -> Result<()> {
        let mut running: Vec<&Process> = self.running().collect();
        loop {
            running.retain(|process| {
                let ended = process.ensure_alive().is_err();
                if ended {
                    let again = self.hand.start_again(process.name());
                    self.show.row(
                        "ended",
                        &format!("{}; to start it again: {again}", process.name()),
                    );
                }
                !ended
            });
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Adds to an error what the processes have to say about it, and keeps their logs.
    pub(super) fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        let mut text = format!("{error:#}");
        for process in self.system.processes() {
            let said = match process.ensure_alive() {
                Err(dead) => format!("{dead:#}"),
                Ok(()) => warnings(process),
            };
            if !said.is_empty() {
                text.push_str(&format!("\n\n{said}"));
            }
        }
        match self.save_logs() {
            Ok(folder) => text.push_str(&format!("\n\nthe logs are kept in {folder}")),
            Err(lost) => text.push_str(&format!("\n\nthe logs could not be kept: {lost:#}")),
        }
        anyhow::Error::msg(text)
    }

    fn save_logs(&self) -> Result<String> {
        let folder = shell::root().join("target/demo-logs");
        fs::create_dir_all(&folder)?;
        let own = self.system.processes().map(Process::log);
        let servers = [
            ("Postgres", self.system.postgres().log()),
            ("nats-server", self.system.nats().log()),
        ];
        let named = own.map(|log| {
            (
                log.path()
                    .file_stem()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned(),
                log,
            )
        });
        let servers = servers
            .into_iter()
            .map(|(name, log)| (name.to_owned(), log));
        for (name, log) in named.chain(servers) {
            fs::write(folder.join(format!("{name}.log")), log.text())
                .with_context(|| format!("{name}.log"))?;
        }
        Ok(folder.display().to_string())
    }
}

fn warnings(process: &Process) -> String {
    let text = process.log().text();
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| line.contains(" WARN ") || line.contains(" ERROR "))
        .collect();
    if lines.is_empty() {
        return String::new();
    }
    let last = &lines[lines.len().saturating_sub(WARNINGS_MAX)..];
    format!(
        "{} runs; the last warnings of its log:\n{}",
        process.name(),
        last.join("\n")
    )
}
