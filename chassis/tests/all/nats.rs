//! NATS: waiting for it, readiness.

use std::time::Duration;

use anyhow::Result;
use chassis::{config, health::Health, nats};
use harness::{Nats, eventually};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn it_waits_for_nats_and_readiness_follows_it() -> Result<()> {
    let server = Nats::start().await?;
    let url: config::NatsUrl = server.url().parse().unwrap();
    let config = config::Nats::from(url);
    server.stop().await?;
    let connecting = tokio::spawn(async move { nats::connect(&config, "tests").await });
    server.start_again().await?;
    let client = timeout(SOON, connecting).await???;

    let (health, token) = (Health::new(), CancellationToken::new());
    let watching = tokio::spawn(nats::watch(client, health.check("nats"), token.clone()));
    for (ready, what) in [(true, "ready"), (false, "not ready"), (true, "ready again")] {
        if !ready {
            server.kill().await?;
        } else if what == "ready again" {
            server.start_again().await?;
        }
        eventually(what, SOON, async || {
            Ok((health.is_ready() == ready).then_some(()))
        })
        .await?;
    }
    token.cancel();
    timeout(SOON, watching).await???;
    Ok(())
}
