//! A service tells how old the events are that it is applying, so that somebody knows before the stream
//! forgets them (I10).

use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use async_nats::jetstream;
use harness::{Process, Side, System, books, eventually};

use crate::client::{Client, Transport, euros};

const DEADLINE: Duration = Duration::from_secs(60);
const SERIES: &str = r#"mailbox_oldest_in_hand_timestamp_seconds{durable="customer-service"}"#;

async fn in_hand(service: &Process) -> Result<f64> {
    service.metric(SERIES).await?.context("no such series")
}

async fn stored(system: &System) -> Result<u64> {
    let jetstream = jetstream::new(system.nats().client().await?);
    let stream = jetstream.get_stream(Side::Orders.stream()).await?;
    Ok(stream.cached_info().state.messages)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_waits_for_its_database_shows_since_when() {
    let system = System::start().await.unwrap();
    let client = Client::new(&system, Transport::Grpc).await.unwrap();
    let customer = client.create_customer("Ada", euros(100)).await.unwrap();
    let service = system.process(Side::Customers.service());
    service.pause().unwrap();
    let before = UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
    client
        .create_order(&customer.customer_id, euros(5))
        .await
        .unwrap();
    eventually("the event", DEADLINE, async || {
        ensure!(stored(&system).await? == 1);
        Ok(Some(()))
    })
    .await
    .unwrap();
    let after = UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
    system.postgres().stop().await.unwrap();
    service.resume().unwrap();
    eventually("the event to be in hand", DEADLINE, async || {
        let since = in_hand(service).await?;
        ensure!(
            since > before - 0.001 && since < after,
            "{since}, {before} to {after}"
        );
        Ok(Some(()))
    })
    .await
    .unwrap();
    system.postgres().start_again().await.unwrap();
    books::settled(&system, DEADLINE)
        .await
        .unwrap()
        .assert_clean();
    assert_eq!(in_hand(service).await.unwrap(), 0.0);
}
