//! Ten thousand clients that are there and do nothing.

use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use harness::System;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::{PEAK_KIB_MAX, assert_answers, eventually_connections, peak_kib, resident_kib};

const WANTED: usize = 10_000;
/// Files of this process and of the service that are needed besides.
const FILES_BESIDES: usize = 1000;
const AT_ONCE: usize = 128;
/// HTTP/2's preface and empty settings: a client that is connected, and has nothing to ask.
pub(crate) const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// Who answers no ping is gone after 30 s.
const GONE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_idle_connections_cost_little_and_hinder_nobody() {
    let limits = std::fs::read_to_string("/proc/self/limits").expect("Linux");
    let soft = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .and_then(|line| line.split_whitespace().next());
    let files = soft
        .and_then(|soft| soft.parse().ok())
        .unwrap_or(usize::MAX);
    let count = WANTED.min(files.saturating_sub(FILES_BESIDES));
    if count < WANTED {
        println!(
            "SKIPPED   of {WANTED} connections all but {count}: raise `ulimit -n`, which is {files}"
        );
    }
    let system = System::start().await.expect("the system starts");
    let service = system.process("order-service");
    let before = resident_kib(service);
    let begun = Instant::now();
    let address = system.grpc_url("order-service").replace("http://", "");
    let connect = (0..count).map(|_| async {
        let mut stream = TcpStream::connect(&address).await?;
        stream.write_all(HELLO).await?;
        Ok::<_, std::io::Error>(stream)
    });
    let connected: Vec<_> = stream::iter(connect)
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let connected: Vec<_> = connected
        .into_iter()
        .map(|one| one.expect("it connects"))
        .collect();
    let there = harness::eventually("all to be taken", GONE, async || {
        let open = service
            .metric("grpc_connections")
            .await?
            .unwrap_or_default();
        anyhow::ensure!(open >= count as f64, "so far {open}");
        Ok(Some(()))
    });
    // Those that came first are closed after 30 s, for they answer no ping.
    there.await.expect("all are taken at once");
    assert_answers(&system).await;
    let each = (resident_kib(service).saturating_sub(before)) as f64 / count as f64;
    println!(
        "{count} connections within {:?}: {each:.1} KiB each, the peak is {} MiB",
        begun.elapsed(),
        peak_kib(service) / 1024
    );
    assert!(
        peak_kib(service) < PEAK_KIB_MAX,
        "{} KiB",
        peak_kib(service)
    );
    drop(connected);
    eventually_connections(&system, 5.0, GONE).await;
    assert_answers(&system).await;
}
