//! The developer's commands, as `cargo xtask …`. Each subcommand is a module.

// Speaking to a person at a terminal is what this program is for.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod bench;
mod check;
mod contract;
mod demo;
mod fuzz;
mod images;
mod load;
mod manifests;
mod request;
mod shell;
mod soak;
mod test;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// The developer's commands.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Starts the whole system on this machine and tells a story with it
    Demo(demo::Arguments),
    /// Sends one request to a service over NATS, in JSON
    Request(request::Arguments),
    /// Builds everything and runs all tests, on real Postgres and NATS
    Test(test::Arguments),
    /// Fuzzes the relay's decoder, from what a real Postgres sends
    Fuzz(fuzz::Arguments),
    /// Plays faults drawn at random against the relay, for as long as wanted
    Soak(soak::Arguments),
    /// Measures the relay beside its peers, or the whole system, in release builds
    Bench(bench::Arguments),
    /// Starts the whole system, puts load on it, and writes a report
    Load(load::Arguments),
    /// Builds the container images with buildah, and looks at them
    Images(images::Arguments),
    /// Checks format, lints, dependencies, the tree's own rules, and the protobuf contracts
    Check(check::Arguments),
    /// Adds to proto/contract.txt what the .proto files newly promise; refuses breaking changes
    Contract(contract::Arguments),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Demo(arguments) => return demo::run(&arguments),
        Command::Request(arguments) => request::run(&arguments),
        Command::Test(arguments) => test::run(&arguments),
        Command::Fuzz(arguments) => fuzz::run(&arguments),
        Command::Soak(arguments) => soak::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Load(arguments) => {
            return load::run(&arguments).unwrap_or_else(|error| report(Err(error)));
        }
        Command::Images(arguments) => images::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Contract(arguments) => contract::run(&arguments),
    };
    report(outcome)
}

fn report(outcome: Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
