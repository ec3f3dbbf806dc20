//! `status` tells how things stand, with a relay at work and with none.

mod rig;

use anyhow::{Context as _, Result, ensure};
use harness::eventually;
use rig::{Rig, SOON};
use serde_json::Value as Json;

async fn status(rig: &Rig) -> Result<(Option<i32>, Json)> {
    let output = rig.command(&["status", "--json"], &[]).await?;
    let document = serde_json::from_slice(&output.stdout).with_context(|| format!("{output:?}"))?;
    Ok((output.status.code(), document))
}

#[tokio::test]
async fn what_waits_is_counted_with_its_age_while_no_relay_runs() -> Result<()> {
    let rig = Rig::start().await?;
    let (code, before) = status(&rig).await?;
    assert_eq!(
        (code, &before["slot"], &before["stream"]),
        (Some(0), &Json::Null, &Json::Null)
    );
    let relay = rig.relay("relay")?;
    relay.wait_ready().await?;
    rig.insert("one").await?;
    let stored = rig.settled().await?;
    relay.kill().await?;
    let transaction = "BEGIN; INSERT INTO outbox (payload) VALUES ('two'), ('three'); COMMIT; \
                       CREATE TABLE other (a int); INSERT INTO other VALUES (1)";
    rig.sql.batch_execute(transaction).await?;
    rig.insert("four").await?;
    // Its walsender may take a moment to notice.
    let found = eventually("the slot to be free", SOON, async || {
        let (_, found) = status(&rig).await?;
        Ok(found["slot"]["holder"].is_null().then_some(found))
    })
    .await?;
    assert_eq!(found["waiting"]["events"], 3, "{found:#}");
    assert_eq!(found["waiting"]["events_is_at_least"], false);
    let seconds = found["waiting"]["seconds"].as_f64().context("no age")?;
    assert!((0.0..600.0).contains(&seconds), "{found:#}");
    let lag = found["slot"]["lag_bytes"].as_i64().context("no lag")?;
    let retained = found["slot"]["retained_bytes"]
        .as_i64()
        .context("nothing retained")?;
    assert!(0 < lag && lag <= retained, "{found:#}");
    assert_eq!(found["slot"]["state"], "reserved");
    assert_eq!(found["stream"]["last_sequence"], 1);
    assert_eq!(found["stream"]["last_id"], stored[0].id.as_str());
    assert_eq!(
        found["stream"]["last_position"],
        stored[0].position.to_string()
    );
    assert_eq!(found["stream"]["append_path"], "atomic-and-fast");

    let copies = "SELECT count(*) FROM pg_replication_slots";
    eventually("the copy of the slot to be gone", SOON, async || {
        let count: i64 = rig.sql.query_one(copies, &[]).await?.get(0);
        ensure!(count == 1, "{count} slots");
        Ok(Some(()))
    })
    .await?;
    let lines = rig.command(&["status"], &[]).await?;
    let lines = String::from_utf8(lines.stdout)?;
    assert!(lines.contains("held by nobody"), "{lines}");
    assert!(
        lines.contains("waiting  3 events, the oldest for"),
        "{lines}"
    );
    Ok(())
}

#[tokio::test]
async fn the_holder_is_named_while_a_relay_runs_and_it_is_not_disturbed() -> Result<()> {
    let rig = Rig::start().await?;
    let relay = rig.relay("relay")?;
    relay.wait_ready().await?;
    for number in 0..5 {
        rig.insert(&number.to_string()).await?;
        let (code, found) = status(&rig).await?;
        assert_eq!(code, Some(0), "{found:#}");
        assert_eq!(
            found["slot"]["holder"]["application"], "cdc-relay",
            "{found:#}"
        );
        let waiting = found["waiting"]["events"].as_u64().context("no count")?;
        assert!(waiting <= 1, "{found:#}");
    }
    assert_eq!(rig.settled().await?.len(), 5);
    relay.ensure_alive()?;
    Ok(())
}

#[tokio::test]
async fn a_peer_that_is_away_hides_nothing_of_the_other() -> Result<()> {
    let rig = Rig::start().await?;
    let relay = rig.relay("relay")?;
    relay.wait_ready().await?;
    rig.insert("one").await?;
    rig.settled().await?;
    relay.kill().await?;
    rig.postgres.stop().await?;
    let (code, found) = status(&rig).await?;
    assert_eq!((code, &found["stream"]["messages"]), (Some(1), &1.into()));
    assert!(found["slot"]["trouble"].is_string(), "{found:#}");
    rig.postgres.start_again().await?;
    rig.nats.stop().await?;
    let (code, found) = status(&rig).await?;
    assert_eq!(
        (code, &found["slot"]["state"]),
        (Some(1), &"reserved".into())
    );
    assert!(found["stream"]["trouble"].is_string(), "{found:#}");
    Ok(())
}
