//! `cdc-relay`: see the library for what it does, and `--help` for its configuration.

use cdc_relay::cli::{self, Command, run};

// One thread: the stages hand over within one task, and more threads only wake each other.
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    match cli::parse() {
        Command::Run(given) => run::run(given).await,
    }
}
