//! What becomes of transactions that are too large for Postgres to hold in memory.

use std::path::PathBuf;

use chassis::config::Value;
use clap::{Args, ValueEnum};

use super::value::number;
use crate::spool::Settings;

/// Where large transactions wait for their commit.
#[derive(Args, Clone, Debug)]
pub struct Spool {
    /// Whether Postgres sends large transactions while they run; they wait for their commit on this
    /// machine's disk. When off, Postgres holds them back on its own
    #[arg(
        id = "CDC_STREAMING",
        long = "cdc-streaming",
        env = "CDC_STREAMING",
        value_enum,
        default_value = "on"
    )]
    pub streaming: Streaming,

    /// Where they wait: a directory on a disk, not in memory; by default TMPDIR, or else /var/tmp
    #[arg(
        id = "CDC_SPOOL_DIRECTORY",
        long = "cdc-spool-directory",
        env = "CDC_SPOOL_DIRECTORY"
    )]
    pub directory: Option<PathBuf>,

    /// How many bytes they may take there; over that the relay goes on with streaming off
    #[arg(id = "CDC_SPOOL_BYTES_MAX", long = "cdc-spool-bytes-max", env = "CDC_SPOOL_BYTES_MAX",
          default_value = "10737418240", value_parser = Value::new(bytes, "10737418240"))]
    pub bytes_max: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Streaming {
    On,
    Off,
}

impl Spool {
    pub fn is_on(&self) -> bool {
        self.streaming == Streaming::On
    }

    pub fn settings(&self) -> Settings {
        // Often /tmp is in memory, which is what this is to spare.
        let default = || std::env::var_os("TMPDIR").map_or("/var/tmp".into(), PathBuf::from);
        Settings {
            directory: self.directory.clone().unwrap_or_else(default),
            bytes_max: self.bytes_max,
        }
    }
}

fn bytes(given: &str) -> Result<u64, String> {
    number(given, 1 << 20, 1 << 50)
}
