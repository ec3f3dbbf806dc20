//! What flags, environment and file set. The arguments here are the only description of it: `--help`,
//! the checks of values and the keys of the file are all made of them.
//!
//! ```text
//! flag ─ else ─ environment ─ else ─ file ─ else ─ default
//! ```

mod file;
mod keys;
mod message;
mod source;
mod spool;
mod stream;
mod value;

use std::path::PathBuf;

use chassis::config::{Admin, Nats, Shutdown, Telemetry};
use clap::Args;

pub use self::{
    file::apply as apply_file,
    message::Message,
    source::{Source, Table},
    spool::{Spool, Streaming},
    stream::StreamConfig,
};

/// Everything that is set. A group is a section of the file (`keys.rs` names them).
#[derive(Args, Clone, Debug)]
pub struct Config {
    /// A TOML file with what neither flags nor the environment set, by sections
    #[arg(
        id = "CDC_CONFIG",
        long = "config",
        env = "CDC_CONFIG",
        value_name = "FILE"
    )]
    pub file: Option<PathBuf>,
    #[command(flatten, next_help_heading = "[source]")]
    pub source: Source,
    #[command(flatten, next_help_heading = "[message]")]
    pub message: Message,
    #[command(flatten, next_help_heading = "[stream]")]
    pub stream: StreamConfig,
    #[command(flatten, next_help_heading = "[spool]")]
    pub spool: Spool,
    #[command(flatten, next_help_heading = "[nats]")]
    pub nats: Nats,
    #[command(flatten, next_help_heading = "[admin]")]
    pub admin: Admin,
    #[command(flatten, next_help_heading = "[telemetry]")]
    pub telemetry: Telemetry,
    #[command(flatten, next_help_heading = "[shutdown]")]
    pub shutdown: Shutdown,
}
