//! `loadgen` as people and pipelines run it, on the whole system.

#![allow(clippy::print_stdout, clippy::print_stderr)] // The test harness shows it with a failure.

mod books;
mod omission;
mod report;
mod schema;
mod tokens;

use std::path::PathBuf;
use std::process::Stdio;

use harness::{System, binary};
use serde_json::Value;
use tokio::process::{Child, Command};

/// What a run left behind.
struct Ran {
    status: Option<i32>,
    said: String,
    report: Value,
    page: String,
}

/// A run under way.
struct Running {
    child: Child,
    json: PathBuf,
    html: PathBuf,
}

/// Starts a run called `name` with these options.
fn start(system: &System, name: &str, options: &[&str]) -> Running {
    let file = |kind: &str| system.directory().join(format!("{name}.{kind}"));
    let (json, html) = (file("json"), file("html"));
    let child = Command::new(binary("loadgen").expect("it is built"))
        .args(options)
        .arg("--json")
        .arg(&json)
        .arg("--html")
        .arg(&html)
        .env("ORDERS_GRPC", system.grpc_url("order-service"))
        .env("CUSTOMERS_GRPC", system.grpc_url("customer-service"))
        .env("NATS_URL", system.nats().url())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("it starts");
    Running { child, json, html }
}

impl Running {
    async fn ended(self) -> Ran {
        let output = self.child.wait_with_output().await.expect("it ends");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        println!("{said}");
        let read = |path| std::fs::read_to_string(path).unwrap_or_else(|_| panic!("{said}"));
        Ran {
            status: output.status.code(),
            report: serde_json::from_str(&read(&self.json)).expect("JSON"),
            page: read(&self.html),
            said,
        }
    }
}

async fn run(system: &System, name: &str, options: &[&str]) -> Ran {
    start(system, name, options).ended().await
}

impl Ran {
    fn count(&self, pointer: &str) -> u64 {
        let found = self.report.pointer(pointer).and_then(Value::as_u64);
        found.unwrap_or_else(|| panic!("no {pointer}"))
    }

    fn number(&self, pointer: &str) -> f64 {
        let found = self.report.pointer(pointer).and_then(Value::as_f64);
        found.unwrap_or_else(|| panic!("no {pointer}"))
    }
}
