//! What is told of JSON that cannot be taken.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, HeaderMap};
use chassis::auth::Guard;
use harness::{Nats, eventually};
use order_service::api::{self, Orders};
use tokio_util::sync::CancellationToken;

use crate::support::{KEPT, PATIENCE, database};

/// The service over a NATS of its own, and the refusals of the requests, each an operation and a body.
async fn refusals(requests: &[(&str, &str)]) -> Vec<String> {
    let nats = Nats::start().await.unwrap();
    let orders = Arc::new(Orders::new(database().await, PATIENCE, KEPT));
    let served = api::nats(&orders).serve(
        nats.client().await.unwrap(),
        Guard::off(proto::ACCESS),
        CancellationToken::new(),
    );
    tokio::spawn(served);
    let client = nats.client().await.unwrap();
    let answers = async || Ok(refusal(&client, "GetOrder", "{}").await.ok());
    eventually("the service", Duration::from_secs(10), answers)
        .await
        .unwrap();
    let mut told = Vec::new();
    for (operation, body) in requests {
        told.push(refusal(&client, operation, body).await.unwrap());
    }
    told
}

async fn refusal(
    client: &Client,
    operation: &str,
    body: &str,
) -> Result<String, async_nats::RequestError> {
    let mut headers = HeaderMap::new();
    headers.insert("Content-Type", "application/json");
    let subject = format!("orders.v1.{operation}");
    let body = body.to_owned().into();
    let reply = client.request_with_headers(subject, headers, body).await?;
    let error = reply
        .headers
        .as_ref()
        .and_then(|all| all.get("Nats-Service-Error"));
    Ok(error.map_or("nothing", |error| error.as_str()).to_owned())
}

#[tokio::test]
async fn a_number_that_is_no_integer_is_told_by_field() {
    let bodies = [
        "10.5",
        "9223372036854775808",
        "\"9223372036854775808\"",
        "\"abc\"",
        "\"\"",
    ]
    .map(|number| format!(r#"{{"total":{{"minorUnits":{number},"currency":"USD"}}}}"#));
    let requests = bodies.each_ref().map(|body| ("CreateOrder", body.as_str()));
    for (body, told) in bodies.iter().zip(refusals(&requests).await) {
        assert_eq!(
            told, "INVALID_ARGUMENT: total.minorUnits: must be an integer that fits 64 bits",
            "{body}"
        );
    }
}

#[tokio::test]
async fn a_page_size_is_told_to_fit_32_bits() {
    let told = refusals(&[("ListOrders", r#"{"pageSize":3000000000}"#)]).await;
    assert_eq!(
        told,
        ["INVALID_ARGUMENT: pageSize: must be an integer that fits 32 bits"]
    );
}

#[tokio::test]
async fn an_unknown_json_field_is_refused_by_name() {
    // Taken for no filter, it would list everybody's orders.
    let told = refusals(&[("ListOrders", r#"{"customerID":"x"}"#)]).await;
    assert!(
        told[0].starts_with("INVALID_ARGUMENT: customerID: unknown field"),
        "{told:?}"
    );
}
