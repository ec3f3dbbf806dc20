//! How long the stream stands still when the relay that has the slot is killed, stopped, or cut off from
//! the network, and a standby is there: no longer than the configuration says. What was measured is
//! printed; the bound is documented in the README, section *Standby*.

// What was measured is what the README tells.
#![allow(clippy::print_stdout)]

mod rig;

use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use async_nats::jetstream;
use harness::eventually;
use rig::{
    SLOT, SOON, STREAM,
    oracle::{self, Oracle},
    stage::{Player, Stage},
};

/// Postgres frees the slot of a relay that has vanished after `CDC_WAL_SENDER_TIMEOUT_SECONDS`; the
/// least that the relay takes.
const WAL_SENDER_TIMEOUT: Duration = Duration::from_secs(3);

/// An append that is not acknowledged ends a session after this long (`publish`).
const ACK_TIMEOUT: Duration = Duration::from_secs(10);

/// What a standby needs to see that the slot is free, to take it, and to read the stream: a fraction of
/// a second, and more for a debug build on a machine that does other things too.
const START: Duration = Duration::from_secs(5);

/// Strikes the active relay, each round anew, and returns how long it took until a standby's first
/// append.
async fn takeovers(
    what: &str,
    bound: Duration,
    rounds: usize,
    strike: impl AsyncFn(&Player) -> Result<()>,
    mend: impl AsyncFn(&Player) -> Result<()>,
) -> Result<()> {
    let mut stage = Stage::start(1).await?;
    for _ in 0..2 {
        stage.add(SLOT, &[]).await?;
        stage
            .players
            .last()
            .context("a player")?
            .relay
            .wait_ready()
            .await?;
    }
    let mut oracle = Oracle::default();
    let writers = stage.writers(0);
    for round in 1..=rounds {
        let active = stage.active().await?;
        let player = &stage.players[active];
        let before = last_sequence(&stage).await?;
        let struck = SystemTime::now();
        strike(player).await?;
        let standby = &stage.players[1 - active];
        eventually("the standby to stream", SOON, async || {
            Ok(standby.is_streaming().await?.then_some(()))
        })
        .await?;
        let taken = last_sequence(&stage).await?;
        eventually("the standby to append", SOON, async || {
            Ok((last_sequence(&stage).await? > taken).then_some(()))
        })
        .await?;
        let took = silence(&stage, before, struck).await?;
        println!(
            "{what}, round {round}: the standby's first append after {took:.2?}, bound {bound:?}"
        );
        ensure!(
            took <= bound,
            "{what}: {took:?}, and the bound is {bound:?}"
        );
        mend(player).await?;
        player.relay.wait_ready().await?;
        eventually(
            "one relay to stream and one to stand by",
            SOON,
            async || {
                let count = usize::from(player.is_streaming().await?)
                    + usize::from(standby.is_streaming().await?);
                Ok((count == 1).then_some(()))
            },
        )
        .await?;
    }
    writers.stop().await;
    stage.check(&mut oracle).await
}

async fn last_sequence(stage: &Stage) -> Result<u64> {
    let jetstream = jetstream::new(stage.servers.client().await?);
    let stream = jetstream.get_stream(STREAM).await?;
    Ok(stream.cached_info().state.last_sequence)
}

/// From `struck` to the end of the stream's longest silence since then.
async fn silence(stage: &Stage, after: u64, struck: SystemTime) -> Result<Duration> {
    let client = stage.servers.client().await?;
    let end = last_sequence(stage).await?;
    let (mut last, mut longest, mut until) = (struck, Duration::ZERO, struck);
    for message in oracle::read(&client, after, end).await? {
        let info = message.info().map_err(anyhow::Error::msg)?;
        let at = SystemTime::from(info.published);
        if at > struck {
            let gap = at.duration_since(last).unwrap_or_default();
            if gap > longest {
                (longest, until) = (gap, at);
            }
            last = at;
        }
    }
    Ok(until.duration_since(struck)?)
}

#[tokio::test]
async fn a_standby_takes_over_from_a_killed_relay_at_once() -> Result<()> {
    let strike = async |player: &Player| player.relay.kill().await;
    let mend = async |player: &Player| player.relay.start_again();
    takeovers("SIGKILL", START, 3, strike, mend).await
}

#[tokio::test]
async fn a_standby_takes_over_from_a_stopped_relay_within_the_walsenders_timeout() -> Result<()> {
    let strike = async |player: &Player| player.relay.pause();
    let mend = async |player: &Player| player.relay.resume();
    takeovers("SIGSTOP", WAL_SENDER_TIMEOUT + START, 2, strike, mend).await
}

#[tokio::test]
async fn a_standby_takes_over_from_a_relay_cut_off_within_the_walsenders_timeout() -> Result<()> {
    let strike = async |player: &Player| {
        player.cut_off();
        Ok(())
    };
    let mend = async |player: &Player| {
        player.heal();
        Ok(())
    };
    takeovers("cut off", WAL_SENDER_TIMEOUT + START, 2, strike, mend).await
}

#[tokio::test]
async fn a_relay_that_cannot_reach_nats_leaves_the_slot_to_its_standby() -> Result<()> {
    let strike = async |player: &Player| {
        player.to_nats.iter().for_each(harness::Link::cut);
        Ok(())
    };
    let mend = async |player: &Player| {
        player.heal();
        Ok(())
    };
    takeovers("cut off from NATS", ACK_TIMEOUT + START, 1, strike, mend).await
}
