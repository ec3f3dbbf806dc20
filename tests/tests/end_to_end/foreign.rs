//! Clients that this project did not write work against it: Python's grpcio, by reflection alone, and
//! nats-py with JSON.
//!
//! Their packages are fetched once, by version and hash, into the harness's cache. Where there is no
//! Python, or it cannot fetch them, the tests say `SKIPPED` and what is missing: they need no preparation. With
//! `FOREIGN_CLIENTS=require` they fail there.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output};

use anyhow::{Context, Result, bail, ensure};
use harness::{System, tools};

use crate::shared::on_shared_system;

const REQUIREMENTS: &str = include_str!("../foreign/requirements.txt");
/// The oldest CPython that the pinned packages are made for.
const PYTHON_OLDEST: (u32, u32) = (3, 10);

/// What pip says when nothing can be fetched here: no network, or no wheel for this platform. A wheel
/// that does not match its hash is not among it.
const UNAVAILABLE: [&str; 4] = [
    "No matching distribution found",
    "Could not find a version",
    "Temporary failure in name resolution",
    "Max retries exceeded",
];

/// Why there is no Python to run the clients with.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Missing(String);

#[test]
fn grpcio_finds_its_way_by_reflection_alone() {
    on_shared_system(async |system| {
        let address = |name| system.grpc_url(name).replace("http://", "");
        let (orders, customers) = (address("order-service"), address("customer-service"));
        approves(system, "grpc_client.py", &[orders, customers]).await;
    });
}

#[test]
fn nats_py_orders_in_json() {
    on_shared_system(async |system| {
        approves(system, "nats_client.py", &[system.nats().url()]).await;
    });
}

/// Runs a client, which ends well when its order was approved.
async fn approves(system: &System, script: &str, arguments: &[String]) {
    let Some(packages) = packages_or_say(script).await else {
        return;
    };
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/foreign")
        .join(script);
    let output = tokio::process::Command::from(python())
        .arg(script)
        .args(arguments)
        .env("PYTHONPATH", packages)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(system.directory())
        .kill_on_drop(true)
        .output()
        .await
        .expect("python3 runs");
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.starts_with("approved "),
        "{}: {said}{complained}",
        output.status
    );
}

/// The folder with the packages. Where there can be none, says that `what` is skipped.
pub(crate) async fn packages_or_say(what: &str) -> Option<PathBuf> {
    let fetched = tokio::task::spawn_blocking(packages).await;
    match fetched.expect("no panic") {
        Ok(packages) => Some(packages),
        Err(error) => {
            let required = std::env::var("FOREIGN_CLIENTS").is_ok_and(|value| value == "require");
            let missing =
                without(error, required).unwrap_or_else(|error| panic!("{what}: {error:?}"));
            say(&format!("{what}: SKIPPED: {missing}"));
            None
        }
    }
}

/// What is missing, where the tests may go without it.
fn without(error: anyhow::Error, required: bool) -> Result<Missing> {
    if !required {
        return error.downcast::<Missing>();
    }
    Err(error.context(
        "the clients that this project did not write cannot be had, and FOREIGN_CLIENTS=require asks for them",
    ))
}

#[test]
fn what_cannot_be_had_fails_where_somebody_requires_it() {
    let missing = || anyhow::Error::new(Missing("there is no python3".into()));
    let error = format!("{:?}", without(missing(), true).unwrap_err());
    assert!(error.contains("there is no python3"), "{error}");
    assert!(error.contains("FOREIGN_CLIENTS=require"), "{error}");
    without(missing(), false).unwrap();
    without(anyhow::Error::msg("a hash differs"), false).unwrap_err();
}

/// The folder with the packages, fetched where it is not there.
fn packages() -> Result<PathBuf> {
    let version = "import sys; print(sys.implementation.cache_tag, *sys.version_info[:2])";
    let output = python().args(["-c", version]).output();
    let Ok(output) = output else {
        bail!(Missing("there is no python3".into()));
    };
    let said = text(&output.stdout);
    let [tag, major, minor] = said.split_whitespace().collect::<Vec<_>>()[..] else {
        bail!(Missing(format!(
            "python3 does not work: {}",
            text(&output.stderr)
        )));
    };
    if (major.parse()?, minor.parse()?) < PYTHON_OLDEST {
        bail!(Missing(format!("python3 is {major}.{minor}")));
    }
    let cache = tools::cache_directory()?;
    let folder = cache.join(format!("foreign-clients-{:016x}-{tag}", fingerprint()));
    // One fetcher at a time, and a fetch that was killed leaves nothing that looks whole.
    let lock = File::create(cache.join("foreign-clients.lock"))?;
    lock.lock().context("cannot lock the cache folder")?;
    if folder.exists() {
        return Ok(folder);
    }
    let partial = folder.with_extension("partial");
    if partial.exists() {
        fs::remove_dir_all(&partial)?;
    }
    fetch(&partial)?;
    fs::rename(&partial, &folder)?;
    Ok(folder)
}

/// `pip install --target` and not a venv, whose making needs parts of Python that some systems split off.
fn fetch(folder: &std::path::Path) -> Result<()> {
    let pip = || {
        let mut pip = python();
        pip.args(["-m", "pip"])
            .env("PIP_USER", "0")
            .env("PIP_ROOT_USER_ACTION", "ignore")
            .env("PIP_DISABLE_PIP_VERSION_CHECK", "1");
        pip
    };
    if !pip().arg("--version").output()?.status.success() {
        bail!(Missing("python3 has no pip".into()));
    }
    let requirements = folder.with_extension("txt");
    fs::write(&requirements, REQUIREMENTS)?;
    let output: Output = pip()
        .args(["install", "--quiet", "--no-input", "--require-hashes"])
        .args(["--only-binary=:all:", "--no-deps", "--target"])
        .arg(folder)
        .arg("--requirement")
        .arg(&requirements)
        .output()?;
    let complained = text(&output.stderr);
    if !output.status.success() && UNAVAILABLE.iter().any(|why| complained.contains(why)) {
        bail!(Missing(format!(
            "pip cannot fetch the clients: {complained}"
        )));
    }
    ensure!(output.status.success(), "pip failed: {complained}");
    Ok(())
}

/// Names the folder after what is in it: other requirements are fetched anew.
fn fingerprint() -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    REQUIREMENTS.hash(&mut hasher);
    hasher.finish()
}

fn python() -> Command {
    Command::new("python3")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

/// To the terminal, past the test harness, which hides what a test that passes prints.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
