//! A line break in what a caller sends never begins a line of the log.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use async_nats::jetstream;
use harness::{Process, Role, Side, System, eventually};
use proto::dead_letters::v1::{DiscardDeadLettersRequest, DiscardDeadLettersResponse};
use proto::orders::v1::OrderCreated;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::client::{Client, Transport};
use crate::letters::letter;

const SOON: Duration = Duration::from_secs(30);

/// What would be taken for a line of the log if it began one.
const FORGED: &str = "2026-01-01T00:00:00.000000Z  WARN forged: all is well";

fn with_breaks(before: &str) -> String {
    [
        "\n",
        "\r\n",
        "\r",
        "\u{85}",
        "\u{2028}",
        "\u{b}",
        "\u{1b}[2K",
    ]
    .map(|end| format!("{before}{end}{FORGED}"))
    .concat()
}

/// Sends a line break wherever a service might log it.
async fn provoke(system: &System, side: Side) -> Result<()> {
    let client = Client::new(system, Transport::NatsJson).await?;
    let (get, id) = match side {
        Side::Orders => ("orders.v1.GetOrder", "orderId"),
        Side::Customers => ("customers.v1.GetCustomer", "customerId"),
    };
    for body in [
        json!({ with_breaks("x"): 1 }),
        json!({ id: with_breaks("x") }),
    ] {
        let body = body.to_string().into_bytes();
        let refused = client.call_nats(get, "application/json", body).await;
        refused.expect_err("it is refused").refusal();
    }
    let event = OrderCreated {
        order_id: with_breaks("x"),
        ..Default::default()
    };
    let sequence = letter(system, side, &event).await?;
    let discard = DiscardDeadLettersRequest {
        sequences: vec![sequence],
        // The rest is refused.
        reason: with_breaks("because").replace(['\u{85}', '\u{b}', '\u{1b}'], ""),
    };
    let operation = format!("dead_letters.v1.{}.DiscardDeadLetters", side.service());
    let done: DiscardDeadLettersResponse = client.call(&operation, &discard).await?;
    ensure!(done.discarded == [sequence], "{done:?}");
    // The reason becomes a header, as one line.
    let jetstream = jetstream::new(client.nats.clone());
    let stream = jetstream.get_stream("DISCARDED_LETTERS").await?;
    let last = stream.cached_info().state.last_sequence;
    let kept = stream.get_raw_message(last).await?;
    let reason = kept
        .headers
        .get("Dead-Letter-Discard-Reason")
        .context("no reason")?;
    ensure!(
        reason.as_str() == discard.reason.replace(['\r', '\n'], " "),
        "{reason:?}"
    );
    let service = system.database_as(side, Role::Service).await?;
    let row = "INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload, headers) \
               VALUES ($1::text::uuid, 'order', $2, $3, 'x', $4::text::jsonb)";
    let event_type = match side {
        Side::Orders => "orders.v1.Abuse",
        Side::Customers => "customers.v1.Abuse",
    };
    let headers = json!({ with_breaks("X"): "x", "X-Y": with_breaks("y") }).to_string();
    for aggregate in ["1".to_owned(), with_breaks("1")] {
        let id = Uuid::now_v7().to_string();
        let values: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
            [&id, &aggregate, &event_type, &headers];
        service.execute(row, &values).await?;
    }
    Ok(())
}

/// The log, once it tells of `count` things that were forged.
async fn told(process: &Process, words: &[&str]) -> Result<String> {
    eventually("the log to tell of it", SOON, async || {
        let log = process.log().text();
        for word in words {
            let told = log.split('\n').any(|line| line.contains(word));
            ensure!(told, "no {word:?} in the log of {}", process.name());
        }
        Ok(Some(log))
    })
    .await
}

fn one_line_each(process: &Process, log: &str, json: bool) -> Result<()> {
    // As terminals and collectors may split it.
    for line in log.split(['\n', '\r', '\u{85}', '\u{2028}', '\u{b}']) {
        let context = || format!("{} has logged the line {line:?}", process.name());
        ensure!(!line.starts_with(FORGED), "{}", context());
        ensure!(!line.contains('\u{1b}'), "{}", context());
        if json && !line.is_empty() {
            serde_json::from_str::<Value>(line).with_context(context)?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_line_of_a_log_is_forged_by_a_caller() -> Result<()> {
    for format in ["text", "json"] {
        let mut builder = System::builder();
        for program in ["order-service", "customer-service", "cdc-relay"] {
            builder = builder.env(program, "LOG_FORMAT", format).env(
                program,
                "LOG_FILTER",
                "info,chassis=debug,mailbox=debug",
            );
        }
        let system = builder.start().await?;
        for side in Side::ALL {
            provoke(&system, side).await?;
            let service = system.process(side.service());
            let log = told(service, &["unknown field", "because"]).await?;
            one_line_each(service, &log, format == "json")?;
            let relay = system.process(side.relay());
            let log = told(
                relay,
                &["a header of an outbox row was left out", "quarantine"],
            )
            .await?;
            one_line_each(relay, &log, format == "json")?;
        }
    }
    Ok(())
}
