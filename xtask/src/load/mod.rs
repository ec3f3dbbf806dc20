//! `cargo xtask load`: starts the whole system on this machine, puts load on it by `loadgen`, and writes the
//! report. Everything that was started is gone afterwards.

mod opinion;
mod second;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use harness::System;

use crate::bench::release;
use crate::shell;

const PACKAGES: [&str; 5] = [
    "order-service",
    "customer-service",
    "cdc-relay",
    "loadgen",
    "shop",
];
/// Where the report goes, below the target folder.
const FOLDER: &str = "load";

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Builds for release: what is measured otherwise is a build for debugging
    #[arg(long)]
    release: bool,
    /// Asks h2load as well, which shares no code with loadgen, whether the figures of a modest load are right
    #[arg(long)]
    second_opinion: bool,
    /// Takes the binaries beside this program as they are
    #[arg(long, hide = true)]
    no_build: bool,
    /// Passed on to loadgen: `--rate 500 --via nats`; its --help shows all
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "LOADGEN OPTIONS"
    )]
    passed_on: Vec<String>,
}

/// The exit status is loadgen's.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    harness::tools::postgres_bin()?;
    harness::tools::nats_server()?;
    if !arguments.no_build {
        if arguments.release {
            release::build_and_run(1, &PACKAGES)?;
        }
        shell::run(shell::cargo().args(["build", "--workspace", "--bins"]))?;
    }
    let runtime = tokio::runtime::Runtime::new()?;
    let binary = harness::binary("loadgen")?;
    let target = binary.parent().and_then(Path::parent);
    let folder = target.context("a program without a target folder")?;
    let folder = folder.join(FOLDER);
    std::fs::create_dir_all(&folder)?;
    if arguments.second_opinion {
        return runtime.block_on(second::compare(&folder));
    }
    runtime.block_on(load(arguments, &binary, &folder))
}

async fn load(arguments: &Arguments, binary: &Path, folder: &Path) -> Result<ExitCode> {
    let system = System::start().await?;
    let given = |option: &str| {
        arguments
            .passed_on
            .iter()
            .any(|one| one.starts_with(option))
    };
    let mut command = tokio::process::Command::new(binary);
    command.args(&arguments.passed_on);
    for kind in ["html", "json"] {
        let option = format!("--{kind}");
        if !given(&option) {
            let path = folder.join(format!("report.{kind}"));
            println!("the report: {}", path.display());
            command.arg(option).arg(path);
        }
    }
    let status = command
        .env("ORDERS_GRPC", system.grpc_url("order-service"))
        .env("CUSTOMERS_GRPC", system.grpc_url("customer-service"))
        .env("NATS_URL", system.nats().url())
        .status()
        .await
        .context("cannot run loadgen")?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}
