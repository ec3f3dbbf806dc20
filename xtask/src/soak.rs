//! `cargo xtask soak`: hundreds of rounds of faults drawn at random, on one system of real servers, with
//! the stream compared with the commits after each.

use std::time::Instant;

use anyhow::Result;

use crate::shell;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How long to play
    #[arg(long, default_value_t = 30)]
    minutes: u64,
    /// Draws the same faults as the run that printed this seed
    #[arg(long)]
    seed: Option<u64>,
    /// Keeps the stream on a cluster of three nats-servers instead of one
    #[arg(long)]
    cluster: bool,
    /// Draws these faults alone, by their names, comma separated
    #[arg(long)]
    faults: Option<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let started = Instant::now();
    harness::tools::postgres_bin()?;
    harness::tools::nats_server()?;
    shell::run(shell::cargo().args(["build", "--package", "cdc-relay"]))?;
    let mut command = shell::cargo();
    command.args(["test", "--package", "cdc-relay", "--test", "soak", "--"]);
    command.args(["--nocapture", "--exact"]);
    command.arg(if arguments.cluster {
        "random_faults_on_a_cluster_leave_the_stream_exact"
    } else {
        "random_faults_on_one_server_leave_the_stream_exact"
    });
    command.env("SOAK_MINUTES", arguments.minutes.to_string());
    if let Some(seed) = arguments.seed {
        command.env("HARNESS_SEED", seed.to_string());
    }
    if let Some(faults) = &arguments.faults {
        command.env("SOAK_FAULTS", faults);
    }
    shell::run(&mut command)?;
    println!(
        "\nxtask soak: the stream was exact after each round, in {:.0} s",
        started.elapsed().as_secs_f64()
    );
    Ok(())
}
