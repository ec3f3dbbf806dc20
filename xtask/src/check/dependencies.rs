//! cargo-deny over the dependencies, as `deny.toml` says.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use super::Outcome;
use crate::shell;

/// The version that is built where none is installed.
const VERSION: &str = "0.20.2";
/// The advisory database comes over the network from elsewhere than the dependencies.
const UNREACHABLE: [&str; 3] = [
    "failed to fetch advisory database",
    "failed to load advisory database",
    "failed to fetch advisories",
];

pub(crate) fn run() -> Result<Outcome> {
    let deny = cargo_deny()?;
    let check = |what: &[&str]| {
        let mut command = shell::command(&deny);
        command.arg("check").args(what);
        command
    };
    shell::run(&mut check(&["bans", "licenses", "sources"]))?;

    let advisories = shell::capture(&mut check(&["advisories"]))?;
    let said = String::from_utf8_lossy(&advisories.stderr);
    eprint!("{said}");
    if advisories.status.success() {
        return Ok(Outcome::Fine);
    }
    if UNREACHABLE.iter().any(|words| said.contains(words)) {
        return Ok(Outcome::Skipped(
            "of it, the advisories: their database cannot be fetched here. Bans, licences and \
             sources are fine"
                .to_owned(),
        ));
    }
    anyhow::bail!(
        "cargo deny check advisories ended with {}",
        advisories.status
    )
}

/// The installed cargo-deny, or one that is built once and kept in the cache.
fn cargo_deny() -> Result<PathBuf> {
    if shell::capture(shell::command("cargo-deny").arg("--version"))
        .is_ok_and(|output| output.status.success())
    {
        return Ok("cargo-deny".into());
    }
    let cache = harness::tools::cache_directory()?;
    let kept = cache.join(format!("cargo-deny-{VERSION}"));
    let program = kept.join("bin/cargo-deny");
    if program.is_file() {
        return Ok(program);
    }
    println!("building cargo-deny {VERSION}, once; this takes some minutes …");
    // Installed beside its place and renamed: a killed build leaves nothing that looks done.
    let partial = cache.join(format!("cargo-deny-{VERSION}.{}", std::process::id()));
    shell::run(
        shell::cargo()
            .args([
                "install",
                "--quiet",
                "--locked",
                "--version",
                VERSION,
                "--root",
            ])
            .arg(&partial)
            .arg("cargo-deny"),
    )
    .context(
        "cargo-deny is not installed and cannot be built; `cargo install cargo-deny` may tell more",
    )?;
    let renamed = std::fs::rename(&partial, &kept);
    ensure!(
        renamed.is_ok() || program.is_file(),
        "cannot keep cargo-deny in {}",
        kept.display()
    );
    Ok(program)
}
