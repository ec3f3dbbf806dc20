//! Dead letters that are slow to be stored: the rest of the batch is in hand meanwhile.

use std::time::{Duration, Instant};

use anyhow::Result;
use async_nats::HeaderMap;
use async_nats::jetstream::stream;
use futures_util::StreamExt;
use harness::eventually;
use mailbox::dead_letter;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::world::{ACK_WAIT, SOON, Script, World};

/// Takes the dead letters in the place of their stream, and acknowledges each after `pause`, or never.
/// Returns the sequences of their originals as they come.
async fn slow_stream(world: &World, pause: Option<Duration>) -> Result<UnboundedReceiver<String>> {
    let elsewhere = stream::Config {
        name: dead_letter::STREAM.to_owned(),
        subjects: vec!["elsewhere".to_owned()],
        ..stream::Config::default()
    };
    world.jetstream.create_stream(elsewhere).await?;
    let client = world.servers.nats.client().await?;
    let mut letters = client.subscribe("dead.>").await?;
    client.flush().await?;
    let (came, sequences) = unbounded_channel();
    tokio::spawn(async move {
        while let Some(letter) = letters.next().await {
            let headers = letter.headers.unwrap_or_default();
            let sequence = headers.get(dead_letter::ORIGIN_SEQUENCE);
            let _ = came.send(sequence.map_or("", |s| s.as_str()).to_owned());
            if let (Some(pause), Some(reply)) = (pause, letter.reply) {
                tokio::time::sleep(pause).await;
                let stored = r#"{"stream": "DEAD_LETTERS", "seq": 1}"#;
                client.publish(reply, stored.into()).await.unwrap();
            }
        }
    });
    Ok(sequences)
}

async fn publish_malformed(world: &World, count: usize) -> Result<()> {
    for _ in 0..count {
        let sent = world.publish_raw(HeaderMap::new(), "malformed".into());
        sent.await?.await?;
    }
    Ok(())
}

#[tokio::test]
async fn leases_are_renewed_while_dead_letters_are_stored() -> Result<()> {
    const COUNT: usize = 12;
    let world = World::alone().await?;
    world.create_stream().await?;
    // All together they take longer than ack_wait.
    let mut letters = slow_stream(&world, Some(ACK_WAIT / 8)).await?;
    publish_malformed(&world, COUNT).await?;
    let first = world.consume(&Script::default()).await?;
    letters.recv().await;
    // It would be delivered what the first one's leases have run out on.
    let second = world.consume(&Script::default()).await?;
    world.settled().await?;
    let delivered = world.durable().await?.delivered.consumer_sequence;
    assert_eq!(delivered, COUNT as u64, "delivered again while in hand");
    first.stop().await?;
    second.stop().await
}

#[tokio::test]
async fn a_stop_waits_for_one_dead_letter_at_most_and_not_for_long() -> Result<()> {
    let world = World::alone().await?;
    world.create_stream().await?;
    let mut letters = slow_stream(&world, None).await?;
    publish_malformed(&world, 10).await?;
    let replica = world.consume(&Script::default()).await?;
    letters.recv().await;
    let told = Instant::now();
    replica.stop().await?;
    assert!(told.elapsed() < ACK_WAIT, "{:?}", told.elapsed());
    Ok(())
}

#[tokio::test]
async fn good_events_do_not_wait_for_the_dead_letters_of_their_batch() -> Result<()> {
    let world = World::alone().await?;
    world.create_stream().await?;
    let letters = slow_stream(&world, None).await?;
    publish_malformed(&world, 3).await?;
    world.publish(["fine"]).await?;
    let replica = world.consume(&Script::default()).await?;
    eventually("the good one", SOON, async || {
        Ok((world.applied().await? == ["fine"]).then_some(()))
    })
    .await?;
    // The first one may be under way by now; the next one comes when that is given up.
    assert!(
        letters.len() <= 1,
        "{} dead letters came first",
        letters.len()
    );
    replica.stop().await
}
