//! A row in quarantine that a relay before this one had on its way to the stream: it is not doubled.

mod rig;

use anyhow::{Context as _, Result, ensure};
use async_nats::{
    Client, HeaderMap,
    header::{NATS_EXPECTED_LAST_SEQUENCE, NATS_MESSAGE_ID},
    jetstream,
};
use cdc_relay::quarantine::{Action, Listed, State};
use harness::eventually;
use mailbox::envelope::POSITION;
use rig::{
    Rig, SOON,
    quarantine::{ask, store},
};

async fn items(client: &Client, state: State, count: usize) -> Result<Vec<Listed>> {
    eventually("so many items of the state", SOON, async || {
        let store = store(client).await?;
        let items = store.list(|_, meta| meta.state == state).await?.items;
        ensure!(items.len() == count, "{items:?}");
        Ok(Some(items))
    })
    .await
}

/// What a relay with another configuration had on its way: the row itself, behind the stream's end.
async fn late_append(
    client: &Client,
    item: &Listed,
    sequence: u64,
    payload: &'static str,
) -> Result<()> {
    let id = item.meta.names.id.clone().context("no id")?;
    let mut headers = HeaderMap::new();
    headers.insert(NATS_MESSAGE_ID, id);
    headers.insert(POSITION, item.meta.position.to_string());
    headers.insert(NATS_EXPECTED_LAST_SEQUENCE, sequence.to_string());
    let jetstream = jetstream::new(client.clone());
    let sent = jetstream.publish_with_headers("events.Made", headers, payload.into());
    sent.await?.await?;
    Ok(())
}

#[tokio::test]
async fn what_a_relay_before_had_published_after_all_is_not_published_again() -> Result<()> {
    let rig = Rig::start().await?;
    let client = rig.nats.client().await?;
    let relay = rig.relay("before")?;
    relay.wait_ready().await?;
    rig.insert("one").await?;
    rig.settled().await?;
    relay.terminate().await?;
    // To this one no row can be published, and nothing is appended in its session.
    let none = [("CDC_SUBJECT", "elsewhere.{type}")];
    let other = rig.relay_with("other", &none)?;
    other.wait_ready().await?;
    for payload in ["two", "three", "four"] {
        rig.insert(payload).await?;
    }
    let open = items(&client, State::Open, 3).await?;
    assert!(open.iter().all(|item| item.meta.in_doubt));
    late_append(&client, &open[0], 1, "two").await?;
    other.terminate().await?;

    let relay = rig.relay("again")?;
    relay.wait_ready().await?;
    for item in &open {
        ask(&client, item, Action::Release).await?;
    }
    let closed = items(&client, State::Released, 3).await?;
    let stood: Vec<_> = closed.iter().map(|item| item.meta.released).collect();
    assert_eq!(stood, [Some(2), Some(3), Some(4)]);
    rig.insert("five").await?;
    let stored = rig.settled().await?;
    let payloads: Vec<_> = stored.iter().map(|m| m.payload.as_str()).collect();
    assert_eq!(payloads, ["one", "two", "three", "four", "five"]);
    relay.ensure_alive()
}

#[tokio::test]
async fn what_stands_in_the_stream_is_not_said_to_be_discarded() -> Result<()> {
    let rig = Rig::start().await?;
    let client = rig.nats.client().await?;
    let relay = rig.relay_with("other", &[("CDC_SUBJECT", "elsewhere.{type}")])?;
    relay.wait_ready().await?;
    rig.insert("one").await?;
    let open = items(&client, State::Open, 1).await?;
    late_append(&client, &open[0], 0, "one").await?;
    ask(&client, &open[0], Action::Discard { with_held: false }).await?;
    let closed = items(&client, State::Released, 1).await?;
    assert_eq!(closed[0].meta.released, Some(1));
    relay.ensure_alive()
}
