//! Servers that go away and come back, and things on them that are missing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use async_nats::jetstream::AckKind;
use async_nats::jetstream::consumer::push;
use futures_util::{StreamExt, stream};
use harness::eventually;
use tokio_postgres::error::SqlState;
use tokio_postgres::{AsyncMessage, NoTls};

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

/// Kills the backend of a session of its own (SIGKILL), as an event can, or the kernel that is out of memory.
/// Postgres then ends all others too. Returns when it has recovered.
async fn crash_a_backend(world: &World) -> Result<()> {
    let postgres = &world.servers.postgres;
    let innocent = postgres.connect("postgres").await?;
    let client = postgres.connect("postgres").await?;
    let kill = "COPY (SELECT) TO PROGRAM 'kill -9 $PPID'";
    ensure!(client.batch_execute(kill).await.is_err(), "it lives");
    eventually("Postgres to notice", SOON, async || {
        Ok(innocent.batch_execute("").await.err().map(|_| ()))
    })
    .await?;
    // It lets nobody in before all that were there have gone.
    eventually("Postgres to recover", SOON, async || {
        postgres.connect("postgres").await.map(Some)
    })
    .await?;
    Ok(())
}

/// Why an attempt that goes down with another session cannot tell that from one that took its own backend down:
/// what it is told is no error.
#[tokio::test]
async fn a_session_that_ends_with_another_is_told_so_by_a_notice_alone() -> Result<()> {
    let world = World::alone().await?;
    let url = world.servers.postgres.url("postgres");
    let (client, mut connection) = tokio_postgres::connect(&url, NoTls).await?;
    let socket = tokio::spawn(async move {
        let mut notices = Vec::new();
        let mut messages = stream::poll_fn(move |cx| connection.poll_message(cx));
        while let Some(Ok(message)) = messages.next().await {
            if let AsyncMessage::Notice(notice) = message {
                notices.push((notice.severity().to_owned(), notice.code().clone()));
            }
        }
        notices
    });
    let query = client.batch_execute("SELECT pg_sleep(60)");
    let crash = async {
        eventually("the query", SOON, async || {
            let running = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
            Ok((world.count(running).await? == 1).then_some(()))
        })
        .await?;
        crash_a_backend(&world).await
    };
    let (ended, crashed) = tokio::join!(query, crash);
    crashed?;
    let ended = ended.unwrap_err();
    assert_eq!(ended.code(), None, "{ended}");
    let notices = socket.await?;
    assert_eq!(notices, [("WARNING".to_owned(), SqlState::CRASH_SHUTDOWN)]);
    Ok(())
}

#[tokio::test]
async fn a_batch_that_other_sessions_take_down_with_them_is_applied_whole_afterwards() -> Result<()>
{
    const CRASHES: usize = 2;
    let world = World::alone().await?;
    world.create_stream().await?;
    let (entered, mut attempts) = tokio::sync::mpsc::unbounded_channel();
    let (crashed, seen) = tokio::sync::watch::channel(0);
    let tries = Arc::new(AtomicUsize::new(0));
    let script = Script::with(move || {
        let (entered, mut seen) = (entered.clone(), seen.clone());
        let number = tries.fetch_add(1, Ordering::Relaxed);
        async move {
            let _ = entered.send(());
            // Amid its transaction, whatever is killed meanwhile.
            let _ = seen
                .wait_for(|crashes| *crashes >= CRASHES.min(number + 1))
                .await;
        }
    });
    let ids = world.publish(numbered(20)).await?;
    let mut config = world.config();
    // A recovery takes no attempt to its end.
    config.ack_wait = 10 * SOON;
    let replica = world.consume_with(&script, config).await?;
    for crash in 1..=CRASHES {
        attempts.recv().await;
        crash_a_backend(&world).await?;
        crashed.send(crash)?;
    }
    applied(&world, 20).await?;
    world.settled().await?;
    replica.stop().await?;
    let transactions = "SELECT count(DISTINCT tx) FROM applied";
    assert_eq!(world.count(transactions).await?, 1, "it was split");
    assert_eq!(script.tries(ids[0]), 3);
    assert!(world.dead_letters().await?.is_empty());
    Ok(())
}

/// As by a server that shuts down, or by an administrator: that is no event's fault, however often it happens.
#[tokio::test]
async fn an_event_whose_session_is_ended_in_order_each_time_stays_in_hand() -> Result<()> {
    let world = World::shared().await?;
    world.create_stream().await?;
    let ids = world.publish(["lose"]).await?;
    let script = Script::default();
    let replica = world.consume(&script).await?;
    eventually("more tries than a lost connection gets", SOON, async || {
        Ok((script.tries(ids[0]) > 4).then_some(()))
    })
    .await?;
    assert_eq!(world.durable().await?.delivered.consumer_sequence, 1);
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
