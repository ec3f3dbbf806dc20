//! Servers that go away and come back, and things on them that are missing.

use std::time::Duration;

use anyhow::{Result, ensure};
use async_nats::jetstream::AckKind;
use async_nats::jetstream::consumer::push;
use harness::eventually;

use crate::world::{ACK_WAIT, SOON, Script, World, numbered};

async fn applied(world: &World, count: usize) -> Result<()> {
    eventually("the events to be applied", SOON, async || {
        let applied = world.applied().await?.len();
        ensure!(applied >= count, "{applied} of {count} applied");
        Ok(Some(()))
    })
    .await?;
    assert_eq!(world.applied().await?.len(), count, "events applied twice");
    Ok(())
}

#[tokio::test]
async fn a_restart_of_nats_loses_and_repeats_nothing() -> Result<()> {
    let world = World::alone().await?;
    world.create_stream().await?;
    let mut config = world.config();
    config.batch_max = 10;
    let replica = world.consume_with(&Script::default(), config).await?;
    world.publish(numbered(200)).await?;
    // In the middle of it.
    world.servers.nats.kill().await?;
    world.servers.nats.start_again().await?;
    applied(&world, 200).await?;
    // And while idle; killed, because a server that is stopped takes leave of waiting requests.
    world.settled().await?;
    world.servers.nats.kill().await?;
    world.servers.nats.start_again().await?;
    world.publish(numbered(10)).await?;
    applied(&world, 210).await?;
    assert!(world.dead_letters().await?.is_empty());
    replica.stop().await
}

#[tokio::test]
async fn a_restart_of_postgres_loses_and_repeats_nothing() -> Result<()> {
    restart_of_postgres(10).await
}

#[tokio::test]
async fn a_restart_of_postgres_loses_and_repeats_nothing_event_by_event() -> Result<()> {
    restart_of_postgres(1).await
}

async fn restart_of_postgres(batch_max: usize) -> Result<()> {
    let world = World::alone().await?;
    world.create_stream().await?;
    let mut config = world.config();
    config.batch_max = batch_max;
    let (entered, mut batches) = tokio::sync::mpsc::unbounded_channel();
    let script = Script::with(move || {
        let _ = entered.send(());
        tokio::time::sleep(Duration::from_millis(5))
    });
    let replica = world.consume_with(&script, config).await?;
    world.publish(numbered(500)).await?;
    for _ in 0..5 {
        batches.recv().await;
    }
    world.servers.postgres.kill().await?;
    // Longer than ack_wait: another replica must not be delivered the batch in hand meanwhile.
    tokio::time::sleep(2 * ACK_WAIT).await;
    let others = world.fetch(500).await?;
    assert!(!others.is_empty(), "all was in hand");
    for message in others {
        let delivered = message.info().map(|info| info.delivered);
        assert_eq!(delivered.ok(), Some(1), "the batch in hand was handed back");
        message.ack_with(AckKind::Nak(None)).await.unwrap();
    }
    world.servers.postgres.start_again().await?;
    applied(&world, 500).await?;
    world.settled().await?;
    assert!(world.dead_letters().await?.is_empty());
    replica.stop().await
}

#[tokio::test]
async fn a_stop_while_postgres_is_away_hands_the_batch_back() -> Result<()> {
    let world = World::alone().await?;
    world.create_stream().await?;
    let mut config = world.config();
    // Nobody waits for that: the event has to be handed back.
    config.ack_wait = 10 * SOON;
    let replica = world
        .consume_with(&Script::default(), config.clone())
        .await?;
    eventually("a waiting request", SOON, async || {
        Ok((world.durable().await?.num_waiting == 1).then_some(()))
    })
    .await?;
    world.servers.postgres.stop().await?;
    world.publish(["1"]).await?;
    eventually("the event to be in hand", SOON, async || {
        Ok((world.durable().await?.num_ack_pending == 1).then_some(()))
    })
    .await?;
    replica.stop().await?;
    world.servers.postgres.start_again().await?;
    let replica = world.consume_with(&Script::default(), config).await?;
    applied(&world, 1).await?;
    replica.stop().await
}

#[tokio::test]
async fn a_deleted_consumer_is_created_again() -> Result<()> {
    let world = World::shared().await?;
    world.create_stream().await?;
    let replica = world.consume(&Script::default()).await?;
    world.publish(numbered(5)).await?;
    applied(&world, 5).await?;
    world.settled().await?;
    world.delete_durable().await?;
    world.publish(numbered(5)).await?;
    applied(&world, 10).await?;
    world.settled().await?;
    replica.stop().await
}

#[tokio::test]
async fn a_stream_that_appears_later_is_waited_for() -> Result<()> {
    let world = World::shared().await?;
    let replica = world.consume(&Script::default()).await?;
    // It has looked for the stream and not found it.
    tokio::time::sleep(Duration::from_millis(300)).await;
    world.create_stream().await?;
    world.publish(["late"]).await?;
    applied(&world, 1).await?;
    replica.stop().await
}

#[tokio::test]
async fn a_consumer_without_a_stream_stops_when_told() -> Result<()> {
    let world = World::shared().await?;
    world.consume(&Script::default()).await?.stop().await
}

#[tokio::test]
async fn a_foreign_consumer_of_the_same_name_is_a_definite_error() -> Result<()> {
    let world = World::shared().await?;
    world.create_stream().await?;
    let stream = world.jetstream.get_stream(&world.name).await?;
    let push = push::Config {
        durable_name: Some(world.name.clone()),
        deliver_subject: format!("elsewhere.{}", world.name),
        ..push::Config::default()
    };
    stream.create_consumer(push).await?;
    let replica = world.consume(&Script::default()).await?;
    let error = replica.ended().await.unwrap_err().to_string();
    assert!(
        error.contains("a push consumer of this name exists"),
        "{error}"
    );
    assert!(error.contains(&world.name), "{error}");
    Ok(())
}
