//! What an operator does about rows in quarantine, through the command line alone.

mod rig;

use std::{fs, process::Output};

use anyhow::{Context as _, Result, ensure};
use harness::eventually;
use rig::{DATABASE, Rig, SOON, STREAM};
use serde_json::Value;
use tokio::process::Command;

/// Runs `cdc-relay quarantine …`.
async fn run(rig: &Rig, arguments: &[&str]) -> Result<Output> {
    let output = Command::new(harness::binary("cdc-relay")?)
        .arg("quarantine")
        .args(arguments)
        .env("DATABASE_URL", rig.postgres.url(DATABASE))
        .env("NATS_URL", rig.nats.url())
        .env("CDC_STREAM", STREAM)
        .env("CDC_STREAM_SUBJECTS", "events.>")
        .env("USER", "ana")
        .output();
    Ok(output.await?)
}

/// The same, which must do what it is told.
async fn does(rig: &Rig, arguments: &[&str]) -> Result<String> {
    let output = run(rig, arguments).await?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{arguments:?}: {told}");
    Ok(String::from_utf8(output.stdout)?)
}

async fn list(rig: &Rig, arguments: &[&str]) -> Result<Vec<Value>> {
    let arguments = [&["list", "--json"], arguments].concat();
    let document: Value = serde_json::from_str(&does(rig, &arguments).await?)?;
    let items = document["items"].as_array().context("no items")?;
    Ok(items.clone())
}

async fn listed(rig: &Rig, count: usize) -> Result<Vec<Value>> {
    eventually("so many items in the list", SOON, async || {
        let items = list(rig, &[]).await?;
        Ok((items.len() == count).then_some(items))
    })
    .await
}

async fn payloads(rig: &Rig, expected: &[&str]) -> Result<()> {
    eventually("the stream to hold what it should", SOON, async || {
        let stored: Vec<_> = rig.stored().await?.into_iter().map(|m| m.payload).collect();
        ensure!(stored == expected, "{stored:?}");
        Ok(Some(()))
    })
    .await
}

/// A row that goes nowhere, with two behind it.
async fn poisoned(rig: &Rig) -> Result<Vec<Value>> {
    let rows = "
        INSERT INTO outbox (aggregateid, type, payload) VALUES ('a', 'no such subject', 'first');
        INSERT INTO outbox (aggregateid, payload) VALUES ('a', 'second');
        INSERT INTO outbox (aggregateid, payload) VALUES ('a', 'third');
        INSERT INTO outbox (aggregateid, payload) VALUES ('b', 'other');";
    for row in rows.split_inclusive(';') {
        rig.sql.batch_execute(row).await?;
    }
    listed(rig, 3).await
}

#[tokio::test]
async fn a_row_is_shown_mended_and_released_by_hand() -> Result<()> {
    let rig = Rig::start().await?;
    assert_eq!(
        does(&rig, &["list"]).await?,
        "nothing stands in quarantine\n"
    );
    let relay = rig.relay("relay")?;
    relay.wait_ready().await?;
    let items = poisoned(&rig).await?;
    let states: Vec<_> = items.iter().map(|item| &item["state"]).collect();
    assert_eq!(states, ["blocks", "held", "held"]);
    let (item, event) = (
        items[0]["item"].as_str().unwrap(),
        items[0]["event_id"].as_str().unwrap(),
    );
    for name in [item, event] {
        let shown = does(&rig, &["show", name]).await?;
        assert!(
            shown.contains("type: no such subject") && shown.contains("payload:"),
            "{shown}"
        );
    }
    let file = rig.guard.directory().join("payload");
    does(&rig, &["show", item, "--payload", file.to_str().unwrap()]).await?;
    assert_eq!(fs::read(&file)?, b"first");

    // Nothing has changed, so nothing can: it says why.
    let refused = run(&rig, &["release", item]).await?;
    let told = String::from_utf8_lossy(&refused.stdout);
    assert!(
        !refused.status.success() && told.contains("is not a subject to publish on"),
        "{told}"
    );
    let held = run(&rig, &["release", items[1]["item"].as_str().unwrap()]).await?;
    assert!(String::from_utf8_lossy(&held.stderr).contains("is only held"));

    fs::write(&file, "mended")?;
    let fix = [
        "fix",
        item,
        "--type",
        "Mended",
        "--payload",
        file.to_str().unwrap(),
        "--header",
        "mended-by=ana",
    ];
    does(&rig, &fix).await?;
    let released = does(&rig, &["release", item, "--why", "typo in the type"]).await?;
    assert_eq!(released, format!("{item} released\n"));
    payloads(&rig, &["other", "mended", "second", "third"]).await?;
    let stored = rig.stored().await?;
    assert_eq!(stored[1].subject, "events.Mended");
    assert_eq!(stored[1].id, event);
    assert_eq!(
        stored[1].headers.get("mended-by").map(|v| v.as_str()),
        Some("ana")
    );

    listed(&rig, 0).await?;
    let trail = list(&rig, &["--all"]).await?;
    let first = trail.iter().find(|entry| entry["item"] == item).unwrap();
    assert_eq!(first["state"], "released");
    assert_eq!(first["stream_sequence"], 2);
    assert_eq!(first["decided"]["by"], "ana");
    assert_eq!(first["decided"]["why"], "typo in the type");
    Ok(())
}

#[tokio::test]
async fn a_discarded_row_is_never_published_and_what_it_held_is() -> Result<()> {
    let rig = Rig::start().await?;
    let relay = rig.relay("relay")?;
    relay.wait_ready().await?;
    let items = poisoned(&rig).await?;
    let item = items[0]["item"].as_str().unwrap();
    assert!(
        !run(&rig, &["discard", item]).await?.status.success(),
        "without a reason"
    );
    does(
        &rig,
        &[
            "discard",
            "--aggregate",
            "thing",
            "a",
            "--why",
            "a test order",
        ],
    )
    .await?;
    payloads(&rig, &["other", "second", "third"]).await?;
    listed(&rig, 0).await?;
    let shown = does(&rig, &["show", item]).await?;
    assert!(
        shown.contains("discarded") && shown.contains("a test order"),
        "{shown}"
    );
    relay.restart().await?;
    rig.insert("later").await?;
    payloads(&rig, &["other", "second", "third", "later"]).await?;
    listed(&rig, 0).await?;
    Ok(())
}

#[tokio::test]
async fn what_is_held_can_go_with_what_holds_it() -> Result<()> {
    let rig = Rig::start().await?;
    let relay = rig.relay("relay")?;
    relay.wait_ready().await?;
    poisoned(&rig).await?;
    let another =
        "INSERT INTO outbox (aggregateid, type, payload) VALUES ('a', 'another *', 'fourth')";
    rig.sql.batch_execute(another).await?;
    listed(&rig, 4).await?;
    let all = run(
        &rig,
        &[
            "discard",
            "--all",
            "--with-held",
            "--why",
            "all wrong",
            "--json",
        ],
    )
    .await?;
    assert!(all.status.success(), "{all:?}");
    listed(&rig, 0).await?;
    rig.insert("later").await?;
    payloads(&rig, &["other", "later"]).await
}
