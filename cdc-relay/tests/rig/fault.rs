//! The faults that are drawn at random. To add one: a function that strikes and mends again, and a line
//! in [`ALL`]. Faults of one round strike different targets, and may overlap in time.

use std::{pin::Pin, time::Duration};

use anyhow::{Context as _, Result, bail};
use tokio::time::sleep;

use super::{draw::Draw, stage::Stage};

/// What a fault lasts at most, beside what servers need to be up again: longer than the walsender
/// waits here (3 s), so that some faults cost the slot and some do not.
const LASTS_MAX: Duration = Duration::from_secs(5);

/// What a fault breaks; two of one round never break the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Relay,
    Postgres,
    Nats,
}

type Struck<'a> = Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

pub struct Fault {
    pub name: &'static str,
    pub target: Target,
    /// It has a meaning for a cluster alone.
    pub needs_cluster: bool,
    strike: for<'a> fn(&'a Stage, Draw) -> Struck<'a>,
}

macro_rules! fault {
    ($strike:ident, $target:ident, $needs_cluster:literal) => {
        Fault {
            name: stringify!($strike),
            target: Target::$target,
            needs_cluster: $needs_cluster,
            strike: |stage, draw| Box::pin($strike(stage, draw)),
        }
    };
}

pub const ALL: &[Fault] = &[
    fault!(kill_relay, Relay, false),
    fault!(kill_all_relays, Relay, false),
    fault!(terminate_relay, Relay, false),
    fault!(pause_relay, Relay, false),
    fault!(cut_relay_off, Relay, false),
    fault!(cut_relay_from_nats, Relay, false),
    fault!(cut_relay_from_postgres, Relay, false),
    fault!(cut_one_way, Relay, false),
    fault!(close_connections, Relay, false),
    fault!(kill_postgres, Postgres, false),
    fault!(terminate_walsender, Postgres, false),
    fault!(kill_nats, Nats, false),
    fault!(stop_nats, Nats, false),
    fault!(pause_nats, Nats, false),
    fault!(kill_all_nats, Nats, true),
    fault!(step_down, Nats, true),
    fault!(kill_leader, Nats, true),
    fault!(pause_leader, Nats, true),
    fault!(cut_leader_off, Nats, true),
    fault!(cut_follower_off, Nats, true),
];

impl Fault {
    /// Strikes, and mends again.
    pub async fn strike(&self, stage: &Stage, mut draw: Draw) -> Result<()> {
        sleep(draw.up_to(Duration::from_millis(500))).await;
        let struck = (self.strike)(stage, draw).await;
        struck.with_context(|| format!("the fault {}", self.name))
    }
}

/// One to three faults of different targets.
pub fn draw(draw: &mut Draw, is_cluster: bool, targets: &[Target]) -> Vec<&'static Fault> {
    // To hunt for something that was found: names, comma separated.
    let only = std::env::var("SOAK_FAULTS").ok();
    let is_named = |fault: &Fault| {
        let mut names = only.as_deref().unwrap_or(fault.name).split(',');
        names.any(|name| name == fault.name)
    };
    let fits = |fault: &&Fault| {
        is_named(fault) && targets.contains(&fault.target) && (is_cluster || !fault.needs_cluster)
    };
    let all: Vec<_> = ALL.iter().filter(fits).collect();
    let mut drawn: Vec<&Fault> = Vec::new();
    for _ in 0..=draw.below(3) {
        let fault = all[draw.below(all.len())];
        if drawn.iter().all(|other| other.target != fault.target) {
            drawn.push(fault);
        }
    }
    drawn
}

/// Mostly the relay that has the slot: what strikes a standby shows little.
async fn relay(stage: &Stage, draw: &mut Draw) -> usize {
    match draw.below(4) {
        0 => draw.below(stage.players.len()),
        _ => stage.active().await.unwrap_or(0),
    }
}

async fn kill_relay(stage: &Stage, mut draw: Draw) -> Result<()> {
    let player = &stage.players[relay(stage, &mut draw).await];
    player.relay.kill().await?;
    sleep(draw.up_to(LASTS_MAX / 4)).await;
    player.relay.start_again()
}

async fn kill_all_relays(stage: &Stage, mut draw: Draw) -> Result<()> {
    for player in &stage.players {
        player.relay.kill().await?;
    }
    sleep(draw.up_to(LASTS_MAX / 8)).await;
    for player in &stage.players {
        player.relay.start_again()?;
    }
    Ok(())
}

async fn terminate_relay(stage: &Stage, mut draw: Draw) -> Result<()> {
    let player = &stage.players[relay(stage, &mut draw).await];
    let status = player.relay.terminate().await?;
    if !status.success() {
        bail!("SIGTERM ended with {status}; {}", player.relay.log().tail());
    }
    player.relay.start_again()
}

async fn pause_relay(stage: &Stage, mut draw: Draw) -> Result<()> {
    let player = &stage.players[relay(stage, &mut draw).await];
    player.relay.pause()?;
    sleep(draw.up_to(LASTS_MAX)).await;
    player.relay.resume()
}

async fn cut_relay_off(stage: &Stage, mut draw: Draw) -> Result<()> {
    let player = &stage.players[relay(stage, &mut draw).await];
    player.cut_off();
    sleep(draw.up_to(LASTS_MAX)).await;
    player.heal();
    Ok(())
}

async fn cut_relay_from_nats(stage: &Stage, mut draw: Draw) -> Result<()> {
    let player = &stage.players[relay(stage, &mut draw).await];
    player.to_nats.iter().for_each(harness::Link::cut);
    sleep(draw.up_to(LASTS_MAX)).await;
    player.heal();
    Ok(())
}

async fn cut_relay_from_postgres(stage: &Stage, mut draw: Draw) -> Result<()> {
    let player = &stage.players[relay(stage, &mut draw).await];
    player.to_postgres.cut();
    sleep(draw.up_to(LASTS_MAX)).await;
    player.heal();
    Ok(())
}

/// Acknowledgements, or what Postgres sends, do not arrive; what the relay says does. Or the reverse.
async fn cut_one_way(stage: &Stage, mut draw: Draw) -> Result<()> {
    let player = &stage.players[relay(stage, &mut draw).await];
    let links: Vec<_> = match draw.below(2) {
        0 => player.to_nats.iter().collect(),
        _ => vec![&player.to_postgres],
    };
    let is_deaf = draw.below(2) == 0;
    for link in links {
        if is_deaf {
            link.cut_from_target();
        } else {
            link.cut_to_target();
        }
    }
    sleep(draw.up_to(LASTS_MAX)).await;
    player.heal();
    Ok(())
}

async fn close_connections(stage: &Stage, mut draw: Draw) -> Result<()> {
    let player = &stage.players[relay(stage, &mut draw).await];
    match draw.below(2) {
        0 => player
            .to_nats
            .iter()
            .for_each(|link| link.close_connections()),
        _ => player.to_postgres.close_connections(),
    }
    Ok(())
}

async fn kill_postgres(stage: &Stage, mut draw: Draw) -> Result<()> {
    stage.postgres.kill().await?;
    sleep(draw.up_to(LASTS_MAX / 4)).await;
    stage.postgres.start_again().await
}

async fn terminate_walsender(stage: &Stage, mut draw: Draw) -> Result<()> {
    for _ in 0..=draw.below(3) {
        let terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_replication";
        stage.sql().await?.batch_execute(terminate).await?;
        sleep(draw.up_to(LASTS_MAX / 4)).await;
    }
    Ok(())
}

async fn kill_nats(stage: &Stage, mut draw: Draw) -> Result<()> {
    let nats = stage.servers.each()[draw.below(stage.servers.size())];
    nats.kill().await?;
    sleep(draw.up_to(LASTS_MAX / 4)).await;
    nats.launch()
}

async fn stop_nats(stage: &Stage, mut draw: Draw) -> Result<()> {
    let nats = stage.servers.each()[draw.below(stage.servers.size())];
    nats.stop().await?;
    sleep(draw.up_to(LASTS_MAX / 4)).await;
    nats.launch()
}

async fn pause_nats(stage: &Stage, mut draw: Draw) -> Result<()> {
    let nats = stage.servers.each()[draw.below(stage.servers.size())];
    nats.pause()?;
    sleep(draw.up_to(LASTS_MAX)).await;
    nats.resume()
}

async fn kill_all_nats(stage: &Stage, mut draw: Draw) -> Result<()> {
    for nats in stage.servers.each() {
        nats.kill().await?;
    }
    sleep(draw.up_to(LASTS_MAX / 4)).await;
    stage
        .servers
        .each()
        .into_iter()
        .try_for_each(|nats| nats.launch())
}

async fn step_down(stage: &Stage, mut draw: Draw) -> Result<()> {
    let cluster = stage.servers.cluster().context("no cluster")?;
    for _ in 0..=draw.below(3) {
        // Right after an election it may be refused.
        if let Err(error) = cluster.step_down(super::STREAM).await {
            println!("    {error:#}");
        }
        sleep(draw.up_to(LASTS_MAX / 4)).await;
    }
    Ok(())
}

async fn kill_leader(stage: &Stage, mut draw: Draw) -> Result<()> {
    let leader = stage.servers.each()[stage.servers.leader().await?];
    leader.kill().await?;
    sleep(draw.up_to(LASTS_MAX)).await;
    leader.launch()
}

async fn pause_leader(stage: &Stage, mut draw: Draw) -> Result<()> {
    let leader = stage.servers.each()[stage.servers.leader().await?];
    leader.pause()?;
    // Others elect a new one after 4 to 9 s.
    sleep(LASTS_MAX + draw.up_to(LASTS_MAX)).await;
    leader.resume()
}

async fn cut_leader_off(stage: &Stage, draw: Draw) -> Result<()> {
    let leader = stage.servers.leader().await?;
    cut_off(stage, leader, draw).await
}

async fn cut_follower_off(stage: &Stage, mut draw: Draw) -> Result<()> {
    let leader = stage.servers.leader().await?;
    let other = 1 + draw.below(stage.servers.size() - 1);
    cut_off(stage, (leader + other) % stage.servers.size(), draw).await
}

/// From the other servers; the relays still reach it, and may take it for the leader.
async fn cut_off(stage: &Stage, at: usize, mut draw: Draw) -> Result<()> {
    let cluster = stage.servers.cluster().context("no cluster")?;
    cluster.cut_routes(at);
    sleep(LASTS_MAX + draw.up_to(LASTS_MAX)).await;
    cluster.heal(at);
    Ok(())
}
