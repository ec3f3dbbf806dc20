//! Clients that are too many, or do not behave: all else goes on within bounds.

#![allow(clippy::print_stdout, clippy::print_stderr)] // The test harness shows it with a failure.

mod clients;
mod idle;
mod load;

use std::time::Duration;

use harness::{Process, System};
use proto::orders::v1::GetOrderRequest;
use tonic::Code;
use uuid::Uuid;

/// What a service may have taken by then, whatever was done to it. At rest it is 14 MB; its pod may have 256.
const PEAK_KIB_MAX: u64 = 256 * 1024;

/// The most memory that a process has had.
fn peak_kib(process: &Process) -> u64 {
    of_status(process, "VmHWM:")
}

fn resident_kib(process: &Process) -> u64 {
    of_status(process, "VmRSS:")
}

fn of_status(process: &Process, name: &str) -> u64 {
    let pid = process.pid().expect("it runs");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next());
    number
        .and_then(|number| number.parse().ok())
        .expect("a number")
}

/// A client that connects now is answered soon.
async fn assert_answers(system: &System) {
    let request = GetOrderRequest {
        order_id: Uuid::now_v7().to_string(),
        ..GetOrderRequest::default()
    };
    let mut client = system.orders().expect("a client");
    let answer = tokio::time::timeout(Duration::from_secs(5), client.get_order(request)).await;
    let refused = answer
        .expect("an answer in time")
        .expect_err("no such order");
    assert_eq!(refused.code(), Code::NotFound, "{refused}");
}

/// Awaits that the service has so many connections at most.
async fn eventually_connections(system: &System, most: f64, within: Duration) {
    let service = system.process("order-service");
    let what = format!("{most} connections at most");
    let gone = harness::eventually(&what, within, async || {
        let open = service
            .metric("grpc_connections")
            .await?
            .unwrap_or_default();
        anyhow::ensure!(open <= most, "there are {open}");
        Ok(Some(()))
    });
    gone.await.expect("the others are closed");
}
