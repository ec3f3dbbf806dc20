//! The fence by itself (I5): an append states what it must follow, and is refused whole when somebody
//! else was quicker, whatever its size.

mod rig;

use std::future::{pending, ready};

use anyhow::{Context as _, Result};
use async_nats::Client;
use cdc_relay::{
    publish::{Appender, Limits, Next},
    stream::{Missing, read_truth},
    window::Batch,
};
use harness::Nats;
use rig::appends::{appender, config, events, last_sequence};

/// A stream that takes no atomic batches, as before nats-server 2.12.
async fn without_batches(client: &Client) -> Result<()> {
    let jetstream = async_nats::jetstream::new(client.clone());
    let config = async_nats::jetstream::stream::Config {
        name: rig::STREAM.to_owned(),
        subjects: config().subjects,
        ..Default::default()
    };
    jetstream.create_stream(config).await?;
    Ok(())
}

#[tokio::test]
async fn an_append_behind_somebody_elses_is_refused_whole() -> Result<()> {
    let nats = Nats::start().await?;
    let client = nats.client().await?;
    for (round, count) in [1, 2, 1000].into_iter().enumerate() {
        let before = last_sequence(&client).await?;
        let (mut quick, mut late) = (appender(&client).await?, appender(&client).await?);
        let lsn = 100 * (round as u64 + 1);
        quick.append(events("quick", lsn, count)?).await?;
        let refused = late.append(events("late", lsn, count)?).await;
        assert!(refused.is_err(), "{count} at once were taken");
        assert_eq!(last_sequence(&client).await?, before + u64::from(count));
    }
    Ok(())
}

#[tokio::test]
async fn nothing_of_an_append_is_stored_after_one_that_failed() -> Result<()> {
    let nats = Nats::start().await?;
    let client = nats.client().await?;
    let mut late = appender(&client).await?;
    appender(&client)
        .await?
        .append(events("quick", 100, 3)?)
        .await?;
    for count in [5, 1, 5] {
        let refused = late.append(events("late", 200, count)?).await;
        assert!(refused.is_err());
    }
    assert_eq!(last_sequence(&client).await?, 3);
    let mut again = appender(&client).await?;
    again.append(events("late", 200, 5)?).await?;
    assert_eq!(last_sequence(&client).await?, 8);
    Ok(())
}

/// A batch whose transactions have one event each: it may go apart, in a fast batch.
fn singles(writer: &str, lsn: u64, count: u32) -> Result<Batch> {
    Ok(Batch {
        records: events(writer, lsn, count)?,
        end: Some(lsn.into()),
        is_of_singles: true,
        offenders: Vec::new(),
    })
}

#[tokio::test]
async fn a_fast_batch_behind_somebody_elses_append_stores_nothing() -> Result<()> {
    let nats = Nats::start().await?;
    let client = nats.client().await?;
    let (mut quick, mut late) = (appender(&client).await?, appender(&client).await?);
    // Ways are tried in turn, for each size by itself; the first is the fast batch.
    late.append_batch(singles("late", 100, 300)?, pending())
        .await?;
    assert!(
        quick
            .append_batch(singles("quick", 200, 300)?, pending())
            .await
            .is_err()
    );
    assert_eq!(last_sequence(&client).await?, 300);
    let mut quick = appender(&client).await?;
    for lsn in [300, 400, 500] {
        quick
            .append_batch(singles("quick", lsn, 300)?, pending())
            .await?;
    }
    assert!(
        late.append_batch(singles("late", 600, 40)?, pending())
            .await
            .is_err()
    );
    assert_eq!(last_sequence(&client).await?, 1200);
    Ok(())
}

/// A transaction of several events, which go together.
fn whole(writer: &str, lsn: u64, count: u32) -> Result<Batch> {
    Ok(Batch {
        is_of_singles: false,
        ..singles(writer, lsn, count)?
    })
}

/// Appends a batch, while the next is sent ahead.
async fn send_ahead(appender: &mut Appender, batch: Batch, next: Batch) -> Result<Next> {
    let sent = appender.append_batch(batch, ready(next)).await?;
    sent.context("nothing was sent ahead")
}

#[tokio::test]
async fn a_batch_that_was_sent_ahead_is_stored_by_its_last_message_alone() -> Result<()> {
    let nats = Nats::start().await?;
    let client = nats.client().await?;
    let mut only = appender(&client).await?;
    let (one, two) = (whole("only", 100, 300)?, whole("only", 200, 400)?);
    let Next::Sent(sent) = send_ahead(&mut only, one, two).await? else {
        panic!("nothing was sent ahead");
    };
    client.flush().await?;
    assert_eq!(last_sequence(&client).await?, 300);
    assert!(only.append_sent(*sent, pending()).await?.is_none());
    assert_eq!(last_sequence(&client).await?, 700);
    // Batches that may go apart do so, which stores them at once: these wait.
    let (one, two) = (whole("only", 300, 5)?, singles("only", 400, 5)?);
    let next = send_ahead(&mut only, one, two).await?;
    assert!(matches!(next, Next::Taken(_)), "{next:?}");
    assert_eq!(last_sequence(&client).await?, 705);
    Ok(())
}

#[tokio::test]
async fn what_was_sent_ahead_is_refused_whole_behind_somebody_elses_append() -> Result<()> {
    let nats = Nats::start().await?;
    let client = nats.client().await?;
    let mut late = appender(&client).await?;
    let (one, two) = (whole("late", 100, 300)?, whole("late", 200, 300)?);
    let Next::Sent(sent) = send_ahead(&mut late, one, two).await? else {
        panic!("nothing was sent ahead");
    };
    let mut quick = appender(&client).await?;
    quick.append(events("quick", 300, 1)?).await?;
    assert!(late.append_sent(*sent, pending()).await.is_err());
    assert_eq!(last_sequence(&client).await?, 301);
    Ok(())
}

#[tokio::test]
async fn an_event_that_its_stream_cannot_take_is_found_before_it_is_sent() -> Result<()> {
    let nats = Nats::start().await?;
    let client = nats.client().await?;
    let limits = Limits::of(
        &client,
        &read_truth(&client, &config(), Missing::Create).await?,
    );
    let mut event = events("writer", 100, 1)?.remove(0);
    assert_eq!(limits.check(&event), Ok(()));
    event.subject = "elsewhere.Made".to_owned();
    let why = limits.check(&event).unwrap_err();
    assert!(why.contains("which stream EVENTS does not take"), "{why}");
    Ok(())
}

#[tokio::test]
async fn where_no_atomic_batches_are_taken_events_go_one_by_one_behind_the_same_fence() -> Result<()>
{
    let nats = Nats::start().await?;
    let client = nats.client().await?;
    without_batches(&client).await?;
    let mut late = appender(&client).await?;
    late.append(events("late", 100, 20)?).await?;
    assert_eq!(last_sequence(&client).await?, 20);
    appender(&client)
        .await?
        .append(events("quick", 200, 1)?)
        .await?;
    assert!(late.append(events("late", 300, 20)?).await.is_err());
    assert_eq!(
        last_sequence(&client).await?,
        21,
        "an event passed the fence"
    );
    Ok(())
}

#[tokio::test]
async fn a_relay_serves_a_stream_without_atomic_batches() -> Result<()> {
    let rig = rig::Rig::start().await?;
    without_batches(&rig.nats.client().await?).await?;
    let relay = rig.relay("relay")?;
    relay.wait_ready().await?;
    rig.insert("one").await?;
    let rows = "INSERT INTO outbox (payload) SELECT 'x' FROM generate_series(1, 1500)";
    rig.sql.batch_execute(rows).await?;
    assert_eq!(rig.settled().await?.len(), 1501);
    let path = relay
        .metric(r#"cdc_relay_append_path{path="one-by-one"}"#)
        .await?;
    assert_eq!(path, Some(1.0));
    assert!(relay.log().text().contains("--allow-batch"));
    Ok(())
}
