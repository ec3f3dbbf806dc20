//! The slot is lost or the server is not what it was: what the stream lacks comes from the table.

mod rig;

use std::collections::HashSet;

use anyhow::{Context as _, Result, ensure};
use harness::{Process, eventually};
use rig::{DATABASE, Rig, SLOT, SOON, Stored, says};

/// A row's place in the outbox and in the stream is its payload here.
fn payloads(stored: &[Stored]) -> Vec<&str> {
    stored.iter().map(|one| one.payload.as_str()).collect()
}

/// Waits until the stream holds so many messages, each event once.
async fn holds(rig: &Rig, count: u64) -> Result<Vec<Stored>> {
    eventually("the stream to hold them", SOON, async || {
        let found = rig.count().await?;
        ensure!(found >= count, "{found} of {count}");
        Ok(Some(()))
    })
    .await?;
    let stored = rig.stored().await?;
    ensure!(stored.len() as u64 == count, "{:?}", payloads(&stored));
    let ids: HashSet<_> = stored.iter().map(|one| &one.id).collect();
    ensure!(
        ids.len() == stored.len(),
        "an event stands twice in the stream"
    );
    Ok(stored)
}

async fn reconnected(rig: Rig) -> Result<Rig> {
    let sql = rig.postgres.connect(DATABASE).await?;
    Ok(Rig { sql, ..rig })
}

/// Writes more WAL than the slot may keep, until Postgres has invalidated it.
async fn invalidate_slot(rig: &Rig) -> Result<()> {
    let fill = "CREATE TABLE IF NOT EXISTS filler (x text); \
                INSERT INTO filler SELECT repeat('x', 1000) FROM generate_series(1, 20000); \
                SELECT pg_switch_wal(); CHECKPOINT;";
    let status = "SELECT wal_status FROM pg_replication_slots WHERE slot_name = $1";
    eventually("the slot to be lost", SOON, async || {
        rig.sql.batch_execute(fill).await?;
        let row = rig.sql.query_one(status, &[&SLOT]).await?;
        let status: Option<String> = row.try_get(0)?;
        Ok((status.as_deref() == Some("lost")).then_some(()))
    })
    .await
}

async fn with_lost_slot(environment: &[(&str, &str)]) -> Result<(Rig, Process)> {
    let rig = Rig::start_with(&[("max_slot_wal_keep_size", "1MB")]).await?;
    let relay = rig.relay_with("relay", environment)?;
    relay.wait_ready().await?;
    rig.insert("before").await?;
    rig.settled().await?;
    relay.kill().await?;
    rig.insert("in the lost WAL").await?;
    invalidate_slot(&rig).await?;
    relay.start_again()?;
    Ok((rig, relay))
}

#[tokio::test]
async fn a_slot_that_postgres_invalidated_is_made_anew_and_costs_no_event() -> Result<()> {
    let (rig, relay) = with_lost_slot(&[]).await?;
    relay.wait_ready().await?;
    rig.insert("after").await?;
    let stored = rig.settled().await?;
    assert_eq!(payloads(&stored), ["before", "in the lost WAL", "after"]);
    says(&relay, "is invalidated (").await?;
    assert_eq!(relay.metric("cdc_relay_healed_total").await?, Some(1.0));
    Ok(())
}

#[tokio::test]
async fn a_relay_that_may_not_heal_says_what_it_would_do() -> Result<()> {
    let (rig, relay) = with_lost_slot(&[("CDC_HEAL", "refuse")]).await?;
    says(&relay, "CDC_HEAL=refuse").await?;
    assert_eq!(rig.count().await?, 1);
    // The mend that the log gives.
    rig.sql
        .execute("SELECT pg_drop_replication_slot($1)", &[&SLOT])
        .await?;
    relay.wait_ready().await?;
    assert_eq!(rig.settled().await?.len(), 2);
    Ok(())
}

/// Published, backed up, published further; then the backup is put back.
async fn restored(rig: Rig, relay: &Process, running: bool) -> Result<Rig> {
    relay.wait_ready().await?;
    rig.insert("kept").await?;
    rig.settled().await?;
    assert!(relay.terminate().await?.success());
    rig.postgres.stop().await?;
    rig.postgres.back_up("backup")?;
    rig.postgres.start_again().await?;
    relay.start_again()?;
    let rig = reconnected(rig).await?;
    for phantom in ["lost with the restore 1", "lost with the restore 2"] {
        rig.insert(phantom).await?;
    }
    rig.settled().await?;
    if !running {
        relay.kill().await?;
    }
    rig.postgres.kill().await?;
    rig.postgres.restore("backup")?;
    rig.postgres.start_again().await?;
    reconnected(rig).await
}

#[tokio::test]
async fn a_restored_server_is_noticed_by_a_running_relay_and_its_new_rows_are_published()
-> Result<()> {
    let rig = Rig::start().await?;
    let relay = rig.relay("relay")?;
    let rig = restored(rig, &relay, true).await?;
    rig.insert("of the new history").await?;
    let stored = holds(&rig, 4).await?;
    assert_eq!(payloads(&stored)[3], "of the new history");
    says(&relay, "events that the database no longer has").await?;
    let line = relay.log().text();
    let line = line
        .lines()
        .find(|line| line.contains("no longer has"))
        .context("no line")?
        .to_owned();
    assert!(
        line.contains("\"count\":2") && line.contains("\"from_sequence\":2"),
        "{line}"
    );
    rig.insert("and on").await?;
    holds(&rig, 5).await?;
    Ok(())
}

#[tokio::test]
async fn a_restored_server_whose_wal_has_grown_past_the_stream_loses_no_row() -> Result<()> {
    let rig = Rig::start().await?;
    let relay = rig.relay("relay")?;
    let rig = restored(rig, &relay, false).await?;
    let last = rig.stored().await?.pop().context("empty")?.position.lsn;
    let mut rows = 0;
    while u64::from(rig.wal_end().await?) <= last + 1000 {
        rig.insert("of the new history").await?;
        rows += 1;
    }
    relay.start_again()?;
    holds(&rig, 3 + rows).await?;
    says(&relay, "is not in this server's WAL").await?;
    rig.insert("and on").await?;
    holds(&rig, 4 + rows).await?;
    Ok(())
}

#[tokio::test]
async fn a_restored_server_without_its_slot_loses_no_row() -> Result<()> {
    let rig = Rig::start().await?;
    let relay = rig.relay("relay")?;
    let rig = restored(rig, &relay, false).await?;
    rig.sql
        .execute("SELECT pg_drop_replication_slot($1)", &[&SLOT])
        .await?;
    rig.insert("of the new history").await?;
    relay.start_again()?;
    holds(&rig, 4).await?;
    says(&relay, "events that the database no longer has").await?;
    rig.insert("and on").await?;
    holds(&rig, 5).await?;
    Ok(())
}

#[tokio::test]
async fn a_restored_server_that_lacks_nothing_new_is_compared_once() -> Result<()> {
    let rig = Rig::start().await?;
    let relay = rig.relay("relay")?;
    let rig = restored(rig, &relay, false).await?;
    relay.start_again()?;
    relay.wait_ready().await?;
    let compared = |relay: &Process| relay.log().text().matches("\"healed: ").count();
    assert_eq!(compared(&relay), 1);
    // The stream still ends with an event at a place that this WAL gives to others.
    relay.kill().await?;
    rig.insert("of the new history").await?;
    relay.start_again()?;
    holds(&rig, 4).await?;
    rig.insert("and on").await?;
    holds(&rig, 5).await?;
    assert_eq!(compared(&relay), 0, "{}", relay.log().tail());
    Ok(())
}

#[tokio::test]
async fn a_relay_killed_while_it_heals_begins_again() -> Result<()> {
    let rig = Rig::start().await?;
    let relay = rig.relay("relay")?;
    let rig = restored(rig, &relay, false).await?;
    let rows = "INSERT INTO outbox (payload) SELECT convert_to('new ' || n, 'UTF8') \
                FROM generate_series(1, 20000) n";
    rig.sql.batch_execute(rows).await?;
    relay.start_again()?;
    eventually("some of the rows", SOON, async || {
        Ok((rig.count().await? > 1000).then_some(()))
    })
    .await?;
    relay.kill().await?;
    assert!(rig.count().await? < 20003, "too late: all was published");
    rig.insert("between").await?;
    relay.start_again()?;
    holds(&rig, 20004).await?;
    rig.insert("and on").await?;
    holds(&rig, 20005).await?;
    Ok(())
}
