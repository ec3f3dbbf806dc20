//! The command line: one module a subcommand, all over the same configuration.

pub mod check;
pub mod init;
pub mod quarantine;
pub mod reconcile;
pub mod run;
pub mod status;

use std::{env, ffi::OsString};

use clap::{
    Arg, Args as _, FromArgMatches as _, Subcommand, builder::Resettable, error::ErrorKind,
};

use self::{
    check::Check, init::Init, quarantine::Quarantine, reconcile::Reconcile, run::Run,
    status::StatusOf,
};
use crate::config;

/// The version, and the commit that it was built from.
pub const VERSION: &str = env!("CDC_RELAY_VERSION");

#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Publish until told to stop; what happens without a subcommand
    Run(Run),
    /// Look whether everything is there that the relay needs, and name all that is wrong with its mend
    Check(Check),
    /// Show how things stand: slot, lag and stream; needs no relay to run
    Status(StatusOf),
    /// Print the SQL that a database needs for the relay
    Init(Init),
    /// Compare the table with the stream, and publish what is missing if asked to
    Reconcile(Reconcile),
    Quarantine(Box<Quarantine>),
}

/// Reads the command line, the environment and the file; ends the process with what is wrong.
pub fn parse() -> Command {
    let given: Vec<OsString> = env::args_os().collect();
    read(&given).unwrap_or_else(|error| error.exit())
}

fn read(given: &[OsString]) -> Result<Command, clap::Error> {
    let command = command().mut_args(without_empty);
    let command = command.mut_subcommands(|subcommand| subcommand.mut_args(without_empty));
    let command = config::apply_file(command, given)
        .map_err(|wrong| clap::Error::raw(ErrorKind::ValueValidation, wrong + "\n"))?;
    let matches = command.try_get_matches_from(given)?;
    match matches.subcommand_name() {
        Some(_) => Command::from_arg_matches(&matches)?,
        None => Command::Run(Run::from_arg_matches(&matches)?),
    }
    .completed()
}

impl Command {
    /// Works out what follows from other settings.
    fn completed(mut self) -> Result<Self, clap::Error> {
        let config = match &mut self {
            Self::Run(given) => &mut given.config,
            Self::Check(given) => &mut given.config,
            Self::Status(given) => &mut given.config,
            Self::Init(given) => &mut given.config,
            Self::Reconcile(given) => &mut given.config,
            Self::Quarantine(given) => &mut given.config,
        };
        *config = config.clone().completed()?;
        Ok(self)
    }
}

/// An empty variable is how a compose file says that it is not set.
fn without_empty(arg: Arg) -> Arg {
    let value = arg.get_env().and_then(env::var_os);
    if value.is_some_and(|value| value.is_empty()) {
        return arg.env(Resettable::Reset);
    }
    arg
}

fn command() -> clap::Command {
    let command = clap::Command::new("cdc-relay").version(VERSION);
    // Without a subcommand it takes the arguments of `run`.
    Command::augment_subcommands(Run::augment_args(command))
        .about("Publishes the rows of an outbox table to a NATS JetStream stream: in commit order, each once")
        .subcommand_required(false)
        .arg_required_else_help(false)
        .subcommand_negates_reqs(true)
        .args_conflicts_with_subcommands(true)
        .disable_help_subcommand(true)
}

#[cfg(test)]
mod tests;
