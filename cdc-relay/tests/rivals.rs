//! Two live relays that each believe to be the stream's only writer (I5): each has a slot of its own on the
//! same database, so both stream at once, and only the fence keeps them apart. Beside that, faults.

mod rig;

use std::time::Duration;

use anyhow::{Result, ensure};
use harness::eventually;
use rig::{
    SOON,
    draw::Draw,
    fault::Target,
    game::{Bounds, play},
    oracle::Oracle,
    stage::{Player, Stage},
};

const SLOTS: [&str; 2] = ["one", "other"];

/// How many events each of the two must have brought to the fence before a test believes that they raced.
const TURNS: f64 = 5.0;

/// Both slots are there before the first row: none of the two copies the table.
async fn rivals(size: usize) -> Result<Stage> {
    let mut stage = Stage::start(size).await?;
    for slot in SLOTS {
        stage.add(slot, &[]).await?;
        stage.players[stage.players.len() - 1]
            .relay
            .wait_ready()
            .await?;
    }
    Ok(stage)
}

/// Events that were acknowledged to it, because they were its own or stood at that very place already, and
/// appends that were refused, because the other had been quicker.
async fn turns(player: &Player) -> f64 {
    let mut turns = 0.0;
    for name in [
        "cdc_relay_published_total",
        "cdc_relay_sessions_failed_total",
    ] {
        let count = player.relay.metric(name).await;
        turns += count.ok().flatten().unwrap_or(0.0);
    }
    turns
}

/// Waits until both have come to the fence again and again.
async fn raced(stage: &Stage) -> Result<()> {
    for player in &stage.players {
        eventually("both relays to append", SOON * 2, async || {
            let turns = turns(player).await;
            ensure!(turns >= TURNS, "{turns} turns so far");
            Ok(Some(()))
        })
        .await?;
    }
    Ok(())
}

async fn race(size: usize, bounds: Bounds) -> Result<()> {
    let draw = Draw::start(&format!("rivals on {size} nats-servers"))?;
    let stage = rivals(size).await?;
    let mut oracle = Oracle::default();
    let writers = stage.writers(0);
    raced(&stage).await?;
    writers.stop().await;
    stage.check(&mut oracle).await?;
    for player in &stage.players {
        let definite = r#"cdc_relay_sessions_failed_total{kind="definite"}"#;
        let definite = player.relay.metric(definite).await?.unwrap_or(0.0);
        ensure!(definite == 0.0, "{}", player.relay.log().tail());
        // Nothing was lost, however far ahead of its own slot a relay finds the stream.
        let is_healing = player.relay.log().text().contains("do not belong together");
        ensure!(!is_healing, "{}", player.relay.log().tail());
    }
    let targets = [Target::Nats, Target::Relay];
    play(&stage, &mut oracle, draw, &targets, bounds).await?;
    Ok(())
}

#[tokio::test]
async fn two_live_relays_leave_no_gap_inversion_or_repeat_on_one_server() -> Result<()> {
    race(
        1,
        Bounds {
            rounds: 3,
            time: Duration::from_secs(30),
        },
    )
    .await
}

#[tokio::test]
async fn two_live_relays_leave_no_gap_inversion_or_repeat_on_a_cluster() -> Result<()> {
    race(
        3,
        Bounds {
            rounds: 3,
            time: Duration::from_secs(40),
        },
    )
    .await
}
