//! The dead letters that docs/api.md looks after, as the services' consumers would have written them.

use std::time::Duration;

use anyhow::Result;
use async_nats::{HeaderMap, jetstream};
use harness::{Side, System, eventually};
use prost::{Message, Name};
use proto::customers::v1::CustomerNotFound;
use proto::money::v1::Money;
use proto::orders::v1::OrderCreated;
use uuid::Uuid;

/// Always the same: what is encoded shows them on the page in letters that nobody could compare.
const ORDERS: [&str; 2] = [
    "0192f8c1-6d3e-7a44-9a51-3c5b8e0d2f17",
    "0192f8c1-7e21-7c05-8b1d-52f0c7a94e63",
];
const CUSTOMER: &str = "0192f8c1-5b90-7f3e-a2c4-7d18e3b65a09";

/// One for each service: an answer about an order that nobody has placed, and an order that can be answered.
pub(super) async fn plant(system: &System) -> Result<()> {
    let answer = CustomerNotFound {
        order_id: ORDERS[0].to_owned(),
        customer_id: CUSTOMER.to_owned(),
    };
    let why = "order 0192f8c1-6d3e-7a44-9a51-3c5b8e0d2f17 is not known here";
    letter(
        system,
        (Side::Orders, Side::Customers),
        &answer,
        ("customer", CUSTOMER),
        why,
    )
    .await?;
    let asked = OrderCreated {
        order_id: ORDERS[1].to_owned(),
        customer_id: CUSTOMER.to_owned(),
        total: Some(Money {
            minor_units: 700,
            currency: "EUR".to_owned(),
        }),
        create_time: None,
    };
    let why = "a bug that has been mended since";
    letter(
        system,
        (Side::Customers, Side::Orders),
        &asked,
        ("order", ORDERS[1]),
        why,
    )
    .await
}

async fn letter<M: Message + Name>(
    system: &System,
    (of, from): (Side, Side),
    event: &M,
    (aggregate_type, aggregate_id): (&str, &str),
    reason: &str,
) -> Result<()> {
    let mut headers = HeaderMap::new();
    let event_id = Uuid::now_v7().to_string();
    let subject = format!("events.{}", M::full_name());
    for (name, value) in [
        ("Dead-Letter-Durable", of.service()),
        ("Dead-Letter-Reason", reason),
        ("Dead-Letter-Attempts", "1"),
        ("Dead-Letter-Stream", from.stream()),
        ("Dead-Letter-Sequence", "17"),
        ("Dead-Letter-Subject", &subject),
        ("Original-Nats-Msg-Id", &event_id),
        ("Original-Event-Type", &M::full_name()),
        ("Original-Aggregate-Type", aggregate_type),
        ("Original-Aggregate-Id", aggregate_id),
    ] {
        headers.insert(name, value);
    }
    let jetstream = jetstream::new(system.nats().client().await?);
    // The services make it, each when its consumer finds the stream of events.
    let stream = async || Ok(jetstream.get_stream("DEAD_LETTERS").await.ok());
    eventually("the dead letters' stream", Duration::from_secs(30), stream).await?;
    let subject = format!("dead.{}", of.service());
    let sent = jetstream.publish_with_headers(subject, headers, event.encode_to_vec().into());
    sent.await?.await?;
    Ok(())
}
