//! gRPC: health, reflection, deadlines, panics, limits, traces, shutdown.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use chassis::{auth::Guard, grpc, health::Health, listen};
use harness::eventually;
use tokio::{sync::Semaphore, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Status, codegen::Service as _, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_prost::ProstCodec;
use tonic_types::StatusExt as _;

use crate::echo::{self, Gate, Text};

const SOON: Duration = Duration::from_secs(10);

struct Server {
    address: SocketAddr,
    health: Health,
    gate: Gate,
    token: CancellationToken,
    serving: JoinHandle<Result<()>>,
}

impl Server {
    async fn start() -> Result<Self> {
        echo::telemetry();
        let listener = listen::bind("grpc", ([127, 0, 0, 1], 0).into()).await?;
        let address = listener.local_addr()?;
        let (health, token) = (Health::new(), CancellationToken::new());
        let gate: Gate = Arc::new(Semaphore::new(0));
        let serving = tokio::spawn(grpc::serve(
            listener,
            echo::routes(Arc::clone(&gate)),
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            health.clone(),
            Guard::off(&[]),
            token.clone(),
        ));
        Ok(Self {
            address,
            health,
            gate,
            token,
            serving,
        })
    }

    async fn channel(&self) -> Result<Channel> {
        let endpoint = Channel::from_shared(format!("http://{}", self.address))?;
        Ok(endpoint.connect().await?)
    }
}

async fn call(
    channel: &Channel,
    operation: &str,
    request: Request<Text>,
) -> Result<String, Status> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let path = format!("/test.v1.Test/{operation}").parse().unwrap();
    let codec = ProstCodec::<Text, Text>::default();
    Ok(client.unary(request, path, codec).await?.into_inner().text)
}

fn text(text: &str) -> Request<Text> {
    Request::new(Text { text: text.into() })
}

async fn health(channel: &Channel, service: &str) -> Result<ServingStatus, Status> {
    let request = HealthCheckRequest {
        service: service.to_owned(),
    };
    let answer = HealthClient::new(channel.clone()).check(request).await?;
    Ok(answer.into_inner().status())
}

fn counted(method: &str, code: &str) -> bool {
    let metrics = echo::telemetry().metrics().render();
    metrics.lines().any(|line| {
        line.starts_with("rpc_requests_total{")
            && line.contains("transport=\"grpc\"")
            && line.contains(&format!("method=\"{method}\""))
            && line.contains(&format!("code=\"{code}\""))
    })
}

#[tokio::test]
async fn health_follows_readiness_for_the_server_and_each_service() -> Result<()> {
    let server = Server::start().await?;
    let check = server.health.check("postgres");
    let channel = server.channel().await?;
    for (ready, expected) in [
        (false, ServingStatus::NotServing),
        (true, ServingStatus::Serving),
        (false, ServingStatus::NotServing),
    ] {
        check.set(ready);
        for service in ["", "grpc.health.v1.Health"] {
            eventually("health to follow", SOON, async || {
                Ok((health(&channel, service).await? == expected).then_some(()))
            })
            .await?;
        }
    }
    assert_eq!(
        health(&channel, "nobody.v1.Nothing")
            .await
            .unwrap_err()
            .code(),
        Code::NotFound
    );
    assert!(counted("/grpc.health.v1.Health/Check", "OK"));
    Ok(())
}

#[tokio::test]
async fn who_watches_health_is_told_of_the_end_and_does_not_delay_it() -> Result<()> {
    let server = Server::start().await?;
    let channel = server.channel().await?;
    let mut watch = HealthClient::new(channel)
        .watch(HealthCheckRequest::default())
        .await?
        .into_inner();
    let first = watch.message().await?.map(|answer| answer.status());
    assert_eq!(first, Some(ServingStatus::Serving));
    server.token.cancel();
    let last = timeout(SOON, watch.message())
        .await??
        .map(|answer| answer.status());
    assert_eq!(last, Some(ServingStatus::NotServing));
    let end = timeout(SOON, watch.message())
        .await
        .expect("the watch goes on")?;
    assert_eq!(end, None);
    timeout(SOON, server.serving).await???;
    Ok(())
}

#[tokio::test]
async fn reflection_lists_the_services_in_both_versions() -> Result<()> {
    use tonic_reflection::pb::{v1, v1alpha};
    let server = Server::start().await?;
    let channel = server.channel().await?;

    let request = v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(v1::server_reflection_request::MessageRequest::ListServices(
            String::new(),
        )),
    };
    let mut answers = v1::server_reflection_client::ServerReflectionClient::new(channel.clone())
        .server_reflection_info(futures_util::stream::iter([request]))
        .await?
        .into_inner();
    let answer = format!("{:?}", answers.message().await?);
    assert!(answer.contains("grpc.health.v1.Health"), "{answer}");

    let request = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(
            v1alpha::server_reflection_request::MessageRequest::ListServices(String::new()),
        ),
    };
    let mut answers = v1alpha::server_reflection_client::ServerReflectionClient::new(channel)
        .server_reflection_info(futures_util::stream::iter([request]))
        .await?
        .into_inner();
    let answer = format!("{:?}", answers.message().await?);
    assert!(answer.contains("grpc.health.v1.Health"), "{answer}");
    Ok(())
}

#[tokio::test]
async fn a_refusal_names_its_field_for_people_and_programs() -> Result<()> {
    let server = Server::start().await?;
    let channel = server.channel().await?;
    let refused = call(&channel, "Refuse", text("")).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(refused.message(), "text: must not\nbe this");
    let details = refused.get_details_bad_request().unwrap();
    assert_eq!(details.field_violations[0].field, "text");
    Ok(())
}

#[tokio::test]
async fn a_panic_is_an_internal_error_and_its_connection_lives_on() -> Result<()> {
    let server = Server::start().await?;
    let channel = server.channel().await?;
    let held = tokio::spawn({
        let channel = channel.clone();
        async move { call(&channel, "Hold", text("")).await }
    });
    let failed = call(&channel, "Panic", text("")).await.unwrap_err();
    assert_eq!(failed.code(), Code::Internal);
    assert!(!failed.message().contains("asked for"), "{failed}");
    server.gate.add_permits(1);
    assert_eq!(held.await??, "held");
    Ok(())
}

#[tokio::test]
async fn a_handler_ends_at_its_callers_deadline() -> Result<()> {
    let server = Server::start().await?;
    let channel = server.channel().await?;
    let mut request = text("");
    request.set_timeout(Duration::from_millis(300));
    call(&channel, "Hold", request).await.unwrap_err();
    eventually("the server to have given up", SOON, async || {
        Ok(counted("unknown", "DEADLINE_EXCEEDED").then_some(()))
    })
    .await
}

#[tokio::test]
async fn a_handler_continues_its_callers_trace() -> Result<()> {
    let server = Server::start().await?;
    let channel = server.channel().await?;
    let mut request = text("");
    let caller = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    request
        .metadata_mut()
        .insert("traceparent", caller.parse()?);
    let trace = call(&channel, "Trace", request).await?;
    assert_eq!(trace, "0af7651916cd43dd8448eb211c80319c");

    let (one, other) = (
        call(&channel, "Trace", text("")).await?,
        call(&channel, "Trace", text("")).await?,
    );
    assert_eq!(
        one.len(),
        32,
        "a request without a caller's trace begins one"
    );
    assert_ne!(one, other);
    Ok(())
}

#[tokio::test]
async fn calls_in_hand_are_finished_after_the_token_and_new_ones_refused() -> Result<()> {
    let server = Server::start().await?;
    let channel = server.channel().await?;
    let held = tokio::spawn({
        let channel = channel.clone();
        async move { call(&channel, "Hold", text("")).await }
    });
    eventually("the call to be in hand", SOON, async || {
        Ok((call(&channel, "Echo", text("in")).await? == "in").then_some(()))
    })
    .await?;
    server.token.cancel();
    eventually("new connections to be refused", SOON, async || {
        Ok(server.channel().await.is_err().then_some(()))
    })
    .await?;
    assert!(!server.serving.is_finished());
    server.gate.add_permits(1);
    assert_eq!(held.await??, "held");
    timeout(SOON, server.serving).await???;
    Ok(())
}

#[tokio::test]
async fn too_many_calls_are_refused_and_health_still_answers() -> Result<()> {
    let server = Server::start().await?;
    let mut held = Vec::new();
    for _ in 0..4 {
        let channel = server.channel().await?;
        for _ in 0..256 {
            let channel = channel.clone();
            held.push(tokio::spawn(async move {
                call(&channel, "Hold", text("")).await
            }));
        }
    }
    let channel = server.channel().await?;
    let refused = eventually("the limit to be reached", SOON, async || {
        Ok(call(&channel, "Echo", text("")).await.err())
    })
    .await?;
    assert_eq!(refused.code(), Code::Unavailable);
    assert_eq!(health(&channel, "").await?, ServingStatus::Serving);

    server.gate.add_permits(held.len());
    for call in held {
        assert_eq!(call.await??, "held", "none of the first 1024 was refused");
    }
    assert_eq!(call(&channel, "Echo", text("again")).await?, "again");
    Ok(())
}

#[tokio::test]
async fn who_has_given_up_its_place_keeps_nobody_out() -> Result<()> {
    let server = Server::start().await?;
    let mut waiting = Vec::new();
    for _ in 0..5 {
        let channel = server.channel().await?;
        for _ in 0..250 {
            let channel = channel.clone();
            waiting.push(tokio::spawn(async move {
                call(&channel, "Wait", text("")).await
            }));
        }
    }
    let channel = server.channel().await?;
    eventually("all to wait", SOON, async || {
        let metrics = echo::telemetry().metrics().render();
        let in_flight = metrics
            .lines()
            .find_map(|line| line.strip_prefix("rpc_requests_in_flight{transport=\"grpc\"} "));
        let in_flight: f64 = in_flight.unwrap_or("0").parse()?;
        Ok((in_flight >= waiting.len() as f64).then_some(()))
    })
    .await?;
    assert_eq!(call(&channel, "Echo", text("in")).await?, "in");
    server.gate.add_permits(waiting.len());
    for call in waiting {
        assert_eq!(call.await??, "waited");
    }
    Ok(())
}

#[tokio::test]
async fn a_handler_knows_its_callers_deadline() -> Result<()> {
    let server = Server::start().await?;
    let channel = server.channel().await?;
    let left = async |request| {
        call(&channel, "Left", request)
            .await?
            .parse::<u64>()
            .map_err(anyhow::Error::from)
    };
    let mut hurried = text("");
    hurried.set_timeout(Duration::from_secs(3));
    let hurried = left(hurried).await?;
    assert!((2_000..3_000).contains(&hurried), "{hurried} ms");
    let patient = left(text("")).await?;
    assert!((20_000..=30_000).contains(&patient), "{patient} ms");
    Ok(())
}

/// A body of which a byte comes now and then, and never the last.
struct Trickle(tokio::time::Interval);

impl http_body::Body for Trickle {
    type Data = bytes::Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<bytes::Bytes>, Status>>> {
        // The head of a message of 64 KiB, and then pieces of it.
        let tick = self.0.poll_tick(context);
        tick.map(|_| {
            Some(Ok(http_body::Frame::data(bytes::Bytes::from_static(&[
                0, 0, 1, 0, 0,
            ]))))
        })
    }
}

#[tokio::test]
async fn who_sends_a_request_slowly_is_refused_within_seconds() -> Result<()> {
    let server = Server::start().await?;
    let mut channel = server.channel().await?;
    for every in [Duration::from_millis(900), Duration::from_secs(3600)] {
        let mut trickle = tokio::time::interval(every);
        trickle.tick().await;
        let request =
            axum::http::Request::post(format!("http://{}/test.v1.Test/Echo", server.address))
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .body(tonic::body::Body::new(Trickle(trickle)))?;
        let begun = Instant::now();
        std::future::poll_fn(|context| channel.poll_ready(context)).await?;
        let answer = timeout(SOON, channel.call(request)).await??;
        let status = Status::from_header_map(answer.headers()).context("no status")?;
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
        assert!(
            status.message().contains("was not sent within 5 s"),
            "{status}"
        );
        assert!(begun.elapsed() >= Duration::from_secs(4), "at once");
    }
    Ok(())
}
