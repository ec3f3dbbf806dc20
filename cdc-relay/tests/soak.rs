//! I5 under faults drawn at random: kills, pauses and cuts of relays, Postgres and NATS, several at once,
//! with a standby beside the relay. `cargo xtask soak` plays for long, here a few rounds are played.

mod rig;

use std::{env, time::Duration};

use anyhow::{Context as _, Result};
use rig::{
    SLOT,
    draw::Draw,
    fault::Target,
    game::{Bounds, play},
    oracle::Oracle,
    stage::Stage,
};

/// What a run in the ordinary tests plays at most.
const SHORT: Bounds = Bounds {
    rounds: 6,
    time: Duration::from_secs(50),
};

/// Set by `cargo xtask soak`: how long to play.
const MINUTES: &str = "SOAK_MINUTES";

const ALL: [Target; 3] = [Target::Relay, Target::Postgres, Target::Nats];

fn bounds() -> Result<Bounds> {
    let Ok(given) = env::var(MINUTES) else {
        return Ok(SHORT);
    };
    let minutes: u64 = given
        .parse()
        .with_context(|| format!("{MINUTES}={given}"))?;
    Ok(Bounds {
        rounds: usize::MAX,
        time: Duration::from_secs(60 * minutes),
    })
}

async fn soak(size: usize) -> Result<()> {
    let draw = Draw::start(&format!("soak on {size} nats-servers"))?;
    let mut stage = Stage::start(size).await?;
    stage.add(SLOT, &[]).await?;
    stage.players[0].relay.wait_ready().await?;
    stage.add(SLOT, &[]).await?;
    stage.players[1].relay.wait_ready().await?;
    let mut oracle = Oracle::default();
    play(&stage, &mut oracle, draw, &ALL, bounds()?).await?;
    Ok(())
}

#[tokio::test]
async fn random_faults_on_one_server_leave_the_stream_exact() -> Result<()> {
    soak(1).await
}

#[tokio::test]
async fn random_faults_on_a_cluster_leave_the_stream_exact() -> Result<()> {
    soak(3).await
}
