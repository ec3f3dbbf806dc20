//! What is old leaves the table, but never before it stands in the stream.

mod rig;

use anyhow::{Result, ensure};
use harness::eventually;
use rig::{DATABASE, Rig, SOON, says};

const HOUR: i64 = 3600;

/// Twenty minutes are kept, behind a stream that keeps everything.
const KEPT: [(&str, &str); 2] = [
    ("CDC_RETENTION_SECONDS", "1200"),
    ("CDC_STREAM_DELETED", "refuse"),
];

fn id(seconds_ago: i64) -> Result<String> {
    let now = std::time::UNIX_EPOCH.elapsed()?.as_secs();
    let at = now.saturating_add_signed(-seconds_ago);
    let id = uuid::Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, at, 0));
    Ok(id.to_string())
}

async fn insert(rig: &Rig, payload: &str, seconds_ago: i64) -> Result<()> {
    let statement =
        "INSERT INTO outbox (id, payload) VALUES ($1::text::uuid, convert_to($2, 'UTF8'))";
    rig.sql
        .execute(statement, &[&id(seconds_ago)?, &payload])
        .await?;
    Ok(())
}

/// Waits until these are the table's rows.
async fn left(rig: &Rig, expected: &[&str]) -> Result<()> {
    eventually("the old rows to go", SOON * 2, async || {
        let query = "SELECT convert_from(payload, 'UTF8') FROM outbox ORDER BY id";
        let rows = rig.sql.query(query, &[]).await?;
        let found: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        ensure!(found == expected, "{found:?}");
        Ok(Some(()))
    })
    .await
}

#[tokio::test]
async fn old_rows_go_once_they_are_published_and_young_ones_stay() -> Result<()> {
    let rig = Rig::start().await?;
    for n in 0..2500 {
        insert(&rig, &n.to_string(), HOUR).await?;
    }
    insert(&rig, "young", 0).await?;
    let relay = rig.relay_with("relay", &KEPT)?;
    left(&rig, &["young"]).await?;
    assert_eq!(rig.count().await?, 2501);
    assert_eq!(
        relay.metric("cdc_relay_retired_rows_total").await?,
        Some(2500.0)
    );
    Ok(())
}

async fn rows(rig: &Rig) -> Result<i64> {
    let row = rig
        .sql
        .query_one("SELECT count(*) FROM outbox", &[])
        .await?;
    Ok(row.get(0))
}

#[tokio::test]
async fn a_row_that_is_old_by_its_id_and_not_published_stays() -> Result<()> {
    let rig = Rig::start().await?;
    let hour_ago = std::time::UNIX_EPOCH.elapsed()?.as_millis() - 3_600_000;
    // Enough to be removed for a while.
    let many = format!(
        "INSERT INTO outbox (id, payload) SELECT ('{hour_ago:012x}7' || substr(md5(n::text), 1, 19))::uuid, '' \
         FROM generate_series(1, 30000) n"
    );
    rig.sql.batch_execute(&many).await?;
    let relay = rig.relay_with("relay", &KEPT)?;
    eventually("the removal to be under way", SOON, async || {
        Ok((rows(&rig).await? < 29_000).then_some(()))
    })
    .await?;
    rig.nats.pause()?;
    insert(&rig, "on its way", HOUR).await?;
    // NATS takes nothing: the removal comes to an end, and that row is still there.
    let mut before = 0;
    eventually("the removal to stop", SOON, async || {
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        let now = rows(&rig).await?;
        let stopped = now == std::mem::replace(&mut before, now);
        Ok(stopped.then_some(()))
    })
    .await?;
    let there = "SELECT count(*) FROM outbox WHERE payload = 'on its way'";
    assert_eq!(rig.sql.query_one(there, &[]).await?.get::<_, i64>(0), 1);
    rig.nats.resume()?;
    eventually("the event", SOON * 2, async || {
        Ok((rig.count().await? == 30_001).then_some(()))
    })
    .await?;
    relay.ensure_alive()
}

#[tokio::test]
async fn old_partitions_are_dropped_whole_and_others_stay() -> Result<()> {
    let rig = Rig::without_outbox(&[]).await?;
    let (old, mid) = (id(3 * HOUR)?, id(HOUR)?);
    let table = format!(
        "CREATE TABLE outbox (id uuid NOT NULL, aggregatetype text DEFAULT 'a', aggregateid text DEFAULT 'b', \
         type text DEFAULT 'c', payload bytea) PARTITION BY RANGE (id); \
         CREATE TABLE outbox_old PARTITION OF outbox FOR VALUES FROM ('{old}') TO ('{mid}'); \
         CREATE TABLE outbox_new PARTITION OF outbox FOR VALUES FROM ('{mid}') TO (MAXVALUE); \
         CREATE TABLE outbox_rest PARTITION OF outbox DEFAULT"
    );
    rig.sql.batch_execute(&table).await?;
    insert(&rig, "old", 2 * HOUR).await?;
    insert(&rig, "older than any partition", 4 * HOUR).await?;
    insert(&rig, "old, in a partition that goes on", HOUR / 2).await?;
    let relay = rig.relay_with("relay", &KEPT)?;
    left(&rig, &["old, in a partition that goes on"]).await?;
    assert_eq!(rig.count().await?, 3);
    let exists =
        "SELECT to_regclass('outbox_old') IS NULL AND to_regclass('outbox_new') IS NOT NULL";
    assert!(rig.sql.query_one(exists, &[]).await?.get::<_, bool>(0));
    assert_eq!(
        relay.metric("cdc_relay_retired_partitions_total").await?,
        Some(1.0)
    );
    insert(&rig, "and on", 0).await?;
    eventually("the next", SOON, async || {
        Ok((rig.count().await? == 4).then_some(()))
    })
    .await
}

#[tokio::test]
async fn a_missing_right_is_told_with_its_mend_and_stops_nothing() -> Result<()> {
    let rig = Rig::start().await?;
    let grants = "CREATE ROLE reader LOGIN REPLICATION PASSWORD 'sesame'; GRANT SELECT ON outbox TO reader; \
                  GRANT TEMP ON DATABASE shop TO reader; \
                  CREATE PUBLICATION cdc_relay FOR TABLE outbox WITH (publish = 'insert')";
    rig.sql.batch_execute(grants).await?;
    insert(&rig, "old", HOUR).await?;
    let url = rig
        .postgres
        .url(DATABASE)
        .replace("postgres:", "reader:")
        .replacen("reader:", "postgres:", 1);
    let url = url.replace(rig.postgres.password(), "sesame");
    let relay = rig.relay_with("relay", &[KEPT[0], KEPT[1], ("DATABASE_URL", &url)])?;
    says(&relay, "The relay's user needs DELETE").await?;
    insert(&rig, "young", 0).await?;
    assert_eq!(rig.settled().await?.len(), 2);
    relay.ensure_alive()
}
