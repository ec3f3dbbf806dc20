//! Headers that an outbox row smuggles in. Whoever may insert rows chooses their headers; JetStream acts on some.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use async_nats::jetstream;
use harness::{Role, Side, System, eventually};
use serde_json::json;
use uuid::Uuid;

const SOON: Duration = Duration::from_secs(60);

/// In every value and name of a header that must not go out.
const FOREIGN: &str = "smuggled";

/// What a row must not bring: the name and the value of a header.
fn foreign() -> Vec<(String, String)> {
    let mut all = Vec::new();
    for name in [
        "Nats-Msg-Id",
        "Nats-Rollup",
        "nats-rollup",
        "NATS-ROLLUP",
        "Nats-TTL",
        "Nats-Expected-Stream",
        "Nats-Expected-Last-Sequence",
        "Nats-Expected-Last-Subject-Sequence",
        "Nats-Expected-Last-Msg-Id",
        "Nats-Batch-Id",
        "Nats-Batch-Sequence",
        "Nats-Batch-Commit",
        "Nats-Marker-Reason",
        "Nats-Schedule",
        "Nats-Incr",
        "Nats-Service-Error",
        "Cdc-Position",
        "cdc-commit",
        // Of the relay's own, which stand already.
        "Event-Type",
        "Aggregate-Type",
        "Aggregate-Id",
        // No names at all.
        "",
        "a b",
        "a:b",
        " Nats-Rollup",
        "Nats-Rollup ",
        "Nats-Rollup:",
        "\tNats-Rollup",
        "\u{e4}-Rollup",
        "X\r\nNats-Rollup",
        "X\nNats-Rollup",
        "X: y\r\nNats-Rollup",
    ] {
        all.push((name.to_owned(), FOREIGN.to_owned()));
    }
    for value in [
        "a\r\nNats-Rollup: smuggled",
        "a\nNats-Rollup: smuggled",
        "smuggled\r",
        "smuggled\r\n\r\nbody",
    ] {
        all.push(("X-Value".to_owned(), value.to_owned()));
    }
    // Values that JetStream would act on.
    for (name, value) in [
        ("Nats-Rollup", "all"),
        ("nats-rollup", "all"),
        ("Nats-Expected-Last-Sequence", "0"),
        ("Nats-Batch-Commit", "1"),
        ("Nats-Marker-Reason", "Purge"),
        ("Nats-TTL", "1s"),
    ] {
        all.push((name.to_owned(), value.to_owned()));
    }
    all
}

/// A row of a type that no consumer asks for.
async fn insert(system: &System, id: Uuid, aggregate: &str, headers: &str) -> Result<()> {
    let service = system.database_as(Side::Orders, Role::Service).await?;
    let row = "INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload, headers) \
               VALUES ($1::text::uuid, 'order', $2, 'orders.v1.Abuse', 'x', $3::text::jsonb)";
    let id = id.to_string();
    service.execute(row, &[&id, &aggregate, &headers]).await?;
    Ok(())
}

/// Each message's headers as the server shows them, line by line.
async fn stored(system: &System, count: usize) -> Result<Vec<Vec<(String, String)>>> {
    let jetstream = jetstream::new(system.nats().client().await?);
    eventually("the rows to be published", SOON, async || {
        let stream = jetstream.get_stream(Side::Orders.stream()).await?;
        let state = &stream.cached_info().state;
        let messages = usize::try_from(state.messages)?;
        ensure!(messages >= count, "{messages} of {count}");
        let mut all = Vec::new();
        for sequence in state.first_sequence..=state.last_sequence {
            let message = stream.get_raw_message(sequence).await?;
            ensure!(&message.payload[..] == b"x", "another payload");
            let mut lines = Vec::new();
            for (name, values) in message.headers.iter() {
                let values = values.iter().map(|value| value.as_str().to_owned());
                lines.extend(values.map(|value| (name.to_string(), value)));
            }
            all.push(lines);
        }
        Ok(Some(all))
    })
    .await
}

fn value<'a>(lines: &'a [(String, String)], name: &str) -> Result<&'a str> {
    let mut found = lines.iter().filter(|(known, _)| known == name);
    let (_, value) = found.next().with_context(|| format!("no {name}"))?;
    ensure!(found.next().is_none(), "{name} twice");
    Ok(value)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_smuggles_no_header_in_and_its_neighbours_are_published() -> Result<()> {
    let system = System::start().await?;
    let plain =
        json!({ "X-Fine": "a: b", "X-Blank": " ", "X-\u{7e}": "Gr\u{fc}n; \"q\"" }).to_string();
    let mut ids = Vec::new();
    let mut next = || {
        ids.push(Uuid::now_v7());
        *ids.last().expect("one")
    };
    insert(&system, next(), "first", &plain).await?;
    let foreign = foreign();
    for (name, value) in &foreign {
        insert(
            &system,
            next(),
            "one",
            &json!({ name: value, "X-Fine": "a: b" }).to_string(),
        )
        .await?;
    }
    let together = foreign
        .iter()
        .cloned()
        .map(|(name, value)| (name, value.into()));
    let mut together: serde_json::Map<_, _> = together.collect();
    together.insert("X-Fine".to_owned(), "a: b".into());
    insert(&system, next(), "together", &json!(together).to_string()).await?;
    insert(&system, next(), "none", "null").await?;
    // What cannot be read, or stands in a column, is set aside.
    let deep = format!("{{\"X-Deep\": {}{}}}", "[".repeat(1000), "]".repeat(1000));
    let mut aside = Vec::new();
    for (aggregate, headers) in [
        ("a list", &*json!([FOREIGN]).to_string()),
        ("text", &json!(FOREIGN).to_string()),
        ("a number", "7"),
        ("deep", &deep),
        ("42\r\nNats-Rollup: all", "{}"),
    ] {
        aside.push(Uuid::now_v7());
        insert(&system, aside[aside.len() - 1], aggregate, headers).await?;
    }
    insert(&system, next(), "last", &plain).await?;

    let messages = stored(&system, ids.len()).await?;
    assert_eq!(
        messages.len(),
        ids.len(),
        "each row once, and nothing rolled up"
    );
    for (lines, id) in messages.iter().zip(&ids) {
        check(lines, *id)?;
    }
    let set_aside = async || set_aside(&system, &aside).await.map(Some);
    eventually("the rows to be set aside", SOON, set_aside).await
}

/// The relay's headers of that row, what it may add, and nothing foreign.
fn check(lines: &[(String, String)], id: Uuid) -> Result<()> {
    assert_eq!(value(lines, "Nats-Msg-Id")?, id.to_string());
    assert_eq!(value(lines, "Event-Type")?, "orders.v1.Abuse");
    assert_eq!(value(lines, "Aggregate-Type")?, "order");
    value(lines, "Cdc-Position")?;
    for (name, value) in lines {
        assert!(!format!("{name}: {value}").contains(FOREIGN), "{lines:?}");
        let known = [
            "Nats-Msg-Id",
            "Event-Type",
            "Aggregate-Type",
            "Aggregate-Id",
            "Cdc-Position",
            "Cdc-Commit",
            // How the relay appends.
            "Nats-Expected-Stream",
            "Nats-Expected-Last-Sequence",
            "Nats-Batch-Id",
            "Nats-Batch-Sequence",
            "Nats-Batch-Commit",
        ];
        assert!(
            known.contains(&&**name) || name.starts_with("X-"),
            "{lines:?}"
        );
    }
    if value(lines, "Aggregate-Id")? != "none" {
        assert_eq!(value(lines, "X-Fine")?, "a: b", "{lines:?}");
    }
    Ok(())
}

/// The rows are in quarantine, each in an item without a header of its own.
async fn set_aside(system: &System, ids: &[Uuid]) -> Result<()> {
    let jetstream = jetstream::new(system.nats().client().await?);
    let mut shown = Vec::new();
    let quarantine = jetstream.get_stream("ORDERS_QUARANTINE").await?;
    let state = &quarantine.cached_info().state;
    for sequence in state.first_sequence..=state.last_sequence {
        let item = quarantine.get_raw_message(sequence).await?;
        // Those of the quarantine's own are rolled up by subject.
        let rolled = item.headers.iter().all(|(name, values)| {
            let rollup = name.to_string().eq_ignore_ascii_case("Nats-Rollup");
            !rollup || values.iter().all(|value| value.as_str() == "sub")
        });
        ensure!(rolled, "{:?}", item.headers);
        let payload = String::from_utf8_lossy(&item.payload).into_owned();
        shown.push(format!("{:?} {payload}", item.headers));
    }
    for id in ids {
        let found = shown.iter().any(|item| item.contains(&id.to_string()));
        ensure!(found, "{id} is not set aside: {shown:#?}");
    }
    Ok(())
}
