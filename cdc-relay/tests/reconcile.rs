//! `cdc-relay reconcile`: what the stream lacks of the table, said and mended on a person's word.

mod rig;

use std::process::Output;

use anyhow::{Context as _, Result, ensure};
use async_nats::jetstream;
use harness::Process;
use rig::{Rig, STREAM};
use serde_json::Value;

/// Runs the subcommand with the relay's own environment.
async fn reconcile(relay: &Process, arguments: &[&str]) -> Result<Output> {
    let (program, environment) = relay.recipe();
    let mut command = tokio::process::Command::new(program);
    command
        .arg("reconcile")
        .args(arguments)
        .env_clear()
        .envs(environment)
        .kill_on_drop(true);
    Ok(command.output().await?)
}

async fn reported(relay: &Process, arguments: &[&str]) -> Result<(bool, Value)> {
    let output = reconcile(relay, &[&["--json"], arguments].concat()).await?;
    let text = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    let report = serde_json::from_str(&text).with_context(|| format!("{text}{error}"))?;
    Ok((output.status.success(), report))
}

/// A relay that has published `one`, `two` and `three`, and a stream that has lost the last two.
async fn lost(rig: &Rig) -> Result<Process> {
    let relay = rig.relay("relay")?;
    relay.wait_ready().await?;
    rig.insert("one").await?;
    rig.settled().await?;
    rig.nats.stop().await?;
    rig.nats.back_up("older")?;
    rig.nats.start_again().await?;
    for payload in ["two", "three"] {
        rig.insert(payload).await?;
    }
    rig.settled().await?;
    rig.all_confirmed().await?;
    assert!(relay.terminate().await?.success());
    rig.nats.kill().await?;
    rig.nats.restore("older")?;
    rig.nats.start_again().await?;
    Ok(relay)
}

#[tokio::test]
async fn a_loss_is_told_without_changing_anything_and_mended_when_asked() -> Result<()> {
    let rig = Rig::start().await?;
    let relay = lost(&rig).await?;
    let (complete, report) = reported(&relay, &[]).await?;
    assert!(!complete, "{report}");
    assert_eq!(
        (&report["missing"], &report["slot"]),
        (&2.into(), &"free".into()),
        "{report}"
    );
    assert_eq!(rig.count().await?, 1);

    let output = reconcile(&relay, &["--publish"]).await?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "2 events were published; what the slot has not confirmed, the relay publishes from there\n"
    );
    let (complete, report) = reported(&relay, &[]).await?;
    assert!(complete, "{report}");
    // The relay goes on from there.
    rig.insert("four").await?;
    relay.start_again()?;
    assert_eq!(rig.settled().await?.len(), 4);
    Ok(())
}

#[tokio::test]
async fn beside_a_running_relay_it_looks_and_does_not_touch() -> Result<()> {
    let rig = Rig::start().await?;
    let relay = rig.relay("relay")?;
    relay.wait_ready().await?;
    for n in 0..50 {
        rig.insert(&n.to_string()).await?;
    }
    let (complete, report) = reported(&relay, &[]).await?;
    assert!(complete, "{report}");
    assert_eq!(report["caught_up"], true, "{report}");
    let output = reconcile(&relay, &["--publish"]).await?;
    assert!(!output.status.success());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("held by another relay"), "{error}");
    assert_eq!(rig.settled().await?.len(), 50);
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_told_is_decided_by_an_id() -> Result<()> {
    let rig = Rig::start().await?;
    let relay = rig.relay("relay")?;
    relay.wait_ready().await?;
    let insert = async |id: &str| {
        let id = format!("{id}0000000-0000-4000-8000-000000000000");
        let statement = "INSERT INTO outbox (id, payload) VALUES ($1::text::uuid, 'x')";
        rig.sql.execute(statement, &[&id]).await
    };
    for id in ["1", "2"] {
        insert(id).await?;
    }
    rig.settled().await?;
    let jetstream = jetstream::new(rig.nats.client().await?);
    jetstream.get_stream(STREAM).await?.purge().keep(1).await?;
    assert!(relay.terminate().await?.success());
    rig.drop_slot().await?;
    insert("3").await?;
    let (complete, report) = reported(&relay, &[]).await?;
    assert!(!complete && report["missing"].is_null(), "{report}");
    assert!(
        report["unclear"]
            .as_str()
            .is_some_and(|why| why.contains("cannot be told")),
        "{report}"
    );
    let after = ["--after", "20000000-0000-4000-8000-000000000000"];
    let (_, report) = reported(&relay, &after).await?;
    assert_eq!(report["missing"], 1, "{report}");
    let output = reconcile(&relay, &[&["--publish"], after.as_slice()].concat()).await?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(rig.count().await?, 2);
    Ok(())
}
