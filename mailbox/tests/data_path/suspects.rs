//! Events that have been delivered several times: suspected of killing their process, and cleared. What
//! becomes of one that does is in `tests/crash.rs`.

use anyhow::{Result, anyhow};
use async_nats::jetstream::AckKind;
use harness::eventually;
use uuid::Uuid;

use crate::world::{SOON, Script, World, numbered};

/// Events that JetStream has delivered `times` in vain.
async fn delivered_in_vain(world: &World, payloads: &[&str], times: usize) -> Result<Vec<Uuid>> {
    world.create_stream().await?;
    let replica = world.consume(&Script::default()).await?;
    eventually("the durable consumer", SOON, async || {
        Ok(world.durable().await.ok())
    })
    .await?;
    replica.stop().await?;
    let ids = world.publish(payloads.iter().copied()).await?;
    let mut deliveries = 0;
    while deliveries < times * payloads.len() {
        for message in world.fetch(payloads.len()).await? {
            let told = message.ack_with(AckKind::Nak(None)).await;
            told.map_err(|error| anyhow!(error))?;
            deliveries += 1;
        }
    }
    world.nats.flush().await?;
    Ok(ids)
}

/// Deliveries alone prove nothing: stops, outages and transient failures make them too.
#[tokio::test]
async fn a_transient_failure_after_twenty_deliveries_is_no_dead_letter() -> Result<()> {
    let world = World::shared().await?;
    let ids = delivered_in_vain(&world, &["fail 1", "1", "2"], 20).await?;
    let script = Script::default();
    let replica = world.consume(&script).await?;
    world.settled().await?;
    replica.stop().await?;
    assert_eq!(script.tries(ids[0]), 2);
    assert_eq!(world.applied().await?, ["1", "2", "fail 1"]);
    assert!(world.dead_letters().await?.is_empty());
    let transactions = "SELECT count(DISTINCT tx) FROM applied";
    assert_eq!(world.count(transactions).await?, 3, "each was to be alone");
    let marks = world.count("SELECT count(*) FROM inbox_marks").await?;
    assert_eq!(marks, 0, "of attempts that have ended");
    Ok(())
}

#[tokio::test]
async fn nothing_is_written_for_events_that_are_not_suspected() -> Result<()> {
    let world = World::shared().await?;
    world.create_stream().await?;
    let mut client = world.pool.get().await?;
    let tx = client.transaction().await?;
    tx.batch_execute("LOCK TABLE inbox_marks").await?;
    // Also for those that fail: two deliveries are not many.
    world
        .publish(numbered(10).chain(["fail 1".to_owned()]))
        .await?;
    let replica = world.consume(&Script::default()).await?;
    eventually("all of them", SOON, async || {
        Ok((world.applied().await?.len() == 11).then_some(()))
    })
    .await?;
    tx.rollback().await?;
    replica.stop().await
}

#[tokio::test]
async fn an_event_that_was_at_hand_when_processes_died_waits_behind_the_others() -> Result<()> {
    let world = World::shared().await?;
    delivered_in_vain(&world, &["first", "2", "3"], 3).await?;
    let stored = world.jetstream.get_stream(&world.name).await?;
    let stored = stored.get_raw_message(1).await?;
    let at = i64::try_from(stored.time.unix_timestamp_nanos())?;
    let client = world.pool.get().await?;
    let mark = "INSERT INTO inbox_marks VALUES ($1, $1, 1, $2, 2)";
    client.execute(mark, &[&world.name, &at]).await?;
    let replica = world.consume(&Script::default()).await?;
    world.settled().await?;
    replica.stop().await?;
    // Two deaths are not three.
    assert_eq!(world.applied().await?, ["2", "3", "first"]);
    assert_eq!(world.count("SELECT count(*) FROM inbox_marks").await?, 0);
    Ok(())
}

/// A mark that is written again because Postgres was slow to answer is no further death.
#[tokio::test]
async fn a_mark_whose_answer_was_late_counts_once() -> Result<()> {
    let world = World::shared().await?;
    delivered_in_vain(&world, &["hang 1"], 2).await?;
    let mut client = world.pool.get().await?;
    let tx = client.transaction().await?;
    tx.batch_execute("LOCK TABLE inbox_marks IN SHARE MODE")
        .await?;
    let replica = world.consume(&Script::default()).await?;
    // A step is a quarter of ack_wait; after three of them the mark has been tried more than once.
    eventually("a mark that waits for long", SOON, async || {
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
            AND wait_event_type = 'Lock' AND now() - query_start > '3 s'";
        Ok((world.count(waits).await? > 0).then_some(()))
    })
    .await?;
    tx.rollback().await?;
    let begun = eventually("the mark", SOON, async || {
        let begun = world.column("SELECT begun::text FROM inbox_marks").await?;
        Ok((!begun.is_empty()).then_some(begun))
    })
    .await?;
    assert_eq!(begun, ["1"]);
    eventually("the attempt to end", SOON, async || {
        let marks = world.column("SELECT begun::text FROM inbox_marks").await?;
        assert!(marks.is_empty() || marks == ["1"], "{marks:?}");
        Ok((world.applied().await?.len() == 1).then_some(()))
    })
    .await?;
    replica.stop().await
}

/// Else another replica would take it for a death, and three such for a reason to bury the event.
#[tokio::test]
async fn an_event_is_not_delivered_again_before_its_mark_is_gone() -> Result<()> {
    let world = World::shared().await?;
    let ids = delivered_in_vain(&world, &["fail 1"], 3).await?;
    let client = world.pool.get().await?;
    let refuse = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE EXCEPTION 'not now'; END $$;
        CREATE TRIGGER refuse BEFORE DELETE ON inbox_marks FOR EACH ROW EXECUTE FUNCTION refuse()";
    client.batch_execute(refuse).await?;
    let script = Script::default();
    let replica = world.consume(&script).await?;
    let refused = "tries to take the mark away";
    eventually(refused, SOON, async || {
        let tried = "SELECT count(*) FROM inbox_marks WHERE now() - last_begun > '2 s'";
        Ok((world.count(tried).await? > 0).then_some(()))
    })
    .await?;
    // Handed back, it would have been delivered again within half a second.
    assert_eq!(script.tries(ids[0]), 1);
    client
        .batch_execute("DROP TRIGGER refuse ON inbox_marks")
        .await?;
    world.settled().await?;
    replica.stop().await?;
    assert_eq!(world.applied().await?, ["fail 1"]);
    assert_eq!(world.count("SELECT count(*) FROM inbox_marks").await?, 0);
    Ok(())
}

#[tokio::test]
async fn a_replica_that_stops_amid_an_attempt_leaves_no_mark() -> Result<()> {
    let world = World::shared().await?;
    let ids = delivered_in_vain(&world, &["lose"], 3).await?;
    let script = Script::default();
    let replica = world.consume(&script).await?;
    eventually("tries whose connection is lost", SOON, async || {
        Ok((script.tries(ids[0]) >= 2).then_some(()))
    })
    .await?;
    assert_eq!(world.count("SELECT count(*) FROM inbox_marks").await?, 1);
    replica.stop().await?;
    assert_eq!(world.count("SELECT count(*) FROM inbox_marks").await?, 0);
    Ok(())
}
