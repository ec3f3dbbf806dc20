//! The consumer when nothing is broken: exactly once, in batches, at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use anyhow::Result;
use harness::eventually;

use crate::world::{SOON, Script, World, numbered};

#[tokio::test]
async fn events_are_applied_in_order_and_acknowledged() -> Result<()> {
    let world = World::shared().await?;
    world.create_stream().await?;
    world.publish(numbered(10)).await?;
    let replica = world.consume(&Script::default()).await?;
    eventually("ten events", SOON, async || {
        Ok((world.applied().await?.len() >= 10).then_some(()))
    })
    .await?;
    world.settled().await?;
    assert_eq!(world.applied().await?, numbered(10).collect::<Vec<_>>());
    replica.stop().await
}

#[tokio::test]
async fn a_second_delivery_of_an_event_is_not_applied() -> Result<()> {
    let world = World::shared().await?;
    world.create_stream().await?;
    world.publish(numbered(10)).await?;
    for _ in 0..2 {
        let replica = world.consume(&Script::default()).await?;
        eventually("the durable consumer", SOON, async || {
            Ok(world.durable().await.ok())
        })
        .await?;
        world.settled().await?;
        replica.stop().await?;
        assert_eq!(world.applied().await?.len(), 10);
        // The next one is delivered everything once more.
        world.delete_durable().await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_crash_between_commit_and_acknowledgement_applies_once() -> Result<()> {
    let world = World::alone().await?;
    world.create_stream().await?;
    let ids = world.publish(["only once"]).await?;
    let servers = world.servers.clone();
    let script = Script::with(move || {
        let servers = servers.clone();
        async move { servers.nats.kill().await.unwrap() }
    });
    let replica = world.consume(&script).await?;
    eventually("the commit", SOON, async || {
        Ok((world.applied().await?.len() == 1).then_some(()))
    })
    .await?;
    // Its acknowledgement has nowhere to go; and it will not be there to repeat it.
    replica.crash().await;
    world.servers.nats.start_again().await?;
    let before = world.durable().await?;
    assert_eq!(before.ack_floor.stream_sequence, 0, "it was acknowledged");

    let script = Script::default();
    let replica = world.consume(&script).await?;
    world.settled().await?;
    assert_eq!(world.durable().await?.ack_floor.stream_sequence, 1);
    assert_eq!(script.tries(ids[0]), 0, "the handler saw a repeat");
    assert_eq!(world.applied().await?, ["only once"]);
    replica.stop().await
}

#[tokio::test]
async fn a_backlog_is_applied_in_full_batches() -> Result<()> {
    let world = World::shared().await?;
    world.create_stream().await?;
    world.publish(numbered(1_000)).await?;
    let mut config = world.config();
    // A batch that takes too long is taken apart, and the machine may be busy.
    config.ack_wait = 10 * SOON;
    let replica = world.consume_with(&Script::default(), config).await?;
    eventually("all events", SOON, async || {
        Ok((world.applied().await?.len() >= 1_000).then_some(()))
    })
    .await?;
    let transactions = world
        .count("SELECT count(DISTINCT tx) FROM applied")
        .await?;
    assert_eq!(transactions, 4, "1,000 events in batches of 256");
    replica.stop().await
}

#[tokio::test]
async fn an_idle_consumer_applies_an_event_at_once() -> Result<()> {
    let world = World::shared().await?;
    world.create_stream().await?;
    let replica = world.consume(&Script::default()).await?;
    let mut best = SOON;
    for n in 1..=5 {
        eventually("a waiting request", SOON, async || {
            Ok((world.durable().await?.num_waiting == 1).then_some(()))
        })
        .await?;
        let published = Instant::now();
        world.publish(["at once"]).await?;
        eventually("the event", SOON, async || {
            Ok((world.applied().await?.len() == n).then_some(()))
        })
        .await?;
        best = best.min(published.elapsed());
    }
    // The wait that must not be there is of seconds; the machine may be busy.
    assert!(best < Duration::from_millis(500), "{best:?}");
    replica.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_of_several_holds_up_the_next_for_a_moment() -> Result<()> {
    const BATCHES: usize = 10;
    let world = Arc::new(World::shared().await?);
    world.create_stream().await?;
    world.publish(["one", "two"]).await?;
    let (left, source) = (Arc::new(AtomicUsize::new(BATCHES - 1)), world.clone());
    // While a batch is applied, the next two events come.
    let script = Script::with(move || {
        let (left, source) = (left.clone(), source.clone());
        async move {
            let one_less = |n: usize| n.checked_sub(1);
            if left.fetch_update(SeqCst, SeqCst, one_less).is_ok() {
                source.publish(["one", "two"]).await.unwrap();
            }
        }
    });
    let mut config = world.config();
    config.step_every = Duration::from_millis(200);
    let begin = Instant::now();
    let replica = world.consume_with(&script, config.clone()).await?;
    eventually("all events", SOON, async || {
        Ok((world.applied().await?.len() >= 2 * BATCHES).then_some(()))
    })
    .await?;
    let elapsed = begin.elapsed();
    assert_eq!(script.calls(), BATCHES, "not two by two");
    let held_up = config.step_every * u32::try_from(BATCHES - 1)?;
    assert!(held_up <= elapsed, "{BATCHES} batches in {elapsed:?}");
    replica.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_share_the_durable_and_apply_each_event_once() -> Result<()> {
    let world = World::shared().await?;
    world.create_stream().await?;
    let mut config = world.config();
    config.batch_max = 50;
    let scripts: Vec<Script> = (0..3).map(|_| Script::default()).collect();
    let mut replicas = Vec::new();
    for script in &scripts {
        replicas.push(world.consume_with(script, config.clone()).await?);
    }
    let ids = world.publish(numbered(3_000)).await?;
    eventually("all events", SOON, async || {
        let applied = world.applied().await?.len();
        anyhow::ensure!(applied >= 3_000, "{applied} applied");
        Ok(Some(()))
    })
    .await?;
    world.settled().await?;
    for replica in replicas {
        replica.stop().await?;
    }
    let distinct = "SELECT count(DISTINCT event_id) FROM applied";
    assert_eq!(world.count(distinct).await?, 3_000);
    assert_eq!(world.applied().await?.len(), 3_000);
    for (n, script) in scripts.iter().enumerate() {
        let share: u32 = ids.iter().map(|id| script.tries(*id)).sum();
        assert!(share > 0, "replica {n} did nothing");
    }
    Ok(())
}

#[tokio::test]
async fn a_stopping_consumer_finishes_the_batch_in_hand() -> Result<()> {
    let world = World::shared().await?;
    world.create_stream().await?;
    world.publish(numbered(20)).await?;
    let (entered, mut wait) = tokio::sync::mpsc::unbounded_channel();
    let script = Script::with(move || {
        let _ = entered.send(());
        tokio::time::sleep(Duration::from_millis(300))
    });
    let replica = world.consume(&script).await?;
    wait.recv().await;
    replica.stop().await?;
    assert_eq!(world.applied().await?.len(), 20);
    world.settled().await
}

#[tokio::test]
async fn a_changed_configuration_is_brought_to_the_durable() -> Result<()> {
    let world = World::shared().await?;
    world.create_stream().await?;
    let mut config = world.config();
    let subject = |name: &str| format!("{}.{name}", world.name);
    let [a, b, all] = ["a", "b", ">"].map(subject);
    for (wanted, expected) in [
        (vec![a.clone()], vec![a.clone()]),
        (vec![b.clone(), a.clone()], vec![a, b]),
        (vec![all.clone()], vec![all]),
        (vec![], vec![]),
    ] {
        config.filters = wanted;
        config.ack_wait *= 2;
        let replica = world
            .consume_with(&Script::default(), config.clone())
            .await?;
        eventually("the durable to follow", SOON, async || {
            let filters = world.filters().await?;
            anyhow::ensure!(filters == expected, "filters {filters:?}");
            let present = world.durable().await?.config;
            anyhow::ensure!(present.ack_wait == config.ack_wait);
            assert_eq!(present.max_deliver, -1);
            assert_eq!(present.max_ack_pending, 4_096);
            Ok(Some(()))
        })
        .await?;
        replica.stop().await?;
    }
    Ok(())
}

/// What JetStream passes over while the filters are narrow, it never delivers.
#[tokio::test]
async fn an_older_version_does_not_narrow_the_filters_of_a_newer_one() -> Result<()> {
    let world = World::shared().await?;
    world.create_stream().await?;
    let mut older = world.config();
    older.filters = vec![format!("{}.a", world.name)];
    let mut newer = older.clone();
    newer.filters.push(format!("{}.test.>", world.name));
    for config in [&older, &newer, &older] {
        let replica = world
            .consume_with(&Script::default(), config.clone())
            .await?;
        eventually("a waiting request", SOON, async || {
            Ok((world.durable().await?.num_waiting == 1).then_some(()))
        })
        .await?;
        replica.stop().await?;
    }
    assert_eq!(world.filters().await?, newer.filters);
    world.publish(["for the newer"]).await?;
    let replica = world.consume_with(&Script::default(), older).await?;
    eventually("the event", SOON, async || {
        Ok((world.applied().await? == ["for the newer"]).then_some(()))
    })
    .await?;
    replica.stop().await
}
