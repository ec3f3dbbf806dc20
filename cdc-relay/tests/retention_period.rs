//! Rows stay in the table for as long as the stream may have to be filled from it (I11).

mod rig;

use std::time::Duration;

use anyhow::{Result, ensure};
use async_nats::jetstream;
use harness::{Guard, Process, eventually};
use rig::{Rig, SOON, STREAM, says};

const DAY: &str = "86400";

/// Rows tell when they were written, so that a test can make them old.
const WRITTEN: &str = "ALTER TABLE outbox ADD written timestamptz NOT NULL DEFAULT now()";
const AGE: &str = "UPDATE outbox SET written = now() - interval '2 days'";

/// A day of rows behind a stream that keeps an hour of events.
const KEPT: [(&str, &str); 3] = [
    ("CDC_RETENTION_SECONDS", DAY),
    ("CDC_RETENTION_COLUMN", "written"),
    ("CDC_STREAM_MAX_AGE_SECONDS", "3600"),
];

/// Changes for how long the stream keeps its events.
async fn keep_events_for(rig: &Rig, seconds: u64) -> Result<()> {
    let jetstream = jetstream::new(rig.nats.client().await?);
    let mut config = jetstream
        .get_stream(STREAM)
        .await?
        .cached_info()
        .config
        .clone();
    config.max_age = Duration::from_secs(seconds);
    jetstream.update_stream(config).await?;
    Ok(())
}

async fn published(rig: &Rig, events: u64) -> Result<()> {
    eventually("the events", SOON * 2, async || {
        let count = rig.count().await?;
        ensure!(count == events, "{count}");
        Ok(Some(()))
    })
    .await
}

async fn rows(rig: &Rig) -> Result<i64> {
    let count = "SELECT count(*) FROM outbox";
    Ok(rig.sql.query_one(count, &[]).await?.get(0))
}

#[tokio::test]
async fn a_start_with_less_than_the_streams_life_is_refused_until_it_fits() -> Result<()> {
    let rig = Rig::start().await?;
    rig.sql.batch_execute(WRITTEN).await?;
    let longer = ("CDC_STREAM_MAX_AGE_SECONDS", "172800");
    let relay = rig.relay_with("first", &[longer])?;
    relay.wait_ready().await?;
    assert!(relay.terminate().await?.success());
    rig.insert("one").await?;

    let relay = rig.relay_with("relay", &KEPT)?;
    says(&relay, "CDC_RETENTION_SECONDS=86400 is too short").await?;
    says(&relay, "for 172800 s (max_age)").await?;
    assert_eq!(rig.count().await?, 0);
    let output = rig.command(&["check"], &KEPT).await?;
    let table = String::from_utf8(output.stdout)?;
    assert!(!output.status.success(), "{table}");
    assert!(
        table.contains("keep rows for longer than 172800 s"),
        "{table}"
    );

    keep_events_for(&rig, 3600).await?;
    published(&rig, 1).await
}

#[tokio::test]
async fn a_start_with_less_than_ten_syncs_is_refused_by_what_the_server_tells() -> Result<()> {
    let short = |seconds| {
        [
            ("CDC_RETENTION_SECONDS", seconds),
            ("CDC_STREAM_DELETED", "refuse"),
        ]
    };
    let sync = "jetstream { sync_interval: 180s }";
    let rig = Rig::start_in(Guard::start()?, &[], sync).await?;
    let monitoring = format!("http://127.0.0.1:{}", rig.nats.monitoring_port());
    let told = ("NATS_MONITORING_URL", monitoring.as_str());
    let refused = async |name, environment: &[(&str, &str)], figures: [&str; 3]| {
        let relay = rig.relay_with(name, environment)?;
        for figure in figures {
            says(&relay, figure).await?;
        }
        relay.kill().await
    };
    let default = "every 120 s by default";
    refused(
        "default",
        &short("1199"),
        ["=1199 ", default, "1200 s at least"],
    )
    .await?;
    let environment = [&short("1200")[..], &[told]].concat();
    refused(
        "told",
        &environment,
        ["=1200 ", "every 180 s,", "1800 s at least"],
    )
    .await?;
    rig.insert("one").await?;
    let relay = rig.relay_with("relay", &[&short("1800")[..], &[told]].concat())?;
    relay.wait_ready().await?;
    published(&rig, 1).await
}

#[tokio::test]
async fn where_the_stream_is_given_a_longer_life_later_rows_stay_and_publishing_goes_on()
-> Result<()> {
    let rig = Rig::start().await?;
    rig.sql.batch_execute(WRITTEN).await?;
    let relay = rig.relay_with("relay", &KEPT)?;
    relay.wait_ready().await?;
    keep_events_for(&rig, 172_800).await?;
    rig.nats.stop().await?;
    rig.insert("one").await?;
    rig.sql.batch_execute(AGE).await?;
    rig.nats.start_again().await?;
    published(&rig, 1).await?;
    says(&relay, "old rows stay in the table; publishing goes on").await?;
    assert_eq!(rows(&rig).await?, 1);
    relay.ensure_alive()
}

/// Three rows are published, and a copy of NATS is taken after the first.
async fn three(rig: &Rig) -> Result<Process> {
    rig.sql.batch_execute(WRITTEN).await?;
    let relay = rig.relay_with("relay", &KEPT)?;
    rig.insert("one").await?;
    relay.wait_ready().await?;
    published(rig, 1).await?;
    rig.nats.stop().await?;
    rig.nats.back_up("older")?;
    rig.nats.start_again().await?;
    for payload in ["two", "three"] {
        rig.insert(payload).await?;
    }
    published(rig, 3).await?;
    rig.all_confirmed().await?;
    Ok(relay)
}

#[tokio::test]
async fn nothing_leaves_the_table_while_nats_is_away_that_it_may_have_lost() -> Result<()> {
    let rig = Rig::start().await?;
    let relay = three(&rig).await?;
    rig.nats.kill().await?;
    rig.nats.restore("older")?;
    let before = relay.log().text().len();
    rig.sql.batch_execute(AGE).await?;
    // It looks once a minute.
    eventually("the relay to leave them", SOON * 3, async || {
        ensure!(rows(&rig).await? == 3, "removed: {}", relay.log().tail());
        let since = relay.log().text().split_off(before);
        let left = since.contains("NATS is away, and may have lost");
        Ok(left.then_some(()))
    })
    .await?;
    rig.nats.start_again().await?;
    published(&rig, 3).await?;
    // And then they go.
    eventually("the old rows to go", SOON * 2, async || {
        Ok((rows(&rig).await? == 0).then_some(()))
    })
    .await
}

#[tokio::test]
async fn nothing_leaves_the_table_that_the_stream_lacks_where_nobody_may_mend_it() -> Result<()> {
    let rig = Rig::start().await?;
    let relay = three(&rig).await?;
    assert!(relay.terminate().await?.success());
    rig.nats.kill().await?;
    rig.nats.restore("older")?;
    rig.nats.start_again().await?;
    rig.sql.batch_execute(AGE).await?;
    // New events take the lost sequences before anybody looks.
    rig.insert("and on").await?;
    let refusing = [&KEPT[..], &[("CDC_HEAL", "refuse")]].concat();
    let relay = rig.relay_with("refusing", &refusing)?;
    says(&relay, "no row is removed from the table until then").await?;
    rig.insert("another").await?;
    published(&rig, 3).await?;
    rig.all_confirmed().await?;
    // Nothing tells that nobody removes them. Who would, looks four times a second whether all is confirmed.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(rows(&rig).await?, 5);
    assert!(relay.terminate().await?.success());
    let relay = rig.relay_with("mending", &KEPT)?;
    published(&rig, 5).await?;
    relay.ensure_alive()
}
