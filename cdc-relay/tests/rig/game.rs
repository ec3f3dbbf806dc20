//! Rounds of faults: writers write, what is drawn strikes, and after each round the stream holds exactly
//! what was committed, in the order of the commits.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use futures_util::future::try_join_all;
use tokio::time::sleep;

use super::{
    draw::Draw,
    fault::{self, Target},
    oracle::Oracle,
    stage::Stage,
};

/// What is written before the first fault of a round strikes, and after the last.
const QUIET: Duration = Duration::from_millis(300);

/// When a game ends: whichever comes first.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub rounds: usize,
    pub time: Duration,
}

/// How a game went.
#[derive(Debug)]
pub struct Played {
    pub rounds: usize,
    pub events: u64,
}

/// Plays rounds with faults of `targets`. Says what it does: the test harness shows that with a failure.
pub async fn play(
    stage: &Stage,
    oracle: &mut Oracle,
    mut draw: Draw,
    targets: &[Target],
    bounds: Bounds,
) -> Result<Played> {
    let begun = Instant::now();
    let mut rounds = 0;
    while rounds < bounds.rounds && begun.elapsed() < bounds.time {
        rounds += 1;
        let is_cluster = stage.servers.cluster().is_some();
        let faults = fault::draw(&mut draw, is_cluster, targets);
        let names: Vec<_> = faults.iter().map(|fault| fault.name).collect();
        println!(
            "  {:>6.1} s  round {rounds}: {}",
            begun.elapsed().as_secs_f64(),
            names.join(" + ")
        );
        let writers = stage.writers(rounds);
        sleep(QUIET).await;
        let struck = faults.iter().map(|fault| fault.strike(stage, draw.fork()));
        try_join_all(struck).await?;
        stage.servers.wait_ready().await?;
        sleep(QUIET).await;
        writers.stop().await;
        let checked = stage.check(oracle).await;
        checked.with_context(|| format!("after round {rounds}: {}", names.join(" + ")))?;
    }
    println!(
        "{rounds} rounds, {} events, {:.0} s",
        oracle.events,
        begun.elapsed().as_secs_f64()
    );
    Ok(Played {
        rounds,
        events: oracle.events,
    })
}
