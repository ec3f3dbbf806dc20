//! `cargo xtask images --run`: the whole system from its images, by podman, as an overlay's manifests say: their
//! variables, secrets, files, users, limits, probes and replicas, on a network where services are found by name. Orders
//! are settled from outside by `shop`, the overlay's Job puts its load on, and everything is ended by SIGTERM.
//!
//! It is no cluster: what podman has nothing for (policies, budgets, spreading, restarts) is not tried.

mod cluster;
mod given;
mod objects;
mod pod;
mod report;
mod standin;

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use harness::http;

use self::cluster::Cluster;
use self::given::Caller;
use self::pod::Container;
use super::podman::Podman;
use super::{BINARIES, folder};
use crate::manifests::{self, object::Overlay};
use crate::shell;

/// What NATS' log has for what a user may not say or hear.
const REFUSED: &str = "Violation";
const GRPC: u64 = 50051;
const ADMIN: u64 = 9090;

/// Runs the overlay of that name. An error is whatever does not go as the README says.
pub(super) fn run(podman: Podman, name: &str) -> Result<()> {
    let Some(kubectl) = harness::tools::kubectl()? else {
        println!(
            "SKIPPED   the overlay {name} is not run: there is no kubectl here, which builds it"
        );
        return Ok(());
    };
    let overlay = manifests::build(&kubectl, name)?;
    shell::run(shell::cargo().args(["build", "--quiet", "--package", "shop"]))?;
    tokio::runtime::Runtime::new()?.block_on(async {
        tokio::select! {
            done = play(podman, overlay) => done,
            // What was started is taken away on the way out.
            _ = tokio::signal::ctrl_c() => bail!("interrupted"),
        }
    })
}

async fn play(podman: Podman, mut overlay: Overlay) -> Result<()> {
    let mut cluster = Cluster::new(podman)?;
    let caller = given::bring(&mut overlay, cluster.guard())?;
    let (jobs, kept): (Vec<_>, Vec<_>) = pod::containers(&overlay)?
        .into_iter()
        .partition(|container| container.ends);
    let mut instead = BTreeMap::new();
    for container in kept.iter().chain(&jobs) {
        if !instead.contains_key(&container.image) {
            instead.insert(container.image.clone(), standin::of(podman, container)?);
        }
    }
    for container in kept {
        let instead = instead[&container.image].as_ref();
        cluster.start(container, instead)?;
    }
    cluster.ready().await?;
    let names: Vec<_> = cluster
        .started()
        .iter()
        .map(|container| container.pod.as_str())
        .collect();
    println!("started all at once, and ready: {}", names.join(", "));
    settle(&cluster, &caller)?;
    for job in jobs {
        let instead = instead[&job.image].clone();
        report::of_load(&mut cluster, job, instead.as_ref(), &overlay.name)?;
    }
    tell_memory(&cluster).await?;
    nothing_refused(&cluster)?;
    end(&cluster)
}

/// As `deploy/README.md` says under *A settled order*; and one that the credit is not enough for.
fn settle(cluster: &Cluster, caller: &Caller) -> Result<()> {
    let shop = harness::binary("shop")?;
    let address = |service: &str| -> Result<String> {
        let found = cluster
            .started()
            .iter()
            .find(|container| container.of == service);
        let port = cluster.port(found.with_context(|| format!("no {service}"))?, GRPC)?;
        let scheme = if caller.tls { "https" } else { "http" };
        Ok(format!("{scheme}://localhost:{port}"))
    };
    let (orders, customers) = (address("order-service")?, address("customer-service")?);
    let ask = |arguments: &[&str]| -> Result<String> {
        let mut shop = Command::new(&shop);
        shop.args(arguments)
            .env("ORDERS_GRPC", &orders)
            .env("CUSTOMERS_GRPC", &customers);
        shop.envs(
            caller
                .environment
                .iter()
                .map(|(name, value)| (*name, value)),
        );
        let output = shell::capture(&mut shop)?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let err = String::from_utf8_lossy(&output.stderr);
        // An order that is cancelled is told by an exit status as well.
        ensure!(
            !said.trim().is_empty(),
            "shop {}: {}",
            arguments.join(" "),
            err.trim()
        );
        Ok(said)
    };
    let customer = ask(&["customer", "create", "Ada", "200", "EUR", "--quiet"])?;
    for (amount, outcome) in [("120", "approved"), ("90", "cancelled")] {
        let said = ask(&[
            "order",
            "create",
            customer.trim(),
            amount,
            "EUR",
            "--wait",
            "10s",
        ])?;
        ensure!(
            said.contains(outcome),
            "an order of {amount} is not {outcome}: {said}"
        );
        println!("an order of {amount} EUR, with a credit limit of 200 EUR: {outcome}");
    }
    Ok(())
}

async fn tell_memory(cluster: &Cluster) -> Result<()> {
    for container in cluster
        .started()
        .iter()
        .filter(|container| container.ports.contains(&ADMIN))
    {
        let (_, page) = http::get(cluster.port(container, ADMIN)?, "/metrics").await?;
        let bytes = page
            .lines()
            .find_map(|line| line.strip_prefix("process_resident_memory_bytes "));
        let bytes: f64 = bytes
            .and_then(|bytes| bytes.parse().ok())
            .context("no memory is told")?;
        println!("{} takes {:.0} MiB", container.pod, bytes / 1024.0 / 1024.0);
    }
    Ok(())
}

/// Nobody tried what its user may not: `users.conf` has all that they need.
fn nothing_refused(cluster: &Cluster) -> Result<()> {
    for container in cluster
        .started()
        .iter()
        .filter(|container| container.of == "nats")
    {
        let log = cluster.whole_log(container)?;
        let refused: Vec<_> = log.lines().filter(|line| line.contains(REFUSED)).collect();
        ensure!(
            refused.is_empty(),
            "{}: {}",
            container.pod,
            refused.join("\n")
        );
    }
    Ok(())
}

/// Our own processes end on SIGTERM by themselves, with 0, within their grace period.
fn end(cluster: &Cluster) -> Result<()> {
    let own = |container: &&Container| {
        !container.ends && BINARIES.iter().any(|name| container.image.contains(name))
    };
    for container in cluster.started().iter().filter(own) {
        let status = cluster.stop(container)?;
        ensure!(
            status == 0,
            "{} ended with {status} on SIGTERM; its log ends with\n{}",
            container.pod,
            cluster.log(container)?
        );
    }
    println!("on SIGTERM each ended with 0");
    Ok(())
}
