//! The health check of the images, which have no shell.

use std::{process::Stdio, time::Duration};

use anyhow::Result;
use chassis::{admin, health::Health, listen};
use tokio::{process::Command, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::echo;

const SOON: Duration = Duration::from_secs(10);

async fn ends_well(listen: &str) -> Result<bool> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_healthy"));
    command.env("ADMIN_LISTEN", listen).stderr(Stdio::null());
    Ok(timeout(SOON, command.status()).await??.success())
}

#[tokio::test]
async fn the_health_check_ends_well_when_its_process_is_ready_and_only_then() -> Result<()> {
    let listener = listen::bind("admin", ([127, 0, 0, 1], 0).into()).await?;
    let port = listener.local_addr()?.port();
    let (health, token) = (Health::new(), CancellationToken::new());
    let check = health.check("postgres");
    let metrics = echo::telemetry().metrics();
    let serving = tokio::spawn(admin::serve(listener, health, metrics, token.clone()));

    // As the process has it: every address, of which loopback is the one to ask.
    let everywhere = format!("0.0.0.0:{port}");
    assert!(!ends_well(&everywhere).await?);
    check.set(true);
    assert!(ends_well(&everywhere).await?);
    assert!(ends_well(&format!("127.0.0.1:{port}")).await?);
    token.cancel();
    timeout(SOON, serving).await???;
    assert!(!ends_well(&everywhere).await?);
    assert!(!ends_well("nowhere").await?);
    Ok(())
}
