//! A batch that fails: what it costs, and what becomes of the events beside the one that fails.

use anyhow::Result;
use harness::eventually;

use crate::world::{SOON, Script, World, numbered};

const BATCH: usize = 256;

/// Publishes first, so that all is one batch; returns when all is settled.
async fn consume(world: &World, script: &Script, payloads: Vec<String>) -> Result<()> {
    world.create_stream().await?;
    world.publish(payloads).await?;
    let replica = world.consume(script).await?;
    eventually("the durable consumer", SOON, async || {
        Ok(world.durable().await.ok())
    })
    .await?;
    world.settled().await?;
    replica.stop().await
}

async fn transactions(world: &World) -> Result<i64> {
    world.count("SELECT count(DISTINCT tx) FROM applied").await
}

#[tokio::test]
async fn one_bad_event_costs_a_batch_twice_the_logarithm_of_its_size() -> Result<()> {
    let world = World::shared().await?;
    let script = Script::default();
    let mut payloads: Vec<String> = numbered(BATCH).collect();
    payloads[100] = "refuse".to_owned();
    consume(&world, &script, payloads.clone()).await?;
    payloads.remove(100);
    assert_eq!(world.applied().await?, payloads, "in their order");
    let halvings = BATCH.ilog2() as usize;
    assert!(
        script.calls() <= 1 + 2 * halvings,
        "{} calls",
        script.calls()
    );
    let transactions = transactions(&world).await?;
    assert!(
        transactions <= halvings as i64,
        "{transactions} transactions"
    );
    assert_eq!(world.dead_letters().await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn bad_events_anywhere_in_a_batch_are_each_found() -> Result<()> {
    let world = World::shared().await?;
    let mut payloads: Vec<String> = numbered(64).collect();
    for at in [0, 31, 32, 63] {
        payloads[at] = "refuse".to_owned();
    }
    consume(&world, &Script::default(), payloads.clone()).await?;
    payloads.retain(|payload| payload != "refuse");
    assert_eq!(world.applied().await?, payloads);
    assert_eq!(world.dead_letters().await?.len(), 4);
    Ok(())
}

#[tokio::test]
async fn a_batch_that_met_another_transaction_is_tried_again_as_it_is() -> Result<()> {
    let world = World::shared().await?;
    let mut payloads: Vec<String> = numbered(16).collect();
    payloads[7] = "conflict 2".to_owned();
    consume(&world, &Script::default(), payloads.clone()).await?;
    assert_eq!(world.applied().await?, payloads);
    assert_eq!(transactions(&world).await?, 1, "it was taken apart");
    let delivered = world.durable().await?.delivered.consumer_sequence;
    assert_eq!(delivered, 16, "it was handed back");
    Ok(())
}

#[tokio::test]
async fn a_conflict_that_stays_is_retried_and_never_dead_lettered() -> Result<()> {
    let world = World::shared().await?;
    let payloads = ["1", "conflict 13", "3"].map(str::to_owned).to_vec();
    consume(&world, &Script::default(), payloads).await?;
    assert_eq!(world.applied().await?, ["1", "3", "conflict 13"]);
    assert!(world.dead_letters().await?.is_empty());
    Ok(())
}

/// Each half with the slow one in it would take as long once more.
#[tokio::test]
async fn a_batch_that_took_too_long_is_given_up_once_and_then_taken_apart() -> Result<()> {
    let world = World::shared().await?;
    let script = Script::default();
    let mut payloads: Vec<String> = numbered(32).collect();
    payloads[20] = "hang 2".to_owned();
    consume(&world, &script, payloads).await?;
    assert_eq!(world.applied().await?.len(), 32);
    // Once in the batch, once alone, and then it is applied.
    assert_eq!(script.calls(), 1 + 32 + 1);
    Ok(())
}

#[tokio::test]
async fn what_no_version_knows_is_a_dead_letter_after_a_while() -> Result<()> {
    let world = World::shared().await?;
    world.create_stream().await?;
    world.publish(["1", "unknown", "3"]).await?;
    let script = Script::default();
    let mut config = world.config();
    config.unknown_deliveries_max = 3;
    let replica = world.consume_with(&script, config).await?;
    let letters = eventually("a dead letter", SOON, async || {
        let letters = world.dead_letters().await.unwrap_or_default();
        Ok((!letters.is_empty()).then_some(letters))
    })
    .await?;
    replica.stop().await?;
    let attempts = mailbox::dead_letter::ATTEMPTS;
    assert_eq!(crate::world::header(&letters[0], attempts), "3");
    assert_eq!(world.applied().await?, ["1", "3"]);
    Ok(())
}

/// As one does that kills its backend: the server takes no leave, and is there again at once.
#[tokio::test]
async fn an_event_that_breaks_its_connection_each_time_is_found_and_set_aside() -> Result<()> {
    let (world, link) = World::linked().await?;
    let script = Script::by(&link);
    let payloads = ["0", "1", "break", "3"].map(str::to_owned).to_vec();
    consume(&world, &script, payloads).await?;
    let mut applied = world.applied().await?;
    applied.sort();
    assert_eq!(applied, ["0", "1", "3"]);
    let letters = world.dead_letters().await?;
    assert_eq!(letters.len(), 1);
    let reason = crate::world::header(&letters[0], mailbox::dead_letter::REASON);
    assert!(
        reason.starts_with("the connection to Postgres was lost amid it"),
        "{reason}"
    );
    Ok(())
}

#[tokio::test]
async fn connections_that_break_now_and_then_set_nothing_aside() -> Result<()> {
    let (world, link) = World::linked().await?;
    let script = Script::by(&link);
    // So often that it is halved, is delivered again, and becomes a suspect.
    let payloads = ["0", "break 2", "break 20", "3"]
        .map(str::to_owned)
        .to_vec();
    consume(&world, &script, payloads.clone()).await?;
    let mut applied = world.applied().await?;
    applied.sort();
    assert_eq!(applied, ["0", "3", "break 2", "break 20"]);
    assert!(world.dead_letters().await?.is_empty());
    Ok(())
}
