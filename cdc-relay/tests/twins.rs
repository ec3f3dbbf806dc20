//! Rows that share an id, in the first copy of a table: named, and none of them lost over it.

mod rig;

use anyhow::Result;
use async_nats::jetstream;
use harness::eventually;
use rig::{Rig, SOON, STREAM, says};

/// A mapped id without a unique constraint.
const TABLE: &str = "
    CREATE TABLE outbox (id text NOT NULL, aggregatetype text DEFAULT 'a', aggregateid text DEFAULT 'b',
        type text DEFAULT 'c', payload text)";

fn id_in(seconds: u64) -> Result<String> {
    let at = std::time::UNIX_EPOCH.elapsed()?.as_secs() + seconds;
    let at = uuid::Timestamp::from_unix(uuid::NoContext, at, 0);
    Ok(uuid::Uuid::new_v7(at).to_string())
}

async fn insert(rig: &Rig, id: &str, payload: &str) -> Result<()> {
    let row = "INSERT INTO outbox (id, payload) VALUES ($1::text::uuid, convert_to($2, 'UTF8'))";
    rig.sql.execute(row, &[&id, &payload]).await?;
    Ok(())
}

async fn payloads(rig: &Rig) -> Result<Vec<String>> {
    Ok(rig.stored().await?.into_iter().map(|m| m.payload).collect())
}

#[tokio::test]
async fn rows_that_share_an_id_are_named_before_the_first_copy_publishes_one() -> Result<()> {
    let rig = Rig::without_outbox(&[]).await?;
    rig.sql.batch_execute(TABLE).await?;
    // More than one append takes, and the two at its ends.
    let rows = "INSERT INTO outbox (id, payload) SELECT to_char(n, 'FM00000'), n::text FROM generate_series(1, 3000) n; \
                INSERT INTO outbox (id, payload) VALUES ('00001', 'twin')";
    rig.sql.batch_execute(rows).await?;
    let relay = rig.relay("relay")?;
    let named = "event 00001 cannot be published: 2 rows of";
    says(&relay, named).await?;
    assert_eq!(rig.count().await?, 0);
    rig.sql
        .batch_execute("UPDATE outbox SET id = ' 00002' WHERE payload = 'twin'")
        .await?;
    // JetStream does not count blanks.
    says(&relay, "event 00002 cannot be published: 2 rows of").await?;
    rig.sql
        .batch_execute("UPDATE outbox SET id = '00001b' WHERE payload = 'twin'")
        .await?;
    relay.wait_ready().await?;
    let stored = payloads(&rig).await?;
    assert_eq!(stored.len(), 3001);
    assert_eq!(stored[..3], ["1", "twin", "2"]);
    Ok(())
}

#[tokio::test]
async fn an_id_that_only_the_server_remembers_is_found_out_and_named_when_healing() -> Result<()> {
    let rig = Rig::start().await?;
    let window = [("CDC_STREAM_DUPLICATE_WINDOW_SECONDS", "20")];
    let relay = rig.relay_with("relay", &window)?;
    relay.wait_ready().await?;
    // Newer than all that the stream will have removed.
    let (id, next) = (id_in(600)?, id_in(601)?);
    insert(&rig, &id, "1").await?;
    rig.insert("2").await?;
    rig.settled().await?;
    relay.terminate().await?;
    // The stream forgets the first event, and the server goes on knowing its id for a while.
    let jetstream = jetstream::new(rig.nats.client().await?);
    let mut config = jetstream
        .get_stream(STREAM)
        .await?
        .cached_info()
        .config
        .clone();
    config.max_messages = 1;
    jetstream.update_stream(&config).await?;
    config.max_messages = -1;
    jetstream.update_stream(&config).await?;
    insert(&rig, &next, "3").await?;
    let drop = "SELECT pg_drop_replication_slot('relay')";
    rig.sql.batch_execute(drop).await?;
    let relay = rig.relay_with("again", &window)?;
    says(&relay, &format!("event {id} cannot be published")).await?;
    eventually("the others, and then that one", SOON * 2, async || {
        let stored = payloads(&rig).await?;
        Ok((stored == ["2", "1", "3"]).then_some(()))
    })
    .await
}
