//! `cargo xtask fuzz`: the relay's way from the wire to the record under libFuzzer, guided by coverage.
//! It begins with what a real Postgres sent, which a test of the relay records.
//!
//! The fuzzer is a workspace of its own under `cdc-relay/fuzz`. It needs a C++ compiler, and no other
//! toolchain: rustc instruments by the same LLVM pass that `cargo fuzz` asks it for.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::shell;

/// Coverage for libFuzzer: counters at every edge, their table, and what comparisons compare.
const INSTRUMENT: [&str; 6] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cllvm-args=-simplifycfg-branch-fold-threshold=0",
];

/// The largest input: two chunks with rows of every kind fit.
const INPUT_BYTES_MAX: u32 = 32 * 1024;

/// More than this for one input is a finding.
const MEMORY_MIB_MAX: u32 = 512;
const INPUT_SECONDS_MAX: u32 = 10;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How long
    #[arg(default_value_t = 60)]
    seconds: u64,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let folder = shell::root().join("cdc-relay/fuzz");
    let target = shell::root().join("target/fuzz");
    let [corpus, seeds, found] = ["corpus", "seeds", "found"].map(|name| target.join(name));
    for folder in [&corpus, &seeds, &found] {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    println!("── what Postgres sends");
    shell::run(
        shell::cargo()
            .args(["test", "--quiet", "-p", "cdc-relay", "--test", "decoder"])
            .args(["--", "broken_messages"])
            .env("CDC_FUZZ_SEEDS", &seeds),
    )?;
    println!("── the fuzzer");
    let program = build(&folder, &target)?;
    let mut fuzzer = shell::command(program);
    fuzzer
        .args([&corpus, &seeds])
        .arg(format!("-max_total_time={}", arguments.seconds))
        .arg(format!("-max_len={INPUT_BYTES_MAX}"))
        .arg(format!("-rss_limit_mb={MEMORY_MIB_MAX}"))
        .arg(format!("-timeout={INPUT_SECONDS_MAX}"))
        .arg(format!("-artifact_prefix={}/", found.display()))
        .args(["-print_final_stats=1", "-use_value_profile=1"]);
    shell::run(&mut fuzzer).with_context(|| {
        format!(
            "the fuzzer found something: give the file in {} to the same program to see it again",
            found.display()
        )
    })
}

/// Builds the fuzzer with the versions of the tree's lock file.
fn build(folder: &Path, target: &Path) -> Result<std::path::PathBuf> {
    fs::copy(shell::root().join("Cargo.lock"), folder.join("Cargo.lock"))?;
    let host = host()?;
    shell::run(
        shell::cargo()
            .current_dir(folder)
            .args(["build", "--release", "--target", &host])
            .env("CARGO_TARGET_DIR", target)
            .env("RUSTFLAGS", INSTRUMENT.join(" ")),
    )?;
    Ok(target.join(host).join("release/wire"))
}

/// Named, so that build scripts are not instrumented with the rest.
fn host() -> Result<String> {
    let output = shell::capture(shell::command("rustc").arg("-vV"))?;
    let text = String::from_utf8(output.stdout)?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    ensure!(
        output.status.success(),
        "rustc -vV ended with {}",
        output.status
    );
    host.map(str::to_owned).context("rustc names no host")
}
