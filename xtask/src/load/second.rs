//! `cargo xtask load --second-opinion`: the same load by `loadgen` and by h2load, one after the other on one system, and
//! whether they agree. h2load is nghttp2's, in C: no line, no clock and no HTTP/2 of it is ours. It knows nothing of
//! gRPC, so what each request came to is the Order Service's to say: its counters have to have as many OK as h2load sent.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, ensure};
use harness::System;
use prost::Message as _;
use proto::money::v1::Money;
use proto::orders::v1::{CreateOrderRequest, GetOrderRequest};

use super::opinion::{Operation, Opinion, judge};
use crate::shell;

/// Passes of each, in turns, of which the medians count: what else runs on the machine meets both.
const PASSES: usize = 3;
/// Requests a second, half of them creates and half reads: far below saturation, where both keep up.
const RATE: u64 = 200;
/// What is counted, after what is not.
const SECONDS: u64 = 12;
const WARM_UP_SECONDS: u64 = 3;
const OPERATIONS: [(Operation, &str); 2] = [
    (Operation::Create, "CreateOrder"),
    (Operation::Get, "GetOrder"),
];
/// More than are ever on their way at this rate.
const STREAMS: &str = "--max-concurrent-streams=128";

pub(super) async fn compare(folder: &Path) -> Result<ExitCode> {
    let Ok(found) = shell::capture(Command::new("h2load").arg("--version")) else {
        println!(
            "SKIPPED   the second opinion: h2load is not installed (Debian's package nghttp2-client)"
        );
        return Ok(ExitCode::SUCCESS);
    };
    println!("{}", String::from_utf8_lossy(&found.stdout).trim());
    let system = System::builder().tokens().start().await?;
    let token = system.issuer().context("no tokens")?.operator();
    let rig = Rig {
        folder: folder.join("second"),
        token,
    };
    if rig.folder.exists() {
        fs::remove_dir_all(&rig.folder)?;
    }
    fs::create_dir_all(&rig.folder)?;
    fs::write(rig.token_file(), &rig.token)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let requests = rig.requests(&system)?;
    for pass in 0..PASSES {
        println!("pass {} of {PASSES}", pass + 1);
        ours.push(rig.loadgen(&system)?);
        let before = answered(&system).await?;
        let (opinion, sent) = rig.h2load(&system, &requests)?;
        let after = answered(&system).await?;
        for (index, (_, method)) in OPERATIONS.iter().enumerate() {
            let well = after[index] - before[index];
            ensure!(
                well == sent[index],
                "h2load sent {} {method}, and {well} were answered with OK: is the machine too busy?",
                sent[index]
            );
        }
        theirs.push(opinion);
    }
    Ok(judge(RATE, &ours, &theirs))
}

/// What each request came to, by the service that answered it.
async fn answered(system: &System) -> Result<[u64; 2]> {
    let mut found = [0; 2];
    for (index, (_, method)) in OPERATIONS.iter().enumerate() {
        let series = format!(
            "rpc_requests_total{{transport=\"grpc\",method=\"/orders.v1.OrderService/{method}\",code=\"OK\"}}"
        );
        let value = system.process("order-service").metric(&series).await?;
        found[index] = value.unwrap_or_default() as u64;
    }
    Ok(found)
}

struct Rig {
    folder: PathBuf,
    token: String,
}

impl Rig {
    fn token_file(&self) -> PathBuf {
        self.folder.join("token")
    }

    /// The bodies that h2load sends: an order of a customer whose credit is enough for all, and that order's id.
    fn requests(&self, system: &System) -> Result<[PathBuf; 2]> {
        let customer = self.shop(
            system,
            &["customer", "create", "h2load", "1000000000", "EUR"],
        )?;
        let order_id = self.shop(system, &["order", "create", &customer, "1", "EUR"])?;
        let total = Money {
            minor_units: 100,
            currency: "EUR".to_owned(),
        };
        let create = CreateOrderRequest {
            customer_id: customer,
            total: Some(total),
            // Every request is one of its own.
            request_id: String::new(),
            wait: None,
        };
        let get = GetOrderRequest {
            order_id,
            wait: None,
        };
        Ok([
            self.body("create", &create.encode_to_vec())?,
            self.body("get", &get.encode_to_vec())?,
        ])
    }

    /// As gRPC frames a message: not compressed, its length, and itself.
    fn body(&self, name: &str, message: &[u8]) -> Result<PathBuf> {
        let length = u32::try_from(message.len())?.to_be_bytes();
        let path = self.folder.join(name);
        fs::write(&path, [&[0], &length[..], message].concat())?;
        Ok(path)
    }

    fn shop(&self, system: &System, arguments: &[&str]) -> Result<String> {
        let mut shop = Command::new(harness::binary("shop")?);
        shop.args(arguments)
            .arg("--quiet")
            .env("SHOP_TOKEN_FILE", self.token_file());
        shop.env("ORDERS_GRPC", system.grpc_url("order-service"));
        shop.env("CUSTOMERS_GRPC", system.grpc_url("customer-service"));
        let output = shell::capture(&mut shop)?;
        let why = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "shop {}: {}",
            arguments.join(" "),
            why.trim()
        );
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    fn loadgen(&self, system: &System) -> Result<Opinion> {
        let report = self.folder.join("loadgen.json");
        let mut command = Command::new(harness::binary("loadgen")?);
        // One customer, evenly spaced, nobody who waits for outcomes, and no ids by which the service would keep
        // answers: as h2load does.
        command.args([
            "--arrivals=constant",
            "--customers=1",
            "--connections=2",
            "--track=0%",
            "--without-request-ids",
        ]);
        command.args(["--mix=create=50,get=50", &format!("--rate={RATE}")]);
        command
            .arg(format!("--duration={SECONDS}s"))
            .arg(format!("--warm-up={WARM_UP_SECONDS}s"));
        command
            .arg("--json")
            .arg(&report)
            .arg("--token-file")
            .arg(self.token_file());
        command.env("ORDERS_GRPC", system.grpc_url("order-service"));
        command.env("CUSTOMERS_GRPC", system.grpc_url("customer-service"));
        let output = shell::capture(&mut command)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "loadgen: {}", said.trim());
        Opinion::of_loadgen(&serde_json::from_slice(&fs::read(&report)?)?)
    }

    /// Both operations at once, a process each; what it says of them, and how many of each it sent.
    fn h2load(&self, system: &System, requests: &[PathBuf; 2]) -> Result<(Opinion, [u64; 2])> {
        let rate = RATE / 2;
        let count = rate * (WARM_UP_SECONDS + SECONDS);
        let mut running = Vec::new();
        for ((_, method), body) in OPERATIONS.iter().zip(requests) {
            let log = body.with_extension("log");
            let _ = fs::remove_file(&log);
            let mut command = Command::new("h2load");
            command.args([
                "--clients=1",
                "--threads=1",
                STREAMS,
                &format!("--rps={rate}"),
            ]);
            command
                .arg(format!("--requests={count}"))
                .arg("--data")
                .arg(body);
            command.args([
                "--header=content-type: application/grpc",
                "--header=te: trailers",
            ]);
            command.arg(format!("--header=authorization: Bearer {}", self.token));
            command.arg(format!("--log-file={}", log.display()));
            let url = system.grpc_url("order-service");
            command.arg(format!("{url}/orders.v1.OrderService/{method}"));
            let child = command
                .stdout(Stdio::null())
                .stderr(Stdio::inherit())
                .spawn();
            running.push((child.context("cannot run h2load")?, log));
        }
        let (mut logs, mut sent) = (Vec::new(), [0; 2]);
        for (index, (mut child, log)) in running.into_iter().enumerate() {
            ensure!(child.wait()?.success(), "h2load failed");
            let text = fs::read_to_string(&log)?;
            sent[index] = text.lines().count() as u64;
            logs.push(text);
        }
        let opinion = Opinion::of_h2load([&logs[0], &logs[1]], WARM_UP_SECONDS, SECONDS)?;
        Ok((opinion, sent))
    }
}
