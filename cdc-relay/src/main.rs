//! `cdc-relay`: see the library for what it does, and `--help` for its configuration.

use std::process::ExitCode;

use chassis::tasks;
use tokio::runtime::Builder;

use cdc_relay::cli::{self, Command, check, init, quarantine, reconcile, run, status};

fn main() -> anyhow::Result<ExitCode> {
    // One thread: the stages hand over within one task, and more threads only wake each other.
    tasks::block_on(Builder::new_current_thread(), run())?
}

async fn run() -> anyhow::Result<ExitCode> {
    match cli::parse() {
        Command::Run(given) => run::run(given).await.map(|()| ExitCode::SUCCESS),
        Command::Check(given) => check::run(given).await,
        Command::Status(given) => status::run(given).await,
        Command::Init(given) => init::run(&given).map(|()| ExitCode::SUCCESS),
        Command::Reconcile(given) => reconcile::run(given).await,
        Command::Quarantine(given) => quarantine::run(*given).await.map(|()| ExitCode::SUCCESS),
    }
}
