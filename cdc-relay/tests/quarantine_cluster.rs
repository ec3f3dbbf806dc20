//! Quarantine on a cluster of three: with the leader killed while rows go in and out, each row stands once,
//! here or there, and those of an aggregate in their order.

mod rig;

use std::{collections::HashMap, time::Duration};

use anyhow::{Context as _, Result, ensure};
use async_nats::{
    Client,
    jetstream::{self, consumer::pull::OrderedConfig},
};
use futures_util::StreamExt as _;
use harness::eventually;
use mailbox::envelope::{AGGREGATE_ID, EVENT_ID};
use rig::{
    SOON, STREAM,
    quarantine::{open, release_all},
    stage::Stage,
};
use tokio::time::{interval, sleep};

const QUARANTINE: &str = "EVENTS_QUARANTINE";

/// Rows of a round, of four aggregates; every ninth cannot be published.
const ROWS: u64 = 60;

/// Id, aggregate and number of all that the stream holds.
async fn stored(client: &Client) -> Result<Vec<(String, String, u64)>> {
    let mut stream = jetstream::new(client.clone()).get_stream(STREAM).await?;
    let count = usize::try_from(stream.info().await?.state.messages)?;
    let consumer = stream.create_consumer(OrderedConfig::default()).await?;
    let mut messages = consumer.messages().await?.take(count);
    let mut stored = Vec::new();
    while let Some(message) = messages.next().await {
        let message = message?;
        let headers = message.headers.as_ref().context("no headers")?;
        let header = |name| {
            headers
                .get(name)
                .map(ToString::to_string)
                .context("no such header")
        };
        let number = std::str::from_utf8(&message.payload)?.parse()?;
        stored.push((header(EVENT_ID)?, header(AGGREGATE_ID)?, number));
    }
    Ok(stored)
}

/// Writes a round, and kills the leader of `stream` in the middle of it.
async fn round(stage: &Stage, sql: &tokio_postgres::Client, from: u64, stream: &str) -> Result<()> {
    let cluster = stage.servers.cluster().context("no cluster")?;
    let leader = cluster.leader(stream).await?;
    let writing = async {
        let mut pace = interval(Duration::from_millis(30));
        for number in from..from + ROWS {
            pace.tick().await;
            let event = if number % 9 == 0 {
                "no subject"
            } else {
                "Made"
            };
            let row = format!(
                "INSERT INTO outbox (aggregateid, type, payload) VALUES ('{}', '{event}', '{number}')",
                number % 4
            );
            sql.batch_execute(&row).await?;
        }
        anyhow::Ok(())
    };
    let killing = async {
        sleep(Duration::from_millis(600)).await;
        cluster.node(leader).kill().await?;
        sleep(Duration::from_secs(2)).await;
        cluster.node(leader).start_again().await
    };
    tokio::try_join!(writing, killing)?;
    stage.servers.wait_ready().await
}

/// Each row of the table stands once: in the stream or in quarantine.
async fn whole(client: &Client, rows: u64) -> Result<usize> {
    eventually("each row to stand somewhere", SOON * 3, async || {
        let (stored, open) = (stored(client).await?, open(client).await?);
        let mut ids: Vec<_> = stored.iter().map(|(id, _, _)| id.clone()).collect();
        ids.extend(open.iter().filter_map(|item| item.meta.names.id.clone()));
        let all = ids.len();
        ids.sort_unstable();
        ids.dedup();
        ensure!(all == ids.len(), "{} stand twice", all - ids.len());
        ensure!(all as u64 == rows, "{all} of {rows}, {} open", open.len());
        Ok(Some(open.len()))
    })
    .await
}

#[tokio::test]
async fn a_leader_killed_while_rows_go_in_and_out_loses_and_repeats_nothing() -> Result<()> {
    let mut stage = Stage::start(3).await?;
    stage.add(rig::SLOT, &[]).await?;
    stage.active().await?;
    let client = stage.servers.client().await?;
    let quarantine = jetstream::new(client.clone())
        .get_stream(QUARANTINE)
        .await?;
    assert_eq!(quarantine.cached_info().config.num_replicas, 3);
    let sql = stage.sql().await?;
    for (at, stream) in (0..).zip([QUARANTINE, STREAM, QUARANTINE]) {
        round(&stage, &sql, at * ROWS + 1, stream).await?;
        let open = whole(&client, (at + 1) * ROWS).await?;
        ensure!(open > 0, "nothing was set aside");
    }

    // And out again, with the leader of the stream killed on the way.
    release_all(&client).await?;
    let cluster = stage.servers.cluster().context("no cluster")?;
    let leader = cluster.leader(STREAM).await?;
    cluster.node(leader).kill().await?;
    sleep(Duration::from_secs(1)).await;
    cluster.node(leader).start_again().await?;
    eventually("everything to be released", SOON * 3, async || {
        let open = release_all(&client).await?;
        ensure!(open == 0, "{open} open");
        Ok(Some(()))
    })
    .await?;
    assert_eq!(whole(&client, 3 * ROWS).await?, 0);
    let mut last: HashMap<String, u64> = HashMap::new();
    for (_, aggregate, number) in stored(&client).await? {
        let before = last.insert(aggregate, number).unwrap_or(0);
        ensure!(before < number, "{number} stands behind {before}");
    }
    stage.players[0].relay.ensure_alive()
}
