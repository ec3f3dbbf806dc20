//! The contenders that are ours to write, each in a process of its own (see `child`).

mod batches;
mod pipelined;
mod polling;

use std::io::BufRead;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde_json::{Value, json};

use super::{
    messages::Messages,
    wire::{INBOX, Wire},
};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    way: Way,
    #[arg(long)]
    nats: String,
    #[arg(long)]
    count: usize,
    #[arg(long)]
    messages: Option<PathBuf>,
    #[arg(long)]
    database: Option<String>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(super) enum Way {
    Pipelined,
    Batches,
    Polling,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    match arguments.way {
        Way::Pipelined => publish(arguments, pipelined::run),
        Way::Batches => publish(arguments, batches::run),
        Way::Polling => polling::run(arguments),
    }
}

fn publish(arguments: &Arguments, way: fn(&mut Wire, &Messages) -> Result<()>) -> Result<()> {
    let path = arguments.messages.as_ref().context("no messages")?;
    let messages = Messages::load(path, arguments.count)?;
    let mut wire = Wire::connect(&arguments.nats, INBOX)?;
    prepared(&json!({}))?;
    let begun = Instant::now();
    way(&mut wire, &messages)?;
    done(begun)
}

/// Says that all is prepared, and waits for the beginning.
fn prepared(what: &Value) -> Result<()> {
    println!("{what}");
    wait()
}

/// Says how long it took, and waits until it has been looked at.
fn done(begun: Instant) -> Result<()> {
    println!("{}", json!({ "seconds": begun.elapsed().as_secs_f64() }));
    wait()
}

fn wait() -> Result<()> {
    std::io::stdin().lock().read_line(&mut String::new())?;
    Ok(())
}
