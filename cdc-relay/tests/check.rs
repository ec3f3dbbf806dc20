//! `check` names everything that is wrong in one run, each with its mend, and changes nothing.

mod rig;

use anyhow::{Context as _, Result};
use async_nats::jetstream::{
    self,
    stream::{Config, RetentionPolicy},
};
use rig::{DATABASE, Rig, SLOT, STREAM};
use serde_json::Value as Json;

async fn check(rig: &Rig, environment: &[(&str, &str)]) -> Result<(Option<i32>, Json)> {
    let output = rig.command(&["check", "--json"], environment).await?;
    let document = serde_json::from_slice(&output.stdout).with_context(|| format!("{output:?}"))?;
    Ok((output.status.code(), document))
}

/// The text and mend of each finding of this level, by what was looked at.
fn of_level(document: &Json, level: &str) -> Vec<(String, String)> {
    let findings = document["findings"].as_array().into_iter().flatten();
    let text = |finding: &Json, of: &str| finding[of].as_str().unwrap_or_default().to_owned();
    findings
        .filter(|finding| finding["level"] == level)
        .map(|finding| {
            let all = format!("{}: {}", text(finding, "what"), text(finding, "text"));
            (all, text(finding, "mend"))
        })
        .collect()
}

#[track_caller]
fn names(findings: &[(String, String)], text: &str, mend: &str) {
    assert!(
        findings
            .iter()
            .any(|one| one.0.contains(text) && one.1.contains(mend)),
        "`{text}` with the mend `{mend}` is not in {findings:#?}"
    );
}

#[tokio::test]
async fn where_nothing_is_wrong_nothing_is_said_to_be_and_nothing_is_changed() -> Result<()> {
    let rig = Rig::start().await?;
    rig.insert("one").await?;
    let monitoring = format!("http://127.0.0.1:{}", rig.nats.monitoring_port());
    let (status, found) = check(&rig, &[("NATS_MONITORING_URL", &monitoring)]).await?;
    assert_eq!(of_level(&found, "wrong"), [], "{found:#}");
    assert_eq!((status, &found["worst"]), (Some(0), &"warning".into()));
    let warnings = of_level(&found, "warning");
    names(
        &warnings,
        "max_slot_wal_keep_size: unlimited",
        "ALTER SYSTEM SET max_slot_wal_keep_size",
    );
    names(&warnings, "sync_interval: 120s", "sync_interval: always");
    names(&warnings, "replicas: 1", "CDC_STREAM_REPLICAS=3");
    assert_eq!(warnings.len(), 3, "{warnings:#?}");
    let counts = "SELECT (SELECT count(*) FROM pg_replication_slots) + (SELECT count(*) FROM pg_publication)";
    assert_eq!(rig.sql.query_one(counts, &[]).await?.get::<_, i64>(0), 0);
    let jetstream = jetstream::new(rig.nats.client().await?);
    assert!(
        jetstream.get_stream(STREAM).await.is_err(),
        "a stream was made"
    );

    // And with a relay at work.
    let relay = rig.relay("relay")?;
    relay.wait_ready().await?;
    let (status, found) = check(&rig, &[]).await?;
    assert_eq!(status, Some(0), "{found:#}");
    names(
        &of_level(&found, "ok"),
        "slot: relay is held by process",
        "",
    );
    let table = rig.command(&["check"], &[]).await?;
    let table = String::from_utf8(table.stdout)?;
    assert!(table.contains("0 wrong, "), "{table}");
    Ok(())
}

#[tokio::test]
async fn everything_that_is_wrong_with_postgres_is_named_at_once_with_its_mend() -> Result<()> {
    let settings = [
        ("wal_level", "replica"),
        ("max_replication_slots", "1"),
        ("max_slot_wal_keep_size", "64MB"),
    ];
    let rig = Rig::without_outbox(&settings).await?;
    let table = "
        CREATE ROLE relay LOGIN PASSWORD 'secret';
        REVOKE TEMP ON DATABASE shop FROM PUBLIC;
        CREATE UNLOGGED TABLE outbox (id uuid, aggregatetype text, aggregateid point NOT NULL,
            type text NOT NULL GENERATED ALWAYS AS ('x') STORED, headers text)";
    rig.sql.batch_execute(table).await?;
    let url = format!(
        "postgres://relay:secret@127.0.0.1:{}/{DATABASE}",
        rig.postgres.port()
    );
    let (status, found) = check(&rig, &[("DATABASE_URL", &url)]).await?;
    assert_eq!((status, &found["worst"]), (Some(1), &"wrong".into()));
    let wrong = of_level(&found, "wrong");
    names(
        &wrong,
        "wal_level: replica",
        "ALTER SYSTEM SET wal_level = logical",
    );
    names(
        &wrong,
        "max_replication_slots: 0 of 1",
        "max_replication_slots = 2",
    );
    names(
        &wrong,
        "REPLICATION: relay lacks it",
        "ALTER ROLE \"relay\" REPLICATION",
    );
    names(&wrong, "replication connection", "REPLICATION");
    names(
        &wrong,
        "TEMP: relay lacks it",
        "GRANT TEMPORARY ON DATABASE \"shop\" TO \"relay\"",
    );
    names(
        &wrong,
        "SELECT: relay may not read",
        "GRANT SELECT ON \"public\".\"outbox\" TO \"relay\"",
    );
    names(&wrong, "is unlogged", "SET LOGGED");
    names(&wrong, "aggregateid: point", "use text, varchar, uuid");
    names(&wrong, "type: text, generated", "");
    names(&wrong, "there is no column payload", "CDC_COLUMN_");
    names(&wrong, "headers: text", "use jsonb or json");
    names(
        &wrong,
        "publication: cdc_relay does not exist",
        "CREATE PUBLICATION \"cdc_relay\" FOR TABLE",
    );
    let warnings = of_level(&found, "warning");
    names(&warnings, "max_slot_wal_keep_size: 64 MiB", "ALTER SYSTEM");
    names(&warnings, "id: uuid, which may be NULL", "SET NOT NULL");
    names(&warnings, "ids: no unique index", "CREATE UNIQUE INDEX");
    names(
        &warnings,
        "sync_interval: cannot be seen",
        "NATS_MONITORING_URL",
    );
    Ok(())
}

#[tokio::test]
async fn the_mends_of_a_table_and_its_publication_mend() -> Result<()> {
    let rig = Rig::start().await?;
    let narrow = "
        CREATE PUBLICATION cdc_relay FOR TABLE outbox (id, type) WITH (publish = 'insert');
        CREATE TABLE other (id int)";
    rig.sql.batch_execute(narrow).await?;
    let (_, found) = check(&rig, &[]).await?;
    let wrong = of_level(&found, "wrong");
    names(
        &wrong,
        "leaves columns out: aggregatetype, aggregateid, payload",
        "SET TABLE",
    );
    rig.sql.batch_execute(&wrong[0].1).await?;
    assert_eq!(of_level(&check(&rig, &[]).await?.1, "wrong"), []);

    for (breaks, text) in [
        (
            "ALTER PUBLICATION cdc_relay SET TABLE other",
            "leaves the table out",
        ),
        (
            "ALTER PUBLICATION cdc_relay SET (publish = 'update')",
            "leaves inserts out",
        ),
    ] {
        rig.sql.batch_execute(breaks).await?;
        let wrong = of_level(&check(&rig, &[]).await?.1, "wrong");
        names(&wrong, text, "ALTER PUBLICATION \"cdc_relay\"");
        rig.sql.batch_execute(&wrong[0].1).await?;
        assert_eq!(of_level(&check(&rig, &[]).await?.1, "wrong"), []);
    }
    Ok(())
}

#[tokio::test]
async fn a_slot_that_is_lost_or_anothers_is_named() -> Result<()> {
    let settings = [
        ("max_slot_wal_keep_size", "1MB"),
        ("min_wal_size", "32MB"),
        ("max_wal_size", "32MB"),
    ];
    let rig = Rig::without_outbox(&settings).await?;
    let slots = "
        SELECT pg_create_logical_replication_slot('other', 'test_decoding');
        SELECT pg_create_logical_replication_slot('relay', 'pgoutput')";
    rig.sql.batch_execute(slots).await?;
    let (_, found) = check(&rig, &[("CDC_SLOT", "other")]).await?;
    names(
        &of_level(&found, "wrong"),
        "other is of test_decoding",
        "another CDC_SLOT",
    );
    for _ in 0..5 {
        let write = "CREATE TABLE IF NOT EXISTS t (a text); \
                     INSERT INTO t SELECT repeat('x', 1000) FROM generate_series(1, 20000)";
        rig.sql.batch_execute(write).await?;
        rig.sql.batch_execute("CHECKPOINT").await?;
    }
    let (_, found) = check(&rig, &[]).await?;
    names(
        &of_level(&found, "warning"),
        "relay is lost",
        "start the relay",
    );
    let (status, found) = check(&rig, &[("CDC_HEAL", "refuse")]).await?;
    assert_eq!(status, Some(1));
    let drop = format!("pg_drop_replication_slot('{SLOT}')");
    names(&of_level(&found, "wrong"), "relay is lost", &drop);
    Ok(())
}

#[tokio::test]
async fn what_is_wrong_with_the_stream_is_named_with_its_mend() -> Result<()> {
    let rig = Rig::start().await?;
    rig.insert(&"x".repeat(3000)).await?;
    let jetstream = jetstream::new(rig.nats.client().await?);
    let config = Config {
        name: STREAM.to_owned(),
        subjects: vec!["elsewhere.>".to_owned()],
        retention: RetentionPolicy::WorkQueue,
        max_message_size: 2000,
        ..Config::default()
    };
    jetstream.create_stream(config).await?;
    let (status, found) = check(&rig, &[]).await?;
    assert_eq!(status, Some(1));
    let wrong = of_level(&found, "wrong");
    names(&wrong, "WorkQueue retention", "");
    names(
        &wrong,
        "the stream takes elsewhere.>, and events go to events.>",
        "CDC_SUBJECT",
    );
    names(
        &wrong,
        "a row of the table has 3000 bytes",
        "raise max_msg_size of the stream",
    );
    names(
        &of_level(&found, "warning"),
        "does not allow them",
        "--allow-batch",
    );

    // A name whose subjects are another stream's.
    let environment = [("CDC_STREAM", "NEW"), ("CDC_SUBJECT", "elsewhere.{type}")];
    let (_, found) = check(&rig, &environment).await?;
    names(
        &of_level(&found, "wrong"),
        "elsewhere.> is taken by stream EVENTS",
        "other subjects",
    );
    Ok(())
}

#[tokio::test]
async fn a_peer_that_is_away_does_not_hide_what_is_wrong_with_the_other() -> Result<()> {
    let rig = Rig::without_outbox(&[]).await?;
    rig.nats.stop().await?;
    let (status, found) = check(&rig, &[]).await?;
    assert_eq!(status, Some(1));
    let wrong = of_level(&found, "wrong");
    names(&wrong, "NATS: ", "NATS_URL");
    names(
        &wrong,
        "there is no \"public\".\"outbox\"",
        "cdc-relay init",
    );
    rig.nats.start_again().await?;
    rig.postgres.stop().await?;
    let (status, found) = check(&rig, &[]).await?;
    assert_eq!(status, Some(1));
    names(&of_level(&found, "wrong"), "Postgres: ", "DATABASE_URL");
    names(&of_level(&found, "ok"), "JetStream: enabled", "");
    Ok(())
}
