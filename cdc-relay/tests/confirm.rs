//! What the relay tells Postgres to forget: only what JetStream has acknowledged (I2), and everything
//! that is not its own while it is idle (I3).

mod rig;

use anyhow::{Result, ensure};
use harness::eventually;
use rig::{DATABASE, Rig, SLOT, SOON};

/// Awaits two status updates that Postgres received after this moment.
async fn two_more_reports(rig: &Rig) -> Result<()> {
    let now = "SELECT clock_timestamp()::text";
    let report =
        "SELECT reply_time::text FROM pg_stat_replication WHERE reply_time > $1::text::timestamptz";
    for _ in 0..2 {
        let since: String = rig.sql.query_one(now, &[]).await?.get(0);
        eventually("a status update", SOON, async || {
            Ok(rig.sql.query_opt(report, &[&since]).await?)
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn nothing_is_confirmed_before_jetstream_has_acknowledged_it() -> Result<()> {
    let rig = Rig::start().await?;
    let relay = rig.relay("relay")?;
    relay.wait_ready().await?;
    rig.insert("before").await?;
    rig.settled().await?;

    rig.nats.pause()?;
    rig.insert("while JetStream is away").await?;
    let committed = rig.wal_end().await?;
    two_more_reports(&rig).await?;
    let confirmed = rig.confirmed().await?;
    ensure!(
        confirmed < committed,
        "{confirmed} was confirmed past the event, which ends at {committed}"
    );

    // The proof that it matters: neither side can say any more what was in flight.
    relay.kill().await?;
    rig.nats.kill().await?;
    rig.nats.start_again().await?;
    relay.start_again()?;
    let payloads: Vec<_> = rig
        .settled()
        .await?
        .into_iter()
        .map(|m| m.payload)
        .collect();
    assert_eq!(payloads, ["before", "while JetStream is away"]);
    Ok(())
}

#[tokio::test]
async fn an_idle_database_pins_no_wal_while_another_writes() -> Result<()> {
    let rig = Rig::start().await?;
    let relay = rig.relay("relay")?;
    relay.wait_ready().await?;
    rig.postgres.create_database("busy").await?;
    let busy = rig.postgres.connect("busy").await?;
    busy.batch_execute("CREATE TABLE t (x text)").await?;
    for _ in 0..5 {
        busy.batch_execute("INSERT INTO t SELECT repeat('x', 1000) FROM generate_series(1, 5000)")
            .await?;
        let written = rig.wal_end().await?;
        eventually("the slot to follow", SOON, async || {
            let confirmed = rig.confirmed().await?;
            ensure!(
                confirmed >= written,
                "confirmed {confirmed}, written {written}"
            );
            Ok(Some(()))
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn sigterm_drains_and_confirms() -> Result<()> {
    let rig = Rig::start().await?;
    let relay = rig.relay("relay")?;
    relay.wait_ready().await?;
    let rows = "INSERT INTO outbox (payload) SELECT 'x' FROM generate_series(1, 5000)";
    rig.sql.batch_execute(rows).await?;
    rig.settled().await?;
    rig.insert("last").await?;
    let committed = rig.wal_end().await?;
    rig.settled().await?;
    let status = relay.terminate().await?;
    assert!(status.success(), "{status}: {}", relay.log().tail());
    assert!(
        rig.confirmed().await? >= committed,
        "the last event was not confirmed"
    );

    // Nobody streams from the slot any more.
    let active = "SELECT active FROM pg_replication_slots WHERE slot_name = $1";
    eventually("the slot to be free", SOON, async || {
        let row = rig.sql.query_one(active, &[&SLOT]).await?;
        Ok((!row.get::<_, bool>(0)).then_some(()))
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn a_slow_jetstream_does_not_get_the_walsender_killed() -> Result<()> {
    let rig = Rig::start().await?;
    let relay = rig.relay("relay")?;
    relay.wait_ready().await?;
    let walsender = "SELECT pid FROM pg_stat_replication";
    let before: i32 = rig.sql.query_one(walsender, &[]).await?.get(0);
    rig.nats.pause()?;
    // More than the window holds, so that the reader has to wait; longer than wal_sender_timeout.
    let rows = "INSERT INTO outbox (payload) SELECT convert_to(repeat('x', 10000), 'UTF8') \
                FROM generate_series(1, 3000)";
    rig.sql.batch_execute(rows).await?;
    for _ in 0..2 {
        two_more_reports(&rig).await?;
    }
    let during: i32 = rig.sql.query_one(walsender, &[]).await?.get(0);
    assert_eq!(before, during, "the walsender was replaced");
    rig.nats.resume()?;
    rig.settled().await?;
    let other = rig.postgres.connect(DATABASE).await?;
    rig::insert(&other, "after").await?;
    rig.settled().await?;
    Ok(())
}
