//! JetStream loses what it had acknowledged, or the stream is gone: the relay notices, and fills it from
//! the table (I11). Durable consumers see the events again, whatever they had acknowledged.

mod rig;

use anyhow::{Context as _, Result, ensure};
use async_nats::jetstream::{self, consumer::pull};
use futures_util::StreamExt as _;
use harness::{Process, eventually};
use mailbox::envelope::{EVENT_ID, POSITION};
use rig::{Rig, SOON, STREAM, Stored, says};

fn payloads(stored: &[Stored]) -> Vec<&str> {
    stored.iter().map(|one| one.payload.as_str()).collect()
}

/// What a durable consumer gets within a second, acknowledged.
async fn consume(rig: &Rig) -> Result<Vec<String>> {
    let jetstream = jetstream::new(rig.nats.client().await?);
    let config = pull::Config {
        durable_name: Some("reader".to_owned()),
        ..pull::Config::default()
    };
    let stream = jetstream.get_stream(STREAM).await?;
    let consumer = stream.get_or_create_consumer("reader", config).await?;
    let mut messages = consumer.fetch().max_messages(100).messages().await?;
    let mut payloads = Vec::new();
    while let Some(message) = messages.next().await {
        let message = message.map_err(|e| anyhow::anyhow!(e))?;
        message.double_ack().await.map_err(|e| anyhow::anyhow!(e))?;
        payloads.push(String::from_utf8_lossy(&message.payload).into_owned());
    }
    Ok(payloads)
}

/// `one` is published and backed up; `two` and `three` are published and consumed behind it.
async fn published(rig: &Rig, relay: &Process) -> Result<()> {
    relay.wait_ready().await?;
    rig.insert("one").await?;
    rig.settled().await?;
    assert_eq!(consume(rig).await?, ["one"]);
    rig.nats.stop().await?;
    rig.nats.back_up("older")?;
    rig.nats.start_again().await?;
    for payload in ["two", "three"] {
        rig.insert(payload).await?;
    }
    rig.settled().await?;
    rig.all_confirmed().await?;
    assert_eq!(consume(rig).await?, ["two", "three"]);
    Ok(())
}

#[tokio::test]
async fn a_stream_that_lost_its_tail_is_healed_and_its_consumers_see_the_events_again() -> Result<()>
{
    let rig = Rig::start().await?;
    let relay = rig.relay("relay")?;
    published(&rig, &relay).await?;
    rig.nats.kill().await?;
    rig.nats.restore("older")?;
    rig.nats.start_again().await?;
    // Nothing is written: the relay looks of its own accord.
    let stored = rig.settled().await?;
    assert_eq!(stored.len(), 3, "{:?}", payloads(&stored));
    says(&relay, "JetStream lost its tail").await?;
    let mut again = consume(&rig).await?;
    again.sort();
    assert_eq!(again, ["three", "two"]);
    // One that has appended nothing itself knows what it has seen.
    relay.restart().await?;
    rig.nats.kill().await?;
    rig.nats.restore("older")?;
    rig.nats.start_again().await?;
    rig.settled().await?;
    rig.nats.kill().await?;
    rig.nats.restore("older")?;
    rig.insert("while NATS was away").await?;
    rig.nats.start_again().await?;
    assert_eq!(rig.settled().await?.len(), 4);
    let mut again = consume(&rig).await?;
    again.sort();
    assert_eq!(again, ["three", "two", "while NATS was away"]);
    Ok(())
}

#[tokio::test]
async fn a_tail_that_was_lost_while_no_relay_ran_is_found_by_comparing() -> Result<()> {
    let rig = Rig::start().await?;
    let relay = rig.relay("relay")?;
    published(&rig, &relay).await?;
    // All of it is confirmed: the WAL does not bring it again.
    assert!(relay.terminate().await?.success());
    rig.nats.kill().await?;
    rig.nats.restore("older")?;
    rig.nats.start_again().await?;
    // New events take the lost sequences before anybody looks.
    rig.insert("and on").await?;
    relay.start_again()?;
    let stored = rig.settled().await?;
    assert_eq!(payloads(&stored)[..2], ["one", "and on"]);
    says(&relay, "lacks 2 rows of the table").await?;
    // The next one finds nothing.
    relay.wait_ready().await?;
    relay.restart().await?;
    says(&relay, "verified: the stream holds all").await?;
    assert_eq!(rig.count().await?, 4);
    Ok(())
}

#[tokio::test]
async fn a_lost_tail_whose_place_others_have_taken_is_noticed() -> Result<()> {
    let rig = Rig::start().await?;
    let relay = rig.relay("relay")?;
    published(&rig, &relay).await?;
    relay.pause()?;
    rig.nats.kill().await?;
    rig.nats.restore("older")?;
    rig.nats.start_again().await?;
    // As another relay would, which knows nothing of the loss.
    let one = rig.stored().await?.pop().context("empty")?;
    let jetstream = jetstream::new(rig.nats.client().await?);
    for id in ["a", "b", "c"] {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert(EVENT_ID, id);
        headers.insert(POSITION, one.position.to_string());
        let sent = jetstream.publish_with_headers(one.subject.clone(), headers, id.into());
        sent.await?.await?;
    }
    relay.resume()?;
    rig.insert("and on").await?;
    eventually("the lost events", SOON, async || {
        Ok((rig.count().await? == 7).then_some(()))
    })
    .await?;
    says(&relay, "and holds another there").await
}

#[tokio::test]
async fn a_consumer_that_is_ahead_of_its_stream_is_set_back_before_anything_is_appended()
-> Result<()> {
    let rig = Rig::start().await?;
    let relay = rig.relay("relay")?;
    relay.wait_ready().await?;
    rig.insert("one").await?;
    rig.settled().await?;
    assert_eq!(consume(&rig).await?, ["one"]);
    assert!(relay.terminate().await?.success());
    // As where a stream loses its tail and its consumers keep their state: in a cluster, or before 2.15.
    let ahead = format!("$JS.API.CONSUMER.RESET.{STREAM}.reader");
    let client = rig.nats.client().await?;
    let answer = client.request(ahead, "{\"seq\": 50}".into()).await?;
    let answer = String::from_utf8_lossy(&answer.payload).into_owned();
    ensure!(!answer.contains("error"), "{answer}");
    relay.start_again()?;
    says(&relay, "a consumer is ahead of its stream").await?;
    rig.insert("two").await?;
    assert_eq!(rig.settled().await?.len(), 2);
    assert_eq!(consume(&rig).await?, ["two"]);
    Ok(())
}

#[tokio::test]
async fn a_deleted_stream_is_made_anew_and_filled_from_the_table() -> Result<()> {
    let rig = Rig::start().await?;
    let relay = rig.relay("relay")?;
    relay.wait_ready().await?;
    rig.insert("one").await?;
    rig.settled().await?;
    let jetstream = jetstream::new(rig.nats.client().await?);
    jetstream.delete_stream(STREAM).await?;
    // Under a running relay, and while it is away.
    rig.insert("two").await?;
    eventually("the stream to be back", SOON, async || {
        rig.count().await.map(Some)
    })
    .await?;
    assert_eq!(rig.settled().await?.len(), 2);
    eventually("the new slot", SOON, async || {
        rig.confirmed().await.map(Some)
    })
    .await?;
    assert!(relay.terminate().await?.success());
    jetstream.delete_stream(STREAM).await?;
    relay.start_again()?;
    eventually("the stream to be back", SOON, async || {
        rig.count().await.map(Some)
    })
    .await?;
    assert_eq!(rig.settled().await?.len(), 2);
    says(&relay, "was deleted behind its slot").await
}

#[tokio::test]
async fn a_deleted_stream_is_refused_where_that_is_the_policy() -> Result<()> {
    let rig = Rig::start().await?;
    let relay = rig.relay_with("relay", &[("CDC_STREAM_DELETED", "refuse")])?;
    relay.wait_ready().await?;
    rig.insert("one").await?;
    rig.settled().await?;
    let jetstream = jetstream::new(rig.nats.client().await?);
    jetstream.delete_stream(STREAM).await?;
    rig.insert("two").await?;
    says(&relay, "CDC_STREAM_DELETED=refuse").await?;
    assert!(rig.count().await.is_err(), "the stream is back");
    Ok(())
}

#[tokio::test]
async fn what_the_streams_limits_have_removed_is_not_published_again() -> Result<()> {
    let rig = Rig::start().await?;
    let relay = rig.relay("relay")?;
    relay.wait_ready().await?;
    insert_at(&rig, "removed", -3600).await?;
    insert_at(&rig, "kept", -3600).await?;
    rig.settled().await?;
    let jetstream = jetstream::new(rig.nats.client().await?);
    let stream = jetstream.get_stream(STREAM).await?;
    stream.purge().keep(1).await?;
    // Away, so that the slot is gone and only the table knows this one; it is newer than all that the
    // stream can have removed, as far as clocks can be trusted.
    relay.kill().await?;
    rig.drop_slot().await?;
    insert_at(&rig, "missing", 120).await?;
    relay.start_again()?;
    eventually("the missing one", SOON, async || {
        Ok((rig.count().await? >= 2).then_some(()))
    })
    .await?;
    relay.wait_ready().await?;
    let stored = rig.stored().await?;
    assert_eq!(payloads(&stored), ["kept", "missing"]);
    Ok(())
}

/// A row with an id of so many seconds from now.
async fn insert_at(rig: &Rig, payload: &str, seconds: i64) -> Result<()> {
    let now = std::time::UNIX_EPOCH.elapsed()?.as_secs();
    let at = now.saturating_add_signed(seconds);
    let id = uuid::Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, at, 0));
    let statement =
        "INSERT INTO outbox (id, payload) VALUES ($1::text::uuid, convert_to($2, 'UTF8'))";
    rig.sql
        .execute(statement, &[&id.to_string(), &payload])
        .await?;
    Ok(())
}

#[tokio::test]
async fn rows_that_do_not_tell_their_time_are_not_guessed_about() -> Result<()> {
    let rig = Rig::start().await?;
    let relay = rig.relay("relay")?;
    relay.wait_ready().await?;
    for payload in ["removed", "kept"] {
        rig.insert(payload).await?;
    }
    rig.settled().await?;
    let jetstream = jetstream::new(rig.nats.client().await?);
    jetstream.get_stream(STREAM).await?.purge().keep(1).await?;
    relay.kill().await?;
    rig.drop_slot().await?;
    relay.start_again()?;
    says(&relay, "cannot be told").await?;
    assert_eq!(rig.count().await?, 1);
    Ok(())
}
