//! The NATS service API: encodings, errors, panics, discovery, traces, shutdown.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use async_nats::{Client, HeaderMap, Message};
use chassis::{auth::Guard, rpc::Api};
use harness::{Nats, eventually};
use prost::Message as _;
use serde_json::Value;
use tokio::{sync::Semaphore, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::echo::{self, Gate, Text, perform};

const SOON: Duration = Duration::from_secs(10);
const JSON: &str = "application/json";
const PROTOBUF: &str = "application/protobuf";

struct Service {
    client: Client,
    gate: Gate,
    token: CancellationToken,
    serving: JoinHandle<Result<()>>,
    nats: Nats,
}

impl Service {
    async fn start() -> Result<Self> {
        echo::telemetry();
        let nats = Nats::start().await?;
        let client = nats.client().await?;
        let token = CancellationToken::new();
        let gate: Gate = Arc::new(Semaphore::new(0));
        let mut api = Api::new(
            "test-service",
            "1.2.3",
            "what tests call",
            ("test.v1", "test.v1.Test"),
        );
        for operation in [
            "Echo", "Trace", "Hold", "Long", "Refuse", "Panic", "Missing", "Wait",
        ] {
            let gate = Arc::clone(&gate);
            api = api.operation(operation, move |request| {
                let gate = Arc::clone(&gate);
                async move { perform(operation, &gate, request).await }
            });
        }
        let serving = tokio::spawn(api.serve(
            nats.client().await?,
            Guard::off(echo::ACCESS),
            token.clone(),
        ));
        let service = Self {
            client,
            gate,
            token,
            serving,
            nats,
        };
        eventually("the service to answer", SOON, async || {
            let reply = service.call("Missing", PROTOBUF, b"").await?;
            Ok(reply.headers.map(|_| ()))
        })
        .await?;
        Ok(service)
    }

    async fn call(&self, operation: &str, content_type: &str, body: &[u8]) -> Result<Message> {
        let mut headers = HeaderMap::new();
        headers.insert("Content-Type", content_type);
        self.call_with(operation, headers, body).await
    }

    async fn call_with(&self, operation: &str, headers: HeaderMap, body: &[u8]) -> Result<Message> {
        let subject = format!("test.v1.{operation}");
        let request = self
            .client
            .request_with_headers(subject, headers, body.to_vec().into());
        Ok(timeout(SOON, request).await??)
    }

    async fn discover(&self, verb: &str) -> Result<Value> {
        let subject = format!("$SRV.{verb}.test-service");
        let reply = self.client.request(subject, "".into()).await?;
        Ok(serde_json::from_slice(&reply.payload)?)
    }
}

fn header<'a>(message: &'a Message, name: &str) -> &'a str {
    let headers = message.headers.as_ref();
    headers
        .and_then(|all| all.get(name))
        .map_or("", |value| value.as_str())
}

/// Status code and text of a refusal.
fn error(message: &Message) -> (&str, &str) {
    (
        header(message, "Nats-Service-Error-Code"),
        header(message, "Nats-Service-Error"),
    )
}

#[tokio::test]
async fn a_reply_is_in_the_requests_encoding_and_protobuf_by_default() -> Result<()> {
    let service = Service::start().await?;
    let json = br#"{"text":"hi"}"#;
    let protobuf = Text { text: "hi".into() }.encode_to_vec();
    for content_type in [JSON, "Application/JSON; charset=utf-8"] {
        let reply = service.call("Echo", content_type, json).await?;
        assert_eq!(
            (header(&reply, "Content-Type"), &reply.payload[..]),
            (JSON, &json[..])
        );
    }
    let mut lower_case = HeaderMap::new();
    lower_case.insert("content-type", JSON);
    let reply = service.call_with("Echo", lower_case, json).await?;
    assert_eq!(&reply.payload[..], &json[..]);

    let mut unlabelled = HeaderMap::new();
    unlabelled.insert("Other", "header");
    for reply in [
        service.call("Echo", PROTOBUF, &protobuf).await?,
        service.call_with("Echo", unlabelled, &protobuf).await?,
    ] {
        assert_eq!(header(&reply, "Content-Type"), PROTOBUF);
        assert_eq!(reply.payload, protobuf);
    }
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_with_the_reason() -> Result<()> {
    let service = Service::start().await?;
    for (content_type, body, code, reason) in [
        (
            "text/plain",
            "hi",
            "415",
            "INVALID_ARGUMENT: content-type: \"text/plain\" is not one of",
        ),
        (
            JSON,
            "{",
            "400",
            "INVALID_ARGUMENT: body: EOF while parsing",
        ),
        (
            JSON,
            r#"{"txt":1}"#,
            "400",
            "INVALID_ARGUMENT: txt: unknown field `txt`",
        ),
        (
            JSON,
            r#"{"text":""} more"#,
            "400",
            "INVALID_ARGUMENT: body: trailing characters",
        ),
        (PROTOBUF, "\u{a}\u{7f}", "400", "INVALID_ARGUMENT: body: "),
    ] {
        let reply = service.call("Echo", content_type, body.as_bytes()).await?;
        let (given, text) = error(&reply);
        assert_eq!(given, code, "{content_type} {body:?}: {text}");
        assert!(text.starts_with(reason), "{content_type} {body:?}: {text}");
        assert!(reply.payload.is_empty());
    }
    let reply = service.call("Echo", PROTOBUF, br#"{"text":"hi"}"#).await?;
    let hint = "if this is JSON, send Content-Type: application/json";
    assert!(error(&reply).1.contains(hint), "{:?}", error(&reply));
    let long = format!(r#"{{"{}":1}}"#, "x".repeat(100_000));
    let reply = service.call("Echo", JSON, long.as_bytes()).await?;
    assert_eq!(error(&reply).1.len(), 1024, "a reason quotes without end");
    Ok(())
}

#[tokio::test]
async fn a_status_becomes_the_http_status_and_one_line_of_text() -> Result<()> {
    let service = Service::start().await?;
    let reply = service.call("Missing", JSON, br#"{"text":""}"#).await?;
    assert_eq!(error(&reply), ("404", "NOT_FOUND: no operation Missing"));
    let reply = service.call("Refuse", JSON, br#"{"text":""}"#).await?;
    assert_eq!(
        error(&reply),
        ("400", "INVALID_ARGUMENT: text: must not be this")
    );
    Ok(())
}

#[tokio::test]
async fn a_panic_is_an_internal_error_and_its_endpoint_lives_on() -> Result<()> {
    let service = Service::start().await?;
    for _ in 0..3 {
        let reply = service.call("Panic", PROTOBUF, b"").await?;
        assert_eq!(error(&reply), ("500", "INTERNAL: the server failed"));
    }
    Ok(())
}

#[tokio::test]
async fn discovery_tells_name_types_and_counts() -> Result<()> {
    let service = Service::start().await?;
    let ping = service.discover("PING").await?;
    assert_eq!(
        (ping["name"].as_str(), ping["version"].as_str()),
        (Some("test-service"), Some("1.2.3"))
    );

    let info = service.discover("INFO").await?;
    let endpoints = info["endpoints"].as_array().context("endpoints")?;
    let echo = endpoints
        .iter()
        .find(|one| one["name"] == "Echo")
        .context("Echo")?;
    assert_eq!(echo["subject"], "test.v1.Echo");
    assert_eq!(echo["metadata"]["request"], "test.v1.Text");
    assert_eq!(echo["metadata"]["response"], "test.v1.Text");

    service.call("Echo", PROTOBUF, b"").await?;
    service.call("Echo", JSON, b"{").await?;
    let stats = service.discover("STATS").await?;
    let endpoints = stats["endpoints"].as_array().context("endpoints")?;
    let echo = endpoints
        .iter()
        .find(|one| one["name"] == "Echo")
        .context("Echo")?;
    assert_eq!(
        (&echo["num_requests"], &echo["num_errors"]),
        (&2.into(), &1.into())
    );
    Ok(())
}

#[tokio::test]
async fn a_handler_continues_its_callers_trace() -> Result<()> {
    let service = Service::start().await?;
    let mut headers = HeaderMap::new();
    headers.insert(
        "traceparent",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    );
    let reply = service.call_with("Trace", headers, b"").await?;
    let trace = Text::decode(reply.payload)?.text;
    assert_eq!(trace, "0af7651916cd43dd8448eb211c80319c");
    Ok(())
}

#[tokio::test]
async fn requests_in_hand_are_answered_after_the_token_and_new_ones_find_nobody() -> Result<()> {
    const IN_HAND: usize = 300;
    let service = Arc::new(Service::start().await?);
    let mut held = Vec::new();
    for _ in 0..IN_HAND {
        let service = Arc::clone(&service);
        held.push(tokio::spawn(async move {
            service.call("Hold", PROTOBUF, b"").await
        }));
    }
    // Behind all of them on the same connection, so what it finds, they found.
    eventually("all to be sent", SOON, async || {
        Ok((service
            .client
            .statistics()
            .out_messages
            .load(std::sync::atomic::Ordering::Relaxed)
            > IN_HAND as u64)
            .then_some(()))
    })
    .await?;
    service.client.flush().await?;
    service.call("Echo", PROTOBUF, b"").await?;

    service.token.cancel();
    service.gate.add_permits(IN_HAND);
    for reply in held {
        assert_eq!(Text::decode(reply.await??.payload)?.text, "held");
    }
    eventually("nobody to serve", SOON, async || {
        let request = service.client.request("test.v1.Echo", "".into()).await;
        Ok(matches!(&request, Err(error)
            if error.kind() == async_nats::RequestErrorKind::NoResponders)
        .then_some(()))
    })
    .await?;
    let service = Arc::into_inner(service).context("still shared")?;
    timeout(SOON, service.serving).await???;
    Ok(())
}

#[tokio::test]
async fn a_reply_that_nats_does_not_carry_is_refused_with_the_reason() -> Result<()> {
    let service = Service::start().await?;
    let reply = service.call("Long", PROTOBUF, b"").await?;
    let (code, text) = error(&reply);
    assert_eq!(code, "429", "{text}");
    assert!(text.starts_with("RESOURCE_EXHAUSTED: "), "{text}");
    assert!(text.contains("smaller page_size"), "{text}");
    Ok(())
}

#[tokio::test]
async fn the_end_does_not_wait_for_a_nats_that_is_away() -> Result<()> {
    let service = Service::start().await?;
    service.nats.kill().await?;
    let state = async || {
        let state = service.client.connection_state();
        Ok((state == async_nats::connection::State::Disconnected).then_some(()))
    };
    eventually("the client to notice", SOON, state).await?;
    service.token.cancel();
    timeout(SOON, service.serving)
        .await
        .context("still waiting for NATS")??
}

/// Requests that an endpoint handles at once.
const PLACES: usize = 1024;

#[tokio::test]
async fn one_request_too_many_is_refused_at_once() -> Result<()> {
    let service = Arc::new(Service::start().await?);
    let held = hold_all_places(&service).await?;
    let refused = service.call("Hold", PROTOBUF, b"").await?;
    let (code, text) = error(&refused);
    assert_eq!(code, "503", "{text}");
    assert!(text.starts_with("UNAVAILABLE: 1024 requests"), "{text}");
    service.call("Echo", PROTOBUF, b"").await?;
    service.gate.add_permits(PLACES);
    for reply in held {
        assert_eq!(Text::decode(reply.await??.payload)?.text, "held");
    }
    Ok(())
}

/// Calls that wait for the gate, one in each place.
async fn hold_all_places(service: &Arc<Service>) -> Result<Vec<JoinHandle<Result<Message>>>> {
    // Each handler at work has a handle of its own to the gate.
    let idle = Arc::strong_count(&service.gate);
    let mut held = Vec::new();
    for _ in 0..PLACES {
        let service = Arc::clone(service);
        held.push(tokio::spawn(async move {
            service.call("Hold", PROTOBUF, b"").await
        }));
    }
    eventually("all places to be taken", SOON, async || {
        Ok((Arc::strong_count(&service.gate) == idle + PLACES).then_some(()))
    })
    .await?;
    Ok(held)
}

#[tokio::test]
async fn an_endpoint_whose_places_are_all_taken_stops_at_once() -> Result<()> {
    let service = Arc::new(Service::start().await?);
    let held = hold_all_places(&service).await?;
    service.token.cancel();
    eventually("nobody to take more", SOON, async || {
        let request = service.client.request("test.v1.Hold", "".into());
        let request = timeout(Duration::from_millis(200), request).await?;
        Ok(matches!(&request, Err(error)
            if error.kind() == async_nats::RequestErrorKind::NoResponders)
        .then_some(()))
    })
    .await?;
    service.gate.add_permits(PLACES);
    for reply in held {
        assert_eq!(Text::decode(reply.await??.payload)?.text, "held");
    }
    Ok(())
}

#[tokio::test]
async fn who_has_given_up_its_place_keeps_nobody_out() -> Result<()> {
    const WAITING: usize = 300;
    let service = Arc::new(Service::start().await?);
    let idle = Arc::strong_count(&service.gate);
    let mut waiting = Vec::new();
    for _ in 0..WAITING {
        let service = Arc::clone(&service);
        waiting.push(tokio::spawn(async move {
            service.call("Wait", PROTOBUF, b"").await
        }));
    }
    eventually("all to wait", SOON, async || {
        Ok((Arc::strong_count(&service.gate) == idle + WAITING).then_some(()))
    })
    .await?;
    let not = Text { text: "not".into() }.encode_to_vec();
    let reply = service.call("Wait", PROTOBUF, &not).await?;
    assert_eq!(Text::decode(reply.payload)?.text, "waited");
    service.gate.add_permits(WAITING);
    for reply in waiting {
        assert_eq!(Text::decode(reply.await??.payload)?.text, "waited");
    }
    Ok(())
}
