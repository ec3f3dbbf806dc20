//! Each way in which JetStream refuses an append, provoked on a real server: nothing of it is stored, and
//! after reading the truth again the relay goes on exactly where it was (I5).

// What a server said is worth knowing when it says something else.
#![allow(clippy::print_stdout)]

mod rig;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use async_nats::{
    Client, HeaderMap,
    header::{
        NATS_BATCH_COMMIT, NATS_BATCH_ID, NATS_BATCH_SEQUENCE, NATS_EXPECTED_LAST_SEQUENCE,
        NATS_MESSAGE_ID,
    },
    jetstream::{self, stream},
};
use cdc_relay::{error::Error, record::Record};
use harness::{Guard, Nats, NatsCluster, eventually};
use rig::{
    Rig, SOON, STREAM,
    appends::{appender, events, last_sequence},
};

/// The server abandons a batch that nobody goes on with after 10 s.
const ABANDONED_AFTER: Duration = Duration::from_secs(11);
const ABANDONED: Duration = Duration::from_secs(30);

/// As many batches as a stream has under way at once.
const BATCHES_MAX: usize = 50;

/// A stream in which ids are remembered for longer than the test takes.
async fn stream(client: &Client, replicas: usize) -> Result<()> {
    let config = stream::Config {
        name: STREAM.to_owned(),
        subjects: vec!["events.>".to_owned()],
        num_replicas: replicas,
        duplicate_window: Duration::from_secs(120),
        allow_atomic_publish: true,
        ..Default::default()
    };
    jetstream::new(client.clone()).create_stream(config).await?;
    Ok(())
}

/// Sends one message of a batch by hand, and returns the answer, if one is asked for.
async fn send(client: &Client, headers: &[(&str, &str)], is_last: bool) -> Result<Option<String>> {
    let mut all = HeaderMap::new();
    for (name, value) in headers {
        all.insert(*name, *value);
    }
    let subject = "events.Made";
    if !is_last {
        client
            .publish_with_headers(subject, all, "x".into())
            .await?;
        return Ok(None);
    }
    let reply = client
        .request_with_headers(subject, all, "x".into())
        .await?;
    Ok(Some(String::from_utf8_lossy(&reply.payload).into_owned()))
}

/// What the server says to an append that states a sequence which is not the last, alone and in a batch.
async fn stale(client: &Client) -> Result<()> {
    appender(client)
        .await?
        .append(events("first", 100, 3)?)
        .await?;
    for count in [1, 5] {
        let (mut quick, mut late) = (appender(client).await?, appender(client).await?);
        let before = last_sequence(client).await?;
        quick.append(events("quick", 200 + count, 2)?).await?;
        let refused = late
            .append(events("late", 300 + count, u32::try_from(count)?)?)
            .await;
        says(refused, "10071")?;
        assert_eq!(last_sequence(client).await?, before + 2);
        // The truth, and on.
        appender(client)
            .await?
            .append(events("late", 300 + count, u32::try_from(count)?)?)
            .await?;
        assert_eq!(last_sequence(client).await?, before + 2 + count);
    }
    Ok(())
}

fn says(refused: Result<(), Error>, code: &str) -> Result<()> {
    let error = refused.err().context("it was taken")?.to_string();
    ensure!(error.contains(code), "not {code}: {error}");
    Ok(())
}

#[tokio::test]
async fn a_sequence_that_is_not_the_last_is_refused_by_one_server() -> Result<()> {
    let nats = Nats::start().await?;
    let client = nats.client().await?;
    stream(&client, 1).await?;
    stale(&client).await
}

#[tokio::test]
async fn a_sequence_that_is_not_the_last_is_refused_by_a_cluster() -> Result<()> {
    let guard = Guard::start()?;
    let cluster = NatsCluster::start(&guard, 3).await?;
    let client = cluster.client().await?;
    stream(&client, 3).await?;
    stale(&client).await?;
    same_id_at_once(&client).await
}

/// Plain publishes of one id at the same moment, from one who does not wait (10158 while the first is on its
/// way, 10071 behind it, or a duplicate's acknowledgement): whatever is said, the relay is exact after it.
async fn same_id_at_once(client: &Client) -> Result<()> {
    let jetstream = jetstream::new(client.clone());
    let end = async || {
        let stream = jetstream.get_stream(STREAM).await?;
        anyhow::Ok(stream.cached_info().state.last_sequence)
    };
    let before = end().await?;
    let sequence = before.to_string();
    let headers = [
        (NATS_MESSAGE_ID, "same"),
        (NATS_EXPECTED_LAST_SEQUENCE, sequence.as_str()),
    ];
    let headers: Vec<_> = headers
        .iter()
        .map(|(name, value)| (name.as_ref(), *value))
        .collect();
    let sent = (0..40).map(|_| send(client, &headers, true));
    let mut answers = std::collections::BTreeMap::new();
    for answer in futures_util::future::join_all(sent).await {
        let answer = answer?.unwrap_or_default();
        let code = ["10158", "10164", "10071", "duplicate"]
            .into_iter()
            .find(|code| answer.contains(code));
        *answers.entry(code.unwrap_or("stored")).or_insert(0) += 1;
    }
    println!("one id, 40 times at once: {answers:?}");
    assert_eq!(answers.get("stored"), Some(&1));
    assert_eq!(end().await?, before + 1);
    Ok(())
}

/// An append in which the last event has the id of `twin`: refused, and on the second try named.
async fn named(client: &Client, mut records: Vec<Record>, twin: Record) -> Result<()> {
    let (before, count) = (last_sequence(client).await?, records.len());
    let (id, at) = (twin.id().to_owned(), records.len() - 1);
    records[at] = twin;
    let again = records.clone();
    let mut late = appender(client).await?;
    let error = late.append(records).await.err().context("it was taken")?;
    assert_eq!(last_sequence(client).await?, before, "{error}");
    if count > 1 {
        ensure!(matches!(error, Error::Unclear(_)), "{error}");
        ensure!(error.to_string().contains("10201"), "{error}");
    }
    let mut careful = appender(client).await?;
    careful.be_careful();
    let error = careful.append(again).await.err().context("it was taken")?;
    ensure!(matches!(error, Error::Definite(_)), "{error}");
    ensure!(
        error.to_string().contains(&format!("event {id} ")),
        "{error}"
    );
    // What stood before it is there.
    assert_eq!(last_sequence(client).await?, before + count as u64 - 1);
    Ok(())
}

#[tokio::test]
async fn an_id_that_stands_in_the_stream_or_twice_in_a_batch_is_found_out_and_named() -> Result<()>
{
    let nats = Nats::start().await?;
    let client = nats.client().await?;
    stream(&client, 1).await?;
    let first = || events("writer", 100, 3);
    appender(&client).await?.append(first()?).await?;
    for (lsn, count) in [(200, 1), (300, 4)] {
        named(&client, events("later", lsn, count)?, first()?.remove(1)).await?;
    }
    let twice = events("twice", 400, 4)?;
    named(&client, twice, events("twice", 400, 1)?.remove(0)).await
}

#[tokio::test]
async fn a_relay_names_the_row_whose_id_is_another_rows_and_goes_on_when_it_may() -> Result<()> {
    let rig = Rig::without_outbox(&[]).await?;
    let table = "CREATE TABLE outbox (id text NOT NULL, aggregatetype text DEFAULT 'a', aggregateid text \
                 DEFAULT 'b', type text DEFAULT 'c', payload text)";
    rig.sql.batch_execute(table).await?;
    let window = [("CDC_STREAM_DUPLICATE_WINDOW_SECONDS", "8")];
    let relay = rig.relay_with("relay", &window)?;
    relay.wait_ready().await?;
    let rows = "INSERT INTO outbox (id, payload) VALUES ('one', '1'), ('twin', '2'), ('two', '3'), \
                ('twin', '4'), ('last', '5')";
    rig.sql.batch_execute(rows).await?;
    eventually("the row to be named", SOON, async || {
        let text = relay.log().text();
        ensure!(
            text.contains("event twin cannot be published"),
            "{}",
            relay.log().tail()
        );
        Ok(Some(()))
    })
    .await?;
    assert_eq!(rig.count().await?, 3);
    // The server forgets the id after a while: both rows are there, once each.
    eventually("all rows", SOON, async || {
        Ok((rig.count().await? == 5).then_some(()))
    })
    .await?;
    let payloads: Vec<_> = rig.stored().await?.into_iter().map(|m| m.payload).collect();
    assert_eq!(payloads, ["1", "2", "3", "4", "5"]);
    Ok(())
}

#[tokio::test]
async fn a_batch_broken_off_stores_nothing_and_is_abandoned() -> Result<()> {
    let nats = Nats::start().await?;
    let client = nats.client().await?;
    stream(&client, 1).await?;
    // As of a relay that was stopped in the middle of an append.
    let id: &str = NATS_BATCH_ID.as_ref();
    let (sequence, expected): (&str, &str) = (
        NATS_BATCH_SEQUENCE.as_ref(),
        NATS_EXPECTED_LAST_SEQUENCE.as_ref(),
    );
    send(
        &client,
        &[(id, "half"), (sequence, "1"), (expected, "0")],
        false,
    )
    .await?;
    send(&client, &[(id, "half"), (sequence, "2")], false).await?;
    // Its successor appends meanwhile.
    appender(&client)
        .await?
        .append(events("successor", 100, 5)?)
        .await?;
    // It wakes up and goes on, within the 10 s: refused by the sequence that it states.
    let commit: &str = NATS_BATCH_COMMIT.as_ref();
    let last = [(id, "half"), (sequence, "3"), (commit, "1")];
    let answer = send(&client, &last, true).await?.unwrap_or_default();
    assert!(answer.contains("10071"), "{answer}");
    // And after them: the server has forgotten the beginning.
    send(
        &client,
        &[(id, "late"), (sequence, "1"), (expected, "5")],
        false,
    )
    .await?;
    // There is no way to look whether it has, but to try; and a try that comes too early is one more.
    tokio::time::sleep(ABANDONED_AFTER).await;
    let last = [(id, "late"), (sequence, "2"), (commit, "1")];
    let answer = send(&client, &last, true).await?.unwrap_or_default();
    assert!(answer.contains("10176"), "{answer}");
    assert_eq!(last_sequence(&client).await?, 5);
    Ok(())
}

#[tokio::test]
async fn with_too_many_batches_under_way_an_append_is_refused_and_goes_through_later() -> Result<()>
{
    let nats = Nats::start().await?;
    let client = nats.client().await?;
    stream(&client, 1).await?;
    for at in 0..BATCHES_MAX {
        let batch = format!("open-{at}");
        let headers = [
            (NATS_BATCH_ID.as_ref(), batch.as_str()),
            (NATS_BATCH_SEQUENCE.as_ref(), "1"),
        ];
        send(&client, &headers, false).await?;
    }
    client.flush().await?;
    let refused = appender(&client)
        .await?
        .append(events("writer", 100, 5)?)
        .await;
    println!("{refused:?}");
    assert!(matches!(refused, Err(Error::Transient(_))));
    assert_eq!(last_sequence(&client).await?, 0);
    // A single message needs no batch.
    appender(&client)
        .await?
        .append(events("writer", 100, 1)?)
        .await?;
    eventually("the batches to be abandoned", ABANDONED, async || {
        appender(&client)
            .await?
            .append(events("writer", 200, 5)?)
            .await?;
        Ok(Some(()))
    })
    .await?;
    assert_eq!(last_sequence(&client).await?, 6);
    Ok(())
}

#[tokio::test]
async fn a_server_that_drops_what_it_cannot_queue_stores_nothing_of_the_batch() -> Result<()> {
    let guard = Guard::start()?;
    let nats = Nats::start_with(&guard, "jetstream: { max_buffered_msgs: 20 }").await?;
    let client = nats.client().await?;
    stream(&client, 1).await?;
    let mut refusals = 0;
    for round in 0..30 {
        let before = last_sequence(&client).await?;
        let lsn = 100 + round;
        match appender(&client)
            .await?
            .append(events("writer", lsn, 1000)?)
            .await
        {
            Ok(()) => assert_eq!(last_sequence(&client).await?, before + 1000),
            Err(Error::Transient(why)) => {
                if refusals == 0 {
                    println!("{why}");
                }
                refusals += 1;
                assert_eq!(last_sequence(&client).await?, before, "{why}");
            }
            Err(error) => return Err(error.into()),
        }
    }
    println!("{refusals} of 30 batches were refused");
    assert!(refusals > 0, "nothing was dropped");
    appender(&client)
        .await?
        .append(events("writer", 1, 1)?)
        .await?;
    Ok(())
}

#[tokio::test]
async fn a_server_without_atomic_batches_refuses_one() -> Result<()> {
    let nats = Nats::start().await?;
    let client = nats.client().await?;
    stream(&client, 1).await?;
    let mut batches = appender(&client).await?;
    // Switched off behind the relay's back: it reads that with the truth, and goes on one by one.
    let jetstream = jetstream::new(client.clone());
    let mut config = jetstream
        .get_stream(STREAM)
        .await?
        .cached_info()
        .config
        .clone();
    config.allow_atomic_publish = false;
    jetstream.update_stream(config).await?;
    says(batches.append(events("writer", 100, 5)?).await, "10174")?;
    assert_eq!(last_sequence(&client).await?, 0);
    appender(&client)
        .await?
        .append(events("writer", 100, 5)?)
        .await?;
    assert_eq!(last_sequence(&client).await?, 5);
    Ok(())
}
