//! `shop`: orders and customers from the command line, for people and for scripts.
//!
//! A command is one request, or a few, to the services: over gRPC, or over NATS, with the same answers. What
//! is asked for goes to standard output, all else to standard error.

mod amount;
mod cli;
mod customer;
mod failure;
mod letters;
mod list;
mod order;
mod outcome;
mod reach;
mod show;

use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _};

use self::cli::{Cli, Command};
use self::failure::Failure;
use self::reach::Services;
use self::show::Out;

fn main() -> ExitCode {
    let matches = cli::command().get_matches();
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => error.format(&mut Cli::command()).exit(),
    };
    match cli.command {
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut cli::command(), "shop", &mut std::io::stdout());
            return ExitCode::SUCCESS;
        }
        Command::RequestId => {
            let printed = Out::new(&cli.output).line(&uuid::Uuid::now_v7().to_string());
            return printed.map_or_else(Failure::report, |()| ExitCode::SUCCESS);
        }
        _ => {}
    }
    let via = cli.connection.via(&matches);
    let outcome = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::from)
        .and_then(|runtime| runtime.block_on(run(cli, via)));
    outcome.unwrap_or_else(|failure| failure.report())
}

async fn run(cli: Cli, via: cli::Via) -> Result<ExitCode, Failure> {
    let mut out = Out::new(&cli.output);
    let services = Services::reach(&cli.connection, via).await?;
    match cli.command {
        Command::Customer(command) => customer::run(command, &services, &mut out).await,
        Command::Order(command) => order::run(command, &services, &mut out).await,
        Command::DeadLetters(command) => letters::run(command, &services, &mut out).await,
        Command::Completions { .. } | Command::RequestId => Ok(ExitCode::SUCCESS),
    }
}
