//! A row that cannot be published is set aside with its bytes, holds the later rows of its aggregate,
//! and nothing else; and comes out again once, in order.

mod rig;

use anyhow::{Context as _, Result, ensure};
use async_nats::Client;
use cdc_relay::quarantine::{self, Action, Listed, Request, Role, Row};
use harness::eventually;
use mailbox::envelope::{POSITION, QUARANTINE, RESUME};
use rig::{
    Rig, SOON, STREAM,
    quarantine::{open, store},
};

const HUGE: &str = "repeat('x', 2000000)";

/// Inserts a row of an aggregate; `payload` is SQL.
async fn row(rig: &Rig, aggregate: &str, payload: &str) -> Result<()> {
    let insert = format!(
        "INSERT INTO outbox (aggregateid, payload) VALUES ('{aggregate}', convert_to({payload}, 'UTF8'))"
    );
    rig.sql.batch_execute(&insert).await?;
    Ok(())
}

/// Waits until the stream holds exactly these payloads.
async fn holds(rig: &Rig, payloads: &[&str]) -> Result<()> {
    eventually("the stream to hold what it should", SOON, async || {
        let stored: Vec<_> = rig.stored().await?.into_iter().map(|m| m.payload).collect();
        ensure!(stored == payloads, "{stored:?}");
        Ok(Some(()))
    })
    .await
}

async fn open_count(client: &Client, count: usize) -> Result<Vec<Listed>> {
    eventually("so many items in quarantine", SOON, async || {
        let open = open(client).await?;
        ensure!(open.len() == count, "{open:?}");
        Ok(Some(open))
    })
    .await
}

fn ask(action: Action) -> Request {
    Request {
        action,
        decision: quarantine::Decision::default(),
        refused: None,
    }
}

#[tokio::test]
async fn a_row_that_cannot_be_published_holds_its_aggregate_and_nothing_else() -> Result<()> {
    let rig = Rig::start().await?;
    let client = rig.nats.client().await?;
    let relay = rig.relay("relay")?;
    relay.wait_ready().await?;
    row(&rig, "a", "'a1'").await?;
    row(&rig, "a", HUGE).await?;
    row(&rig, "b", "'b1'").await?;
    row(&rig, "a", "'a3'").await?;
    row(&rig, "b", "'b2'").await?;
    holds(&rig, &["a1", "b1", "b2"]).await?;
    let open = open_count(&client, 2).await?;
    assert_eq!(
        (open[0].meta.role, open[1].meta.role),
        (Role::Offender, Role::Held)
    );
    assert!(
        open[0].meta.reason.contains("max_payload"),
        "{}",
        open[0].meta.reason
    );
    assert_eq!(relay.metric("cdc_relay_quarantine_open").await?, Some(2.0));
    assert_eq!(relay.metric("cdc_relay_held_aggregates").await?, Some(1.0));
    relay.wait_ready().await?;

    // Also over a restart, and its own log does not bring back what stands there.
    relay.restart().await?;
    row(&rig, "a", "'a4'").await?;
    row(&rig, "b", "'b3'").await?;
    holds(&rig, &["a1", "b1", "b2", "b3"]).await?;
    open_count(&client, 3).await?;
    Ok(())
}

#[tokio::test]
async fn a_row_too_large_for_one_message_comes_back_byte_for_byte() -> Result<()> {
    let rig = Rig::start().await?;
    let client = rig.nats.client().await?;
    let relay = rig.relay("relay")?;
    relay.wait_ready().await?;
    row(
        &rig,
        "a",
        "(SELECT string_agg(md5(n::text), '') FROM generate_series(1, 100000) n)",
    )
    .await?;
    let open = open_count(&client, 1).await?;
    let store = store(&client).await?;
    let (meta, message) = store.item(&open[0].place).await?.context("no item")?;
    assert!(meta.parts > 1);
    let body = store.body(&open[0].place, &meta, message.payload).await?;
    let row = Row::decode(&body).context("no row")?;
    let values = row.values();
    let payload = values.iter().find(|(name, _)| name == "payload");
    let (_, Some(Ok(quarantine::Value::Binary(payload) | quarantine::Value::Text(payload)))) =
        payload.context("no payload")?
    else {
        panic!("no bytes");
    };
    let query = "SELECT payload, '\\x' || encode(payload, 'hex') FROM outbox";
    let written = rig.sql.query_one(query, &[]).await?;
    let (bytes, text): (Vec<u8>, String) = (written.get(0), written.get(1));
    assert!(*payload == bytes || *payload == text.as_bytes());
    Ok(())
}

#[tokio::test]
async fn what_is_released_comes_once_in_its_order_with_its_own_position() -> Result<()> {
    let rig = Rig::start().await?;
    let client = rig.nats.client().await?;
    let relay = rig.relay("relay")?;
    relay.wait_ready().await?;
    row(&rig, "a", HUGE).await?;
    row(&rig, "b", "'b1'").await?;
    for n in 1..=5 {
        row(&rig, "a", &format!("'a{n}'")).await?;
    }
    let open = open_count(&client, 6).await?;
    let store = store(&client).await?;
    store
        .mend(
            &open[0].place,
            quarantine::Fix {
                has_payload: true,
                payload: "a0".into(),
                ..quarantine::Fix::default()
            },
        )
        .await?;
    store.ask(&open[0].place, &ask(Action::Release)).await?;
    holds(&rig, &["b1", "a0", "a1", "a2", "a3", "a4", "a5"]).await?;
    open_count(&client, 0).await?;
    row(&rig, "a", "'a6'").await?;
    holds(&rig, &["b1", "a0", "a1", "a2", "a3", "a4", "a5", "a6"]).await?;
    let stored = rig.stored().await?;
    let header =
        |at: usize, name: &str| stored[at].headers.get(name).map(|v| v.as_str().to_owned());
    assert_eq!(header(1, POSITION), Some(open[0].meta.position.to_string()));
    assert_eq!(header(1, QUARANTINE), Some(open[0].place.to_string()));
    assert_eq!(
        header(1, RESUME),
        Some(format!(
            "{} {}",
            open[5].meta.position,
            open[5].meta.names.id.as_ref().unwrap()
        ))
    );
    assert_eq!(header(7, RESUME), None);
    Ok(())
}

#[tokio::test]
async fn the_first_copy_sets_aside_what_it_cannot_publish_and_repeats_nothing() -> Result<()> {
    let rig = Rig::start().await?;
    let client = rig.nats.client().await?;
    let rows = "
        ALTER TABLE outbox ALTER aggregateid DROP NOT NULL;
        INSERT INTO outbox (id, aggregateid, type, payload, headers) VALUES
            ('00000000-0000-7000-8000-000000000001', 'a', 'Made', 'a1', '{}'),
            ('00000000-0000-7000-8000-000000000002', 'a', 'no subject', '\\x00ff', '{\"k\": \"v\"}'),
            ('00000000-0000-7000-8000-000000000003', 'b', 'Made', 'b1', '{}'),
            ('00000000-0000-7000-8000-000000000004', 'a', 'Made', 'a3', '{}'),
            ('00000000-0000-7000-8000-000000000005', NULL, 'Made', 'n1', '{}');";
    rig.sql.batch_execute(rows).await?;
    let relay = rig.relay("relay")?;
    relay.wait_ready().await?;
    row(&rig, "a", "'a4'").await?;
    row(&rig, "b", "'b2'").await?;
    holds(&rig, &["a1", "b1", "b2"]).await?;
    let before = open_count(&client, 4).await?;
    assert!(before[2].place.bucket.is_alone(), "{before:?}");

    // Another slot, another copy: what stands in quarantine is not missing in the stream.
    relay.kill().await?;
    eventually("the slot to be free", SOON, async || {
        let drop = "SELECT pg_drop_replication_slot($1)";
        rig.sql.execute(drop, &[&rig::SLOT]).await?;
        Ok(Some(()))
    })
    .await?;
    relay.start_again()?;
    relay.wait_ready().await?;
    row(&rig, "b", "'b3'").await?;
    holds(&rig, &["a1", "b1", "b2", "b3"]).await?;
    let after = open_count(&client, 4).await?;
    let places = |items: &[Listed]| items.iter().map(|i| i.place.clone()).collect::<Vec<_>>();
    assert_eq!(places(&before), places(&after));

    let store = store(&client).await?;
    let fix = quarantine::Fix {
        event_type: Some("Mended".to_owned()),
        ..quarantine::Fix::default()
    };
    store.mend(&before[0].place, fix).await?;
    store.ask(&before[0].place, &ask(Action::Release)).await?;
    let fix = quarantine::Fix {
        columns: [("aggregateid".to_owned(), Some("n".to_owned()))].into(),
        ..quarantine::Fix::default()
    };
    store.mend(&before[2].place, fix).await?;
    open_count(&client, 1).await?;
    store.ask(&before[2].place, &ask(Action::Release)).await?;
    open_count(&client, 0).await?;
    let stored = rig.stored().await?;
    let payloads: Vec<_> = stored[4..].iter().map(|m| m.payload.as_str()).collect();
    assert_eq!(payloads, ["\0\u{fffd}", "a3", "a4", "n1"]);
    let kept = stored[4].headers.get("k").map(|v| v.as_str());
    assert_eq!(kept, Some("v"));
    Ok(())
}

#[tokio::test]
async fn a_row_released_with_a_fix_comes_back_when_the_stream_is_lost() -> Result<()> {
    let rig = Rig::start().await?;
    let client = rig.nats.client().await?;
    let relay = rig.relay("relay")?;
    relay.wait_ready().await?;
    row(&rig, "a", HUGE).await?;
    row(&rig, "b", "'b1'").await?;
    let first = open_count(&client, 1).await?;
    let fix = || quarantine::Fix {
        has_payload: true,
        payload: "a0".into(),
        ..quarantine::Fix::default()
    };
    store(&client).await?.mend(&first[0].place, fix()).await?;
    let release = ask(Action::Release);
    store(&client).await?.ask(&first[0].place, &release).await?;
    holds(&rig, &["b1", "a0"]).await?;
    relay.kill().await?;
    let jetstream = async_nats::jetstream::new(client.clone());
    jetstream.delete_stream(STREAM).await?;
    relay.start_again()?;
    relay.wait_ready().await?;
    holds(&rig, &["b1"]).await?;
    let again = open_count(&client, 1).await?;
    assert_eq!(again[0].meta.names.id, first[0].meta.names.id);
    assert_eq!(again[0].meta.role, Role::Offender);
    store(&client).await?.mend(&again[0].place, fix()).await?;
    store(&client).await?.ask(&again[0].place, &release).await?;
    holds(&rig, &["b1", "a0"]).await
}
