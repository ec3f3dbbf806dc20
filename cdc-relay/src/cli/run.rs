//! `run`: publishes until a signal.

use chassis::{
    admin,
    health::Health,
    listen, nats,
    tasks::Tasks,
    telemetry,
    tls::expiry::{self, Watched},
};
use clap::Args;

use crate::{config::Config, relay};

#[derive(Args, Clone, Debug)]
pub struct Run {
    #[command(flatten)]
    pub config: Config,
}

/// Runs the relay with its tasks beside it.
///
/// # Errors
/// What keeps it from starting. Later failures are retried for ever.
pub async fn run(Run { config }: Run) -> anyhow::Result<()> {
    let telemetry = telemetry::init(&config.telemetry, "cdc-relay")?;
    let mut tasks = Tasks::new(&config.shutdown);
    let health = Health::new();
    let ready = health.check("relay");

    let admin = listen::bind("admin", config.admin.listen).await?;
    tasks.spawn(
        "admin",
        admin::serve(admin, health.clone(), telemetry.metrics(), tasks.token()),
    );

    let settings = ["sslcert of DATABASE_URL", "sslrootcert of DATABASE_URL"];
    let postgres = Watched::of_postgres(config.source.database_url.tls(), settings);
    let certificates = [config.nats.certificates(), postgres].concat();
    tasks.background("certificates", |token| expiry::watch(certificates, token));

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
