//! gRPC before the peers are there: alive, not ready, and handed over without a refused connection.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Result;
use chassis::{
    auth::Guard,
    grpc::{self, LIVENESS, Starting},
    health::Health,
    listen,
};
use harness::eventually;
use tokio::{sync::Semaphore, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_prost::ProstCodec;

use crate::echo::{self, Text};

const SOON: Duration = Duration::from_secs(10);

async fn start() -> Result<(Starting, Channel)> {
    echo::telemetry();
    let listener = listen::bind("grpc", ([127, 0, 0, 1], 0).into()).await?;
    let address: SocketAddr = listener.local_addr()?;
    let starting = Starting::new(listener).await?;
    let endpoint = Channel::from_shared(format!("http://{address}"))?;
    Ok((starting, endpoint.connect().await?))
}

async fn health(channel: &Channel, service: &str) -> Result<ServingStatus, Status> {
    let request = HealthCheckRequest {
        service: service.to_owned(),
    };
    let answer = HealthClient::new(channel.clone()).check(request).await?;
    Ok(answer.into_inner().status())
}

async fn call(channel: &Channel) -> Result<String, Status> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client
        .ready()
        .await
        .map_err(|error| Status::unavailable(error.to_string()))?;
    let path = "/test.v1.Test/Echo".parse().unwrap();
    let codec = ProstCodec::<Text, Text>::default();
    let request = tonic::Request::new(Text { text: "in".into() });
    Ok(client.unary(request, path, codec).await?.into_inner().text)
}

#[tokio::test]
async fn it_is_alive_and_not_ready_before_its_peers_are_there_and_stays_alive_without_them()
-> Result<()> {
    let (starting, channel) = start().await?;
    assert_eq!(health(&channel, LIVENESS).await?, ServingStatus::Serving);
    assert_eq!(health(&channel, "").await?, ServingStatus::NotServing);
    assert_eq!(call(&channel).await.unwrap_err().code(), Code::Unavailable);

    let ready = Health::new();
    let check = ready.check("postgres");
    check.set(true);
    let serving = tokio::spawn(grpc::serve(
        starting.done().await?,
        echo::routes(Arc::new(Semaphore::new(0))),
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        ready.clone(),
        Guard::off(&[]),
        CancellationToken::new(),
    ));
    eventually("the server to have taken over", SOON, async || {
        Ok(call(&channel)
            .await
            .is_ok_and(|answer| answer == "in")
            .then_some(()))
    })
    .await?;
    check.set(false);
    eventually("health to follow", SOON, async || {
        Ok((health(&channel, "").await? == ServingStatus::NotServing).then_some(()))
    })
    .await?;
    assert_eq!(health(&channel, LIVENESS).await?, ServingStatus::Serving);
    assert!(!serving.is_finished());
    Ok(())
}

#[tokio::test]
async fn who_watched_health_while_it_started_is_told_that_this_is_over() -> Result<()> {
    let (starting, channel) = start().await?;
    let mut watch = HealthClient::new(channel)
        .watch(HealthCheckRequest::default())
        .await?
        .into_inner();
    let first = watch.message().await?.map(|answer| answer.status());
    assert_eq!(first, Some(ServingStatus::NotServing));
    let listener = starting.done().await?;
    let end = timeout(SOON, watch.message())
        .await
        .expect("the watch goes on")?;
    assert_eq!(end, None);
    drop(listener);
    Ok(())
}
