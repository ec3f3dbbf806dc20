//! `cdc-relay`: see the library for what it does, and `--help` for its configuration.

use std::process::ExitCode;

use cdc_relay::cli::{self, Command, check, init, quarantine, reconcile, run, status};

// One thread: the stages hand over within one task, and more threads only wake each other.
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    match cli::parse() {
        Command::Run(given) => run::run(given).await.map(|()| ExitCode::SUCCESS),
        Command::Check(given) => check::run(given).await,
        Command::Status(given) => status::run(given).await,
        Command::Init(given) => init::run(&given).map(|()| ExitCode::SUCCESS),
        Command::Reconcile(given) => reconcile::run(given).await,
        Command::Quarantine(given) => quarantine::run(*given).await.map(|()| ExitCode::SUCCESS),
    }
}
