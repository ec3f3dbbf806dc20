//! Events that no table holds, and that cannot be published: they go to quarantine and out again as rows do.

mod rig;

use anyhow::{Context as _, Result, ensure};
use harness::eventually;
use rig::{Rig, SOON};
use serde_json::Value as Json;

const TABLELESS: (&str, &str) = ("CDC_MESSAGE_PREFIX", "outbox");

async fn emit(rig: &Rig, id: &str, aggregate: &str, event_type: &str, payload: &str) -> Result<()> {
    let message = format!(
        "SELECT pg_logical_emit_message(true, 'outbox', json_build_object('id', '{id}', 'aggregatetype', 'order', \
         'aggregateid', '{aggregate}', 'type', '{event_type}', 'payload', {payload})::text)"
    );
    rig.sql.batch_execute(&message).await?;
    Ok(())
}

async fn holds(rig: &Rig, expected: &[&str]) -> Result<()> {
    eventually("the stream to hold what it should", SOON, async || {
        let stored: Vec<_> = rig.stored().await?.into_iter().map(|m| m.id).collect();
        ensure!(stored == expected, "{stored:?}");
        Ok(Some(()))
    })
    .await
}

/// Runs `cdc-relay quarantine …` as of a relay without a table.
async fn run(rig: &Rig, arguments: &[&str]) -> Result<String> {
    let arguments = [&["quarantine"], arguments].concat();
    let output = rig.command(&arguments, &[TABLELESS]).await?;
    ensure!(output.status.success(), "{output:?}");
    Ok(String::from_utf8(output.stdout)?)
}

async fn listed(rig: &Rig, expected: &[(&str, &str)]) -> Result<Vec<Json>> {
    eventually("the items to be listed", SOON, async || {
        let list: Json = serde_json::from_str(&run(rig, &["list", "--json"]).await?)?;
        let items = list["items"].as_array().context("no items")?.clone();
        let text = |item: &Json, name: &str| item[name].as_str().unwrap_or_default().to_owned();
        let found: Vec<_> = items
            .iter()
            .map(|item| (text(item, "event_id"), text(item, "state")))
            .collect();
        let found: Vec<_> = found
            .iter()
            .map(|(id, state)| (id.as_str(), state.as_str()))
            .collect();
        ensure!(found == expected, "{found:?}");
        Ok(Some(items))
    })
    .await
}

#[tokio::test]
async fn a_message_that_cannot_be_published_holds_its_aggregate_until_it_is_released() -> Result<()>
{
    let rig = Rig::without_outbox(&[]).await?;
    let relay = rig.relay_with("relay", &[TABLELESS])?;
    relay.wait_ready().await?;
    emit(&rig, "a1", "a", "Made", "'1'").await?;
    emit(&rig, "a2", "a", "Made", "repeat('x', 2000000)").await?;
    emit(&rig, "b1", "b", "no subject", "'2'").await?;
    emit(&rig, "a3", "a", "Made", "'3'").await?;
    emit(&rig, "b2", "b", "Made", "'4'").await?;
    emit(&rig, "c1", "c", "Made", "'5'").await?;
    holds(&rig, &["a1", "c1"]).await?;
    let waiting = [
        ("a2", "blocks"),
        ("b1", "blocks"),
        ("a3", "held"),
        ("b2", "held"),
    ];
    let items = listed(&rig, &waiting).await?;
    let reason = |at: usize| items[at]["reason"].as_str().unwrap_or_default();
    assert!(reason(0).contains("max_payload"), "{}", reason(0));
    assert!(reason(1).contains("is not a subject"), "{}", reason(1));
    assert!(items[0]["bytes"].as_u64() > Some(2_000_000), "{}", items[0]);

    // The hold survives a restart, and the log brings nothing twice.
    relay.restart().await?;
    emit(&rig, "a4", "a", "Made", "'6'").await?;
    holds(&rig, &["a1", "c1"]).await?;
    listed(&rig, &[waiting.as_slice(), &[("a4", "held")]].concat()).await?;

    run(&rig, &["fix", "b1", "--type", "Mended"]).await?;
    run(&rig, &["release", "b1"]).await?;
    holds(&rig, &["a1", "c1", "b1", "b2"]).await?;
    let file = rig.guard.directory().join("payload");
    std::fs::write(&file, "small")?;
    run(
        &rig,
        &["fix", "a2", "--payload", file.to_str().context("no path")?],
    )
    .await?;
    run(&rig, &["release", "a2"]).await?;
    holds(&rig, &["a1", "c1", "b1", "b2", "a2", "a3", "a4"]).await?;
    let stored = rig.stored().await?;
    assert_eq!(
        (stored[2].subject.as_str(), stored[4].payload.as_str()),
        ("events.Mended", "small")
    );
    listed(&rig, &[]).await?;
    emit(&rig, "a5", "a", "Made", "'7'").await?;
    holds(&rig, &["a1", "c1", "b1", "b2", "a2", "a3", "a4", "a5"]).await
}
