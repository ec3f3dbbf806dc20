//! `cdc-relay`: see the library for what it does, and `--help` for its configuration.

use cdc_relay::{config::Config, relay};
use chassis::{admin, health::Health, listen, nats, tasks::Tasks, telemetry};
use clap::Parser as _;

// One thread: the stages hand over within one task, and more threads only wake each other.
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let config = Config::parse();
    let telemetry = telemetry::init(&config.telemetry, "cdc-relay")?;
    let mut tasks = Tasks::new(&config.shutdown);
    let health = Health::new();
    let ready = health.check("relay");

    let admin = listen::bind("admin", config.admin.listen).await?;
    tasks.spawn(
        "admin",
        admin::serve(admin, health.clone(), telemetry.metrics(), tasks.token()),
    );

    let nats = nats::connect(&config.nats, "cdc-relay").await?;
    tasks.spawn(
        "nats",
        nats::watch(nats.clone(), health.check("nats"), tasks.token()),
    );

    let stop = tasks.token();
    tasks.spawn("relay", async move {
        relay::run(config, nats, ready, stop).await;
        Ok(())
    });
    tasks.run().await
}
