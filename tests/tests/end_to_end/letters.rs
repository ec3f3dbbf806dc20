//! Dead letters of the running services, over gRPC and NATS.

use std::time::Duration;

use anyhow::{Context as _, Result};
use async_nats::{HeaderMap, jetstream};
use harness::{Side, System, eventually};
use prost::{Message, Name};
use proto::customers::v1::CustomerNotFound;
use proto::dead_letters::v1::dead_letter_service_client::DeadLetterServiceClient;
use proto::dead_letters::v1::{
    GetDeadLetterRequest, ListDeadLettersRequest, RedriveDeadLettersRequest, RedriveOutcome,
};
use proto::money::v1::Money;
use proto::orders::v1::OrderCreated;
use uuid::Uuid;

/// As the service's consumer would have written it; returns its sequence.
pub(crate) async fn letter<M: Message + Name>(
    system: &System,
    side: Side,
    event: &M,
) -> Result<u64> {
    letter_because(system, side, event, "a reason").await
}

async fn letter_because<M: Message + Name>(
    system: &System,
    side: Side,
    event: &M,
    reason: &str,
) -> Result<u64> {
    let mut headers = HeaderMap::new();
    headers.insert("Dead-Letter-Durable", side.service());
    headers.insert("Dead-Letter-Reason", reason);
    headers.insert("Original-Nats-Msg-Id", Uuid::now_v7().to_string());
    headers.insert("Original-Event-Type", M::full_name());
    let jetstream = jetstream::new(system.nats().client().await?);
    let subject = format!("dead.{}", side.service());
    // The services make it, each when its consumer finds the stream of events.
    eventually(
        "the dead letters' stream",
        Duration::from_secs(30),
        async || Ok(jetstream.get_stream("DEAD_LETTERS").await.ok()),
    )
    .await?;
    let sent = jetstream.publish_with_headers(subject, headers, event.encode_to_vec().into());
    Ok(sent.await?.await?.sequence)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_service_serves_its_own_dead_letters() -> Result<()> {
    let system = System::start().await?;
    let (order, customer) = (Uuid::now_v7().to_string(), Uuid::now_v7().to_string());
    let total = Money {
        minor_units: 7,
        currency: "USD".to_owned(),
    };
    let asked = OrderCreated {
        order_id: order.clone(),
        customer_id: customer.clone(),
        total: Some(total),
        create_time: None,
    };
    let of_customers = letter(&system, Side::Customers, &asked).await?;
    // About an order that nobody sees: not yet, or not any more.
    let answer = CustomerNotFound {
        order_id: order,
        customer_id: customer,
    };
    let of_orders = letter(&system, Side::Orders, &answer).await?;

    let expected = [
        (Side::Customers, of_customers, RedriveOutcome::Applied),
        (Side::Orders, of_orders, RedriveOutcome::Failed),
    ];
    for (side, sequence, outcome) in expected {
        let mut letters = DeadLetterServiceClient::new(system.channel(side.service())?);
        let list = letters.list_dead_letters(ListDeadLettersRequest::default());
        let list = list.await?.into_inner().dead_letters;
        let sequences: Vec<u64> = list.iter().map(|letter| letter.sequence).collect();
        assert_eq!(sequences, [sequence], "{side:?}");
        let shown = letters.get_dead_letter(GetDeadLetterRequest { sequence });
        let shown = shown.await?.into_inner();
        assert!(shown.payload_json.contains("\"orderId\""), "{side:?}");
        let redrive = RedriveDeadLettersRequest {
            all: true,
            ..RedriveDeadLettersRequest::default()
        };
        let done = letters.redrive_dead_letters(redrive).await?.into_inner();
        assert_eq!(done.results[0].outcome(), outcome, "{done:?}");
    }

    let client = system.nats().client().await?;
    let mut headers = HeaderMap::new();
    headers.insert("Content-Type", "application/json");
    let subject = "dead_letters.v1.order-service.DiscardDeadLetters";
    let body = format!(r#"{{"sequences": ["{of_orders}"], "reason": "a test"}}"#);
    let answer = client
        .request_with_headers(subject, headers, body.into())
        .await?;
    let answer: serde_json::Value = serde_json::from_slice(&answer.payload)?;
    assert_eq!(answer["discarded"][0], of_orders.to_string());
    Ok(())
}

#[tokio::test]
async fn what_ended_its_process_is_redriven_by_its_number_alone() -> Result<()> {
    let system = System::builder().start().await?;
    let died = "applying it was begun 3 times in a row, alone, and never ended: each time the process died";
    let event = CustomerNotFound {
        order_id: Uuid::now_v7().to_string(),
        customer_id: Uuid::now_v7().to_string(),
    };
    let sequence = letter_because(&system, Side::Orders, &event, died).await?;
    let channel = system.channel(Side::Orders.service())?;
    let mut letters = DeadLetterServiceClient::new(channel);
    let mut why = async |request: RedriveDeadLettersRequest| {
        let done = letters.redrive_dead_letters(request).await?;
        let results = done.into_inner().results;
        let found = results.into_iter().find(|one| one.sequence == sequence);
        let found = found.context("it is not among them")?;
        assert_eq!(found.outcome(), RedriveOutcome::Failed, "{found:?}");
        anyhow::Ok(found.why)
    };
    let all = RedriveDeadLettersRequest {
        all: true,
        page_size: 1_000,
        ..RedriveDeadLettersRequest::default()
    };
    let said = why(all).await?;
    assert!(said.contains("redrive it by its number"), "{said}");
    let named = RedriveDeadLettersRequest {
        sequences: vec![sequence],
        ..RedriveDeadLettersRequest::default()
    };
    let said = why(named).await?;
    assert!(said.contains("order"), "it was not tried: {said}");
    assert!(!said.contains("by its number"), "{said}");
    Ok(())
}
