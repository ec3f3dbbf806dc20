//! I5 under faults: after any crash, reconnect, failed append or second relay, the stream holds each
//! event of the outbox once, in commit order. The duplicate window is at its minimum throughout.

mod rig;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use anyhow::Result;
use futures_util::StreamExt as _;
use harness::eventually;
use rig::{DATABASE, Rig, SOON, load};
use tokio::{task::JoinSet, time::timeout};

/// Writers that go on until they are stopped.
struct Load {
    stop: Arc<AtomicBool>,
    writers: JoinSet<u64>,
}

impl Load {
    fn start(rig: &Rig) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut writers = JoinSet::new();
        for writer in 0..3 {
            writers.spawn(load(rig.postgres.url(DATABASE), writer, stop.clone()));
        }
        Self { stop, writers }
    }

    async fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.writers.join_all().await.into_iter().sum()
    }
}

/// Waits until the stream has grown by so many: the fault then strikes in mid-flow.
async fn grown(rig: &Rig, by: u64) -> Result<()> {
    let before = rig.count().await.unwrap_or(0);
    eventually("the stream to grow", SOON, async || {
        Ok((rig.count().await? >= before + by).then_some(()))
    })
    .await
}

#[tokio::test]
async fn a_relay_killed_again_and_again_repeats_nothing_and_loses_nothing() -> Result<()> {
    let rig = Rig::start().await?;
    let relay = rig.relay("relay")?;
    relay.wait_ready().await?;
    let load = Load::start(&rig);
    for round in 0..8 {
        grown(&rig, 300 + 500 * (round % 3)).await?;
        relay.kill().await?;
        relay.start_again()?;
    }
    let committed = load.stop().await;
    let stored = rig.settled().await?;
    assert_eq!(stored.len() as u64, committed);
    Ok(())
}

#[tokio::test]
async fn transactions_that_may_appear_apart_are_stored_once_and_in_order_all_the_same() -> Result<()>
{
    let rig = Rig::start().await?;
    let mut sent = rig.nats.client().await?.subscribe("events.>").await?;
    let relay = rig.relay_with("relay", &[("CDC_TRANSACTIONS", "apart")])?;
    relay.wait_ready().await?;
    let load = Load::start(&rig);
    for round in 0..4 {
        grown(&rig, 300 + 500 * (round % 3)).await?;
        relay.kill().await?;
        relay.start_again()?;
    }
    let committed = load.stop().await;
    let stored = rig.settled().await?;
    assert_eq!(stored.len() as u64, committed);
    // As they were sent: the second row of a transaction, in no batch that appears at once.
    let apart = async {
        loop {
            let message = sent.next().await.expect("NATS is there");
            let headers = message.headers.unwrap_or_default();
            if message.payload.ends_with(b"-2") && headers.get("Nats-Batch-Id").is_none() {
                break;
            }
        }
    };
    timeout(SOON, apart).await.expect("transactions go apart");
    Ok(())
}

#[tokio::test]
async fn postgres_and_nats_killed_under_load_lose_nothing_and_repeat_nothing() -> Result<()> {
    let rig = Rig::start().await?;
    let relay = rig.relay("relay")?;
    relay.wait_ready().await?;
    let load = Load::start(&rig);
    for _ in 0..2 {
        grown(&rig, 500).await?;
        rig.nats.kill().await?;
        rig.nats.start_again().await?;
        grown(&rig, 500).await?;
        rig.postgres.kill().await?;
        rig.postgres.start_again().await?;
    }
    grown(&rig, 500).await?;
    let committed = load.stop().await;
    let rig = Rig {
        sql: rig.postgres.connect(DATABASE).await?,
        ..rig
    };
    let stored = rig.settled().await?;
    // A commit whose answer was lost with the connection may count for one more transaction.
    assert!(stored.len() as u64 >= committed);
    Ok(())
}

#[tokio::test]
async fn a_standby_takes_over_from_a_killed_relay() -> Result<()> {
    let rig = Rig::start().await?;
    let first = rig.relay("first")?;
    first.wait_ready().await?;
    let second = rig.relay("second")?;
    second.wait_ready().await?;
    assert_eq!(second.metric("cdc_relay_streaming").await?, Some(0.0));
    let load = Load::start(&rig);
    grown(&rig, 500).await?;
    first.kill().await?;
    eventually("the standby to stream", SOON, async || {
        Ok((second.metric("cdc_relay_streaming").await? == Some(1.0)).then_some(()))
    })
    .await?;
    grown(&rig, 500).await?;
    load.stop().await;
    rig.settled().await?;
    Ok(())
}

#[tokio::test]
async fn a_relay_that_wakes_up_after_its_successor_took_over_stores_nothing() -> Result<()> {
    let rig = Rig::start().await?;
    let first = rig.relay("first")?;
    first.wait_ready().await?;
    let second = rig.relay("second")?;
    second.wait_ready().await?;
    let load = Load::start(&rig);
    for _ in 0..2 {
        let (active, standby) = match first.metric("cdc_relay_streaming").await? {
            Some(1.0) => (&first, &second),
            _ => (&second, &first),
        };
        grown(&rig, 500).await?;
        active.pause()?;
        eventually("the standby to stream", SOON, async || {
            Ok((standby.metric("cdc_relay_streaming").await? == Some(1.0)).then_some(()))
        })
        .await?;
        grown(&rig, 500).await?;
        active.resume()?;
        eventually("the other to stand by", SOON, async || {
            Ok((active.metric("cdc_relay_streaming").await? == Some(0.0)).then_some(()))
        })
        .await?;
    }
    load.stop().await;
    rig.settled().await?;
    Ok(())
}

#[tokio::test]
async fn a_relay_killed_in_its_first_copy_begins_it_again() -> Result<()> {
    let rig = Rig::start().await?;
    let before = "INSERT INTO outbox (payload) SELECT convert_to('before-' || n, 'UTF8') \
                  FROM generate_series(1, 30000) n";
    rig.sql.batch_execute(before).await?;
    let relay = rig.relay("relay")?;
    eventually("some of the rows", SOON, async || {
        Ok((rig.count().await.unwrap_or(0) > 1000).then_some(()))
    })
    .await?;
    relay.kill().await?;
    assert!(
        rig.count().await? < 30000,
        "too late: the copy was complete"
    );
    rig.insert("between").await?;
    relay.start_again()?;
    rig.settled().await?;
    Ok(())
}

#[tokio::test]
async fn two_relays_started_at_once_on_a_full_outbox_copy_it_once() -> Result<()> {
    let rig = Rig::start().await?;
    let before = "INSERT INTO outbox (payload) SELECT convert_to('before-' || n, 'UTF8') \
                  FROM generate_series(1, 20000) n";
    rig.sql.batch_execute(before).await?;
    let (first, second) = (rig.relay("first")?, rig.relay("second")?);
    let load = Load::start(&rig);
    tokio::try_join!(first.wait_ready(), second.wait_ready())?;
    grown(&rig, 500).await?;
    load.stop().await;
    rig.settled().await?;
    Ok(())
}
