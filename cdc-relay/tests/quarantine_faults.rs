//! I5 with rows that cannot be published, under faults: each event stands once in the stream, those of
//! an aggregate in their order, whenever a relay is killed, paused or replaced.

mod rig;

use std::{collections::HashMap, time::Duration};

use anyhow::{Context as _, Result, ensure};
use async_nats::{Client, HeaderMap, jetstream};
use cdc_relay::quarantine::{self};
use harness::eventually;
use mailbox::envelope::{
    AGGREGATE_ID, AGGREGATE_TYPE, EVENT_ID, EVENT_TYPE, POSITION, QUARANTINE, RESUME,
};
use rand::RngExt as _;
use rig::{
    DATABASE, Rig, SOON, STREAM, Stored,
    quarantine::{release_all, store},
};
use tokio::{
    task::JoinHandle,
    time::{interval, sleep},
};
use tokio_util::sync::CancellationToken;

const AGGREGATES: usize = 7;

/// Writes rows of some aggregates, numbered within each; every ninth cannot be published.
fn writer(url: String, stop: CancellationToken) -> JoinHandle<Result<()>> {
    tokio::spawn(async move {
        let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await?;
        tokio::spawn(connection);
        let mut pace = interval(Duration::from_millis(60));
        let mut number = 0;
        while !stop.is_cancelled() {
            pace.tick().await;
            let mut rows = String::from("BEGIN;");
            for _ in 0..rand::rng().random_range(1..4) {
                number += 1;
                let aggregate = number % AGGREGATES;
                let event = if number % 9 == 0 {
                    "no subject"
                } else {
                    "Made"
                };
                rows.push_str(&format!(
                    "INSERT INTO outbox (aggregateid, type, payload) VALUES ('{aggregate}', '{event}', '{number}');"
                ));
            }
            client.batch_execute(&format!("{rows} COMMIT")).await?;
        }
        Ok(())
    })
}

/// Releases until nothing is open, and compares the stream with the table.
async fn settled(rig: &Rig, client: &Client) -> Result<()> {
    let rows = rig.sql.query("SELECT id::text FROM outbox", &[]).await?;
    let expected: usize = rows.len();
    eventually("everything to be published", SOON * 3, async || {
        let open = release_all(client).await?;
        let count = usize::try_from(rig.count().await?)?;
        ensure!(
            open == 0 && count >= expected,
            "{open} open; {count} of {expected}"
        );
        Ok(Some(()))
    })
    .await?;
    let stored = rig.stored().await?;
    let mut ids: Vec<_> = stored.iter().map(|message| message.id.as_str()).collect();
    ids.sort_unstable();
    let all = ids.len();
    ids.dedup();
    ensure!(all == ids.len(), "{} events stand twice", all - ids.len());
    ensure!(all == expected, "{all} of {expected}");
    let mut last: HashMap<String, u64> = HashMap::new();
    for message in &stored {
        let aggregate = message.headers.get(AGGREGATE_ID).context("no aggregate")?;
        let number: u64 = message.payload.parse()?;
        let before = last.insert(aggregate.to_string(), number).unwrap_or(0);
        ensure!(
            before < number,
            "{number} stands behind {before}: {}",
            tell(&stored, aggregate.as_str())
        );
    }
    Ok(())
}

/// What the stream holds of an aggregate, and what of it came from quarantine.
fn tell(stored: &[Stored], aggregate: &str) -> String {
    let of = |message: &&Stored| {
        let header = message.headers.get(AGGREGATE_ID);
        header.is_some_and(|header| header.as_str() == aggregate)
    };
    let tell = |message: &Stored| {
        let header = |name: &str| message.headers.get(name).map_or("", |value| value.as_str());
        let (released, resume) = (header(QUARANTINE), header(RESUME));
        format!(
            "\n  {} at {} {released} {resume}",
            message.payload, message.position
        )
    };
    stored.iter().filter(of).map(tell).collect()
}

#[tokio::test]
async fn a_relay_killed_while_rows_go_in_and_out_of_quarantine_loses_and_repeats_nothing()
-> Result<()> {
    let rig = Rig::start().await?;
    let client = rig.nats.client().await?;
    let relay = rig.relay("relay")?;
    relay.wait_ready().await?;
    let stop = CancellationToken::new();
    let writer = writer(rig.postgres.url(DATABASE), stop.clone());
    for _ in 0..8 {
        let until = rand::rng().random_range(400..1500);
        let working = async {
            loop {
                // The relay may be about to make it.
                let _open = release_all(&client).await;
                sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::select! {
            () = working => {}
            () = sleep(Duration::from_millis(until)) => {}
        }
        relay.kill().await?;
        relay.start_again()?;
    }
    stop.cancel();
    writer.await??;
    settled(&rig, &client).await
}

#[tokio::test]
async fn what_is_released_waits_for_what_was_in_hand_when_the_relay_died() -> Result<()> {
    let rig = Rig::start().await?;
    let client = rig.nats.client().await?;
    let jetstream = jetstream::new(client.clone());
    // Full after one event: items are stored, and the events of their batch are not.
    let mut config = jetstream::stream::Config {
        name: STREAM.to_owned(),
        subjects: vec!["events.>".to_owned()],
        max_messages: 1,
        discard: jetstream::stream::DiscardPolicy::New,
        allow_atomic_publish: true,
        ..Default::default()
    };
    jetstream.create_stream(config.clone()).await?;
    let relay = rig.relay("relay")?;
    relay.wait_ready().await?;
    rig.insert("1").await?;
    rig.settled().await?;
    let rows = "BEGIN; INSERT INTO outbox (type, payload) VALUES ('Made', '2'), ('no subject', '3'); COMMIT";
    rig.sql.batch_execute(rows).await?;
    eventually("the item, asked for", SOON, async || {
        Ok((release_all(&client).await? == 1).then_some(()))
    })
    .await?;
    relay.kill().await?;
    relay.start_again()?;
    config.max_messages = -1;
    jetstream.update_stream(config).await?;
    settled(&rig, &client).await
}

#[tokio::test]
async fn a_relay_that_wakes_up_late_puts_nothing_into_quarantine_and_takes_nothing_out()
-> Result<()> {
    let rig = Rig::start().await?;
    let client = rig.nats.client().await?;
    let (first, second) = (rig.relay("first")?, rig.relay("second")?);
    first.wait_ready().await?;
    second.wait_ready().await?;
    let stop = CancellationToken::new();
    let writer = writer(rig.postgres.url(DATABASE), stop.clone());
    for _ in 0..2 {
        let (active, standby) = match first.metric("cdc_relay_streaming").await? {
            Some(1.0) => (&first, &second),
            _ => (&second, &first),
        };
        for _ in 0..10 {
            let _open = release_all(&client).await;
            sleep(Duration::from_millis(50)).await;
        }
        active.pause()?;
        eventually("the standby to stream", SOON, async || {
            let _open = release_all(&client).await;
            Ok((standby.metric("cdc_relay_streaming").await? == Some(1.0)).then_some(()))
        })
        .await?;
        for _ in 0..10 {
            let _open = release_all(&client).await;
            sleep(Duration::from_millis(50)).await;
        }
        active.resume()?;
        eventually("the other to stand by", SOON, async || {
            Ok((active.metric("cdc_relay_streaming").await? == Some(0.0)).then_some(()))
        })
        .await?;
    }
    stop.cancel();
    writer.await??;
    settled(&rig, &client).await
}

#[tokio::test]
async fn what_was_released_in_the_last_moment_before_a_crash_is_not_released_again() -> Result<()> {
    let rig = Rig::start().await?;
    let client = rig.nats.client().await?;
    let relay = rig.relay("relay")?;
    relay.wait_ready().await?;
    rig.insert("before").await?;
    for (event, payload) in [("no subject", "1"), ("Made", "2"), ("Made", "3")] {
        let row = format!(
            "INSERT INTO outbox (aggregateid, type, payload) VALUES ('a', '{event}', '{payload}')"
        );
        rig.sql.batch_execute(&row).await?;
    }
    let store = store(&client).await?;
    let open = eventually("three items", SOON, async || {
        let open = store.list(|_, meta| meta.is_open()).await?.items;
        Ok((open.len() == 3).then_some(open))
    })
    .await?;
    relay.kill().await?;
    release_all(&client).await?;

    // What a relay has appended that was killed before it could close the items.
    let jetstream = jetstream::new(client.clone());
    for item in &open[..2] {
        let (meta, names) = (&item.meta, &item.meta.names);
        let mut headers = HeaderMap::new();
        let id = names.id.as_deref().unwrap_or_default();
        headers.insert(EVENT_ID, id);
        headers.insert(EVENT_TYPE, "Mended");
        headers.insert(AGGREGATE_TYPE, "thing");
        headers.insert(AGGREGATE_ID, "a");
        headers.insert(POSITION, meta.position.to_string());
        headers.insert(QUARANTINE, item.place.to_string());
        let last = &open[2].meta;
        let last_id = last.names.id.as_deref().unwrap_or_default();
        headers.insert(RESUME, format!("{} {last_id}", last.position));
        let sent = jetstream.publish_with_headers("events.Mended", headers, "1".into());
        sent.await?.await?;
    }
    relay.start_again()?;
    relay.wait_ready().await?;
    rig.insert("after").await?;
    eventually("the rest", SOON, async || {
        let open = store.list(|_, meta| meta.is_open()).await?.items;
        let count = rig.count().await?;
        ensure!(open.is_empty() && count >= 5, "{open:?} {count}");
        Ok(Some(()))
    })
    .await?;
    let payloads: Vec<_> = rig.stored().await?.into_iter().map(|m| m.payload).collect();
    assert_eq!(payloads.len(), 5, "{payloads:?}");
    assert_eq!(payloads[..3], ["before", "1", "1"]);
    Ok(())
}

#[tokio::test]
async fn a_relay_whose_successor_has_begun_can_neither_store_nor_close_an_item() -> Result<()> {
    let rig = Rig::start().await?;
    let client = rig.nats.client().await?;
    let relay = rig.relay("relay")?;
    relay.wait_ready().await?;
    let row = "INSERT INTO outbox (aggregateid, type, payload) VALUES ('a', 'no subject', '1')";
    rig.sql.batch_execute(row).await?;
    let mut early = store(&client).await?;
    let open = eventually("an item", SOON, async || {
        Ok(early.list(|_, meta| meta.is_open()).await?.items.pop())
    })
    .await?;
    relay.kill().await?;

    early.claim().await?;
    let mut meta = open.meta.clone();
    let other = quarantine::Place {
        bucket: open.place.bucket,
        key: quarantine::Key::of(meta.position, Some("another")),
    };
    early.put(&other, &mut meta, &"row".into()).await?;
    store(&client).await?.claim().await?;
    let third = quarantine::Place {
        bucket: open.place.bucket,
        key: quarantine::Key::of(meta.position, Some("a third")),
    };
    let stored = early.put(&third, &mut meta, &"row".into()).await;
    let why = stored.err().context("it was stored")?.to_string();
    assert!(why.contains("another relay has taken over"), "{why}");
    assert!(early.close(&open.place, &open.meta).await.is_err());
    let item = early.item(&open.place).await?.context("it is gone")?;
    assert!(item.0.is_open());
    Ok(())
}
