//! A standby is promoted: the relay goes on with it, and nothing is lost or repeated.

mod rig;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::{Result, ensure};
use harness::{Guard, Nats, Postgres, eventually, tools};
use rig::{DATABASE, OUTBOX, Rig, SLOT, SOON, load, says};
use tokio::task::JoinSet;

const STANDBY: &str = "standby";

async fn primary(bin: Option<PathBuf>) -> Result<Rig> {
    let guard = Guard::start()?;
    let nats = Nats::start_with(&guard, "").await?;
    let postgres = match bin {
        Some(bin) => Postgres::start_from(&guard, bin, &[]).await?,
        None => Postgres::start_with(&guard, &[]).await?,
    };
    postgres.create_database(DATABASE).await?;
    let sql = postgres.connect(DATABASE).await?;
    sql.batch_execute(OUTBOX).await?;
    Ok(Rig {
        sql,
        postgres,
        nats,
        guard,
    })
}

/// Writes while the primary lives; says how many rows were committed for certain.
async fn write_until(rig: &Rig, grown: u64) -> Result<(Arc<AtomicBool>, JoinSet<u64>)> {
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = JoinSet::new();
    for writer in 0..2 {
        writers.spawn(load(rig.postgres.url(DATABASE), writer, stop.clone()));
    }
    eventually("the stream to grow", SOON, async || {
        Ok((rig.count().await? > grown).then_some(()))
    })
    .await?;
    Ok((stop, writers))
}

/// The standby in the place of the primary, for the relay and the rig alike.
async fn promoted(rig: Rig, standby: Postgres) -> Result<Rig> {
    if rig.postgres.pid().is_some() {
        rig.postgres.kill().await?;
    }
    standby.promote().await?;
    let sql = standby.connect(DATABASE).await?;
    Ok(Rig {
        sql,
        postgres: standby,
        ..rig
    })
}

#[tokio::test]
async fn a_standby_promoted_under_load_goes_on_with_the_failover_slot() -> Result<()> {
    let asks = "a_standby_promoted_under_load_goes_on_with_the_failover_slot";
    let Some(bin) = tools::postgres_or_skip(18, asks)? else {
        return Ok(());
    };
    let rig = primary(Some(bin)).await?;
    let relay = rig.relay("relay")?;
    relay.wait_ready().await?;
    let standby = rig.postgres.standby(STANDBY, DATABASE, &[]).await?;
    rig.postgres
        .set("synchronized_standby_slots", STANDBY)
        .await?;
    // No commit is told to a client that the standby does not have.
    rig.postgres
        .set("synchronous_standby_names", STANDBY)
        .await?;
    let (stop, writers) = write_until(&rig, 500).await?;
    let on_standby = standby.connect(DATABASE).await?;
    eventually("the slot to be on the standby", SOON * 2, async || {
        let query = "SELECT synced AND NOT temporary AND invalidation_reason IS NULL \
                     FROM pg_replication_slots WHERE slot_name = $1";
        let row = on_standby.query_opt(query, &[&SLOT]).await?;
        Ok(row.is_some_and(|row| row.get(0)).then_some(()))
    })
    .await?;
    let before = rig.count().await?;
    eventually("the stream to grow", SOON, async || {
        Ok((rig.count().await? > before + 300).then_some(()))
    })
    .await?;
    let rig = promoted(rig, standby).await?;
    stop.store(true, Ordering::Relaxed);
    let committed: u64 = writers.join_all().await.into_iter().sum();
    relay.kill().await?;
    let relay = rig.relay("after")?;
    relay.wait_ready().await?;
    rig.insert("of the new primary").await?;
    let stored = rig.settled().await?;
    // A commit whose answer was lost with the connection may count for one more transaction.
    ensure!(
        stored.len() as u64 > committed,
        "{} of {committed}",
        stored.len()
    );
    assert_eq!(stored.last().map(|last| last.position.timeline), Some(2));
    assert!(
        !relay.log().text().contains("healed"),
        "{}",
        relay.log().tail()
    );
    Ok(())
}

#[tokio::test]
async fn a_standby_without_the_slot_is_healed_from_the_table() -> Result<()> {
    let rig = primary(None).await?;
    let relay = rig.relay_with("relay", &[("CDC_SLOT_FAILOVER", "false")])?;
    relay.wait_ready().await?;
    let standby = rig.postgres.standby(STANDBY, DATABASE, &[]).await?;
    rig.postgres
        .set("synchronous_standby_names", STANDBY)
        .await?;
    let (stop, writers) = write_until(&rig, 500).await?;
    // The relay falls behind: what it has not published is on the standby alone.
    relay.pause()?;
    rig.insert("not published before").await?;
    let rig = promoted(rig, standby).await?;
    stop.store(true, Ordering::Relaxed);
    writers.join_all().await;
    relay.resume()?;
    relay.kill().await?;
    let relay = rig.relay("after")?;
    relay.wait_ready().await?;
    rig.insert("of the new primary").await?;
    rig.settled().await?;
    says(&relay, "healed: the stream holds again").await
}

#[tokio::test]
async fn events_that_the_promoted_standby_never_received_are_told_and_its_own_are_published()
-> Result<()> {
    let rig = primary(None).await?;
    let relay = rig.relay("relay")?;
    relay.wait_ready().await?;
    rig.insert("on both").await?;
    let standby = rig.postgres.standby(STANDBY, DATABASE, &[]).await?;
    standby.wait_caught_up(&rig.postgres).await?;
    standby.stop().await?;
    for n in 0..20 {
        rig.insert(&format!("on the primary alone {n}")).await?;
    }
    rig.settled().await?;
    relay.kill().await?;
    rig.postgres.kill().await?;
    standby.start_again().await?;
    let rig = promoted(rig, standby).await?;
    rig.insert("of the new primary").await?;
    let relay = rig.relay("after")?;
    relay.wait_ready().await?;
    eventually("the new row", SOON, async || {
        Ok((rig.count().await? == 22).then_some(()))
    })
    .await?;
    says(
        &relay,
        "a standby was promoted that had not received the event",
    )
    .await?;
    says(&relay, "\"count\":20,\"from_sequence\":2").await?;
    rig.insert("and on").await?;
    eventually("the next row", SOON, async || {
        Ok((rig.count().await? == 23).then_some(()))
    })
    .await
}
