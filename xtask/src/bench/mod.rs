//! `cargo xtask bench`: what the relay does against its peers and its ceilings, and what the whole system does
//! (`saga`). A benchmark, never a test: nothing here fails for being slow.
//!
//! ```text
//! backlog (Postgres, 500,000 rows) ──the same, once by each contender──▶ nowhere, or JetStream
//!      └── meter: CPU and memory of the contender, of its Postgres process, of nats-server
//! ```

mod backlog;
mod child;
mod contender;
mod debezium;
mod drain;
mod machine;
mod messages;
mod meter;
mod relay;
pub(crate) mod release;
mod report;
mod saga;
mod server;
mod steady;
mod targets;
mod wire;

use anyhow::Result;
use clap::Subcommand;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Measures the relay beside its peers and the ceilings that Postgres and NATS set it
    Relay(relay::Arguments),
    /// Measures the whole system: orders settled per second, and how long each takes
    Saga(saga::Arguments),
    /// One contender, as a process of its own: started by `bench relay`
    #[command(hide = true)]
    Contend(contender::Arguments),
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    match &arguments.what {
        What::Relay(arguments) => relay::run(arguments),
        What::Saga(arguments) => saga::run(arguments),
        What::Contend(arguments) => contender::run(arguments),
    }
}
