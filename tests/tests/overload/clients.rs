//! Clients that go away, hang, or send what is no gRPC: each is noticed within a bounded time, and hinders
//! nobody.

use std::time::Duration;

use harness::{Link, System};
use proto::orders::v1::WatchOrderRequest;
use proto::orders::v1::order_service_client::OrderServiceClient;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::transport::Endpoint;
use uuid::Uuid;

use crate::idle::HELLO;
use crate::{PEAK_KIB_MAX, assert_answers, eventually_connections, peak_kib};

const EACH: usize = 50;
/// Who says nothing, or nothing sensible.
const SOON: Duration = Duration::from_secs(15);
/// Who has introduced himself, and answers no ping: 20 s and 10 s, and a margin.
const PINGED: Duration = Duration::from_secs(45);

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_hang_send_garbage_or_vanish_are_survived() {
    let system = System::start().await.expect("the system starts");
    let address = system.grpc_url("order-service").replace("http://", "");
    let link = Link::to(
        address
            .rsplit(':')
            .next()
            .and_then(|port| port.parse().ok())
            .expect("a port"),
    );
    let link = link.await.expect("a link");
    let half_open = half_open(&link).await;

    let mut silent = Vec::new();
    let mut half_frames = Vec::new();
    let mut garbage = Vec::new();
    for number in 0..EACH {
        silent.push(said(&address, b"").await);
        // The first half of what every client says.
        silent.push(said(&address, &HELLO[..12]).await);
        // A header frame of 100 bytes, of which three come.
        let half = [HELLO, b"\0\0\x64\x01\x04\0\0\0\x01abc"].concat();
        half_frames.push(said(&address, &half).await);
        let noise: Vec<u8> = (0..4096)
            .map(|byte| (byte * 31 + number * 7) as u8)
            .collect();
        garbage.push(said(&address, &noise).await);
        // Frames that are none, or the beginning of one that never ends.
        half_frames.push(said(&address, &[HELLO, &noise].concat()).await);
        garbage.push(said(&address, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await);
    }
    vanish_amid_calls(&system).await;
    assert_answers(&system).await;

    for stream in garbage.into_iter().chain(silent) {
        closed(stream, SOON).await;
    }
    for stream in half_frames {
        closed(stream, PINGED).await;
    }
    // What is left are those of this test that behave, and the one that is cut.
    link.cut();
    eventually_connections(&system, 4.0, PINGED).await;
    drop(half_open);
    let service = system.process("order-service");
    println!("the peak is {} MiB", peak_kib(service) / 1024);
    assert!(peak_kib(service) < PEAK_KIB_MAX);
    assert_answers(&system).await;
}

async fn said(address: &str, what: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("it connects");
    // The service may close before all of it is sent.
    let _ = stream.write_all(what).await;
    stream
}

/// The service ends the connection by itself.
async fn closed(mut stream: TcpStream, within: Duration) {
    let mut bytes = Vec::new();
    let ended = timeout(within, stream.read_to_end(&mut bytes)).await;
    assert!(
        ended.is_ok(),
        "open after {within:?}, having said {bytes:?}"
    );
}

/// A client behind a link that will be cut: neither end is told.
async fn half_open(link: &Link) -> OrderServiceClient<tonic::transport::Channel> {
    let address = format!("http://127.0.0.1:{}", link.port());
    let endpoint = Endpoint::from_shared(address).expect("an address");
    let mut client = OrderServiceClient::new(endpoint.connect().await.expect("it connects"));
    let order_id = Uuid::now_v7().to_string();
    let refused = client.watch_order(WatchOrderRequest { order_id }).await;
    refused.expect_err("no such order");
    client
}

/// Calls that wait, from clients that are gone before the answer: their places are free again.
async fn vanish_amid_calls(system: &System) {
    let service = system.process("order-service");
    let mut calls = Vec::new();
    for _ in 0..EACH {
        let mut client = system.orders().expect("a client");
        calls.push(tokio::spawn(async move {
            let request = proto::orders::v1::CreateOrderRequest {
                customer_id: Uuid::now_v7().to_string(),
                total: Some(proto::money::v1::Money {
                    minor_units: 1,
                    currency: "EUR".to_owned(),
                }),
                wait: Some(proto::Duration {
                    seconds: 20,
                    nanos: 0,
                }),
                ..Default::default()
            };
            client.create_order(request).await
        }));
    }
    let waiting = harness::eventually("calls in progress", SOON, async || {
        let found = service
            .metric("rpc_requests_in_flight{transport=\"grpc\"}")
            .await?;
        Ok((found.unwrap_or_default() > 0.0).then_some(()))
    });
    waiting.await.expect("they have begun");
    for call in &calls {
        call.abort();
    }
    let free = harness::eventually("no call in progress", SOON, async || {
        let found = service
            .metric("rpc_requests_in_flight{transport=\"grpc\"}")
            .await?;
        anyhow::ensure!(found == Some(0.0), "{found:?}");
        Ok(Some(()))
    });
    free.await.expect("nothing is left of them");
}
