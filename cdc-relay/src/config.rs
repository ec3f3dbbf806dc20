//! The relay's configuration: from the environment, or flags of the same names.

use std::{str::FromStr, time::Duration};

use chassis::config::{Admin, DatabaseUrl, Nats, Shutdown, Telemetry};
use clap::{Args, Parser};

use crate::{subject::Template, wal::quote};

/// Publishes the rows of an outbox table to a NATS JetStream stream, in commit order, each once.
#[derive(Clone, Debug, Parser)]
#[command(name = "cdc-relay", version)]
pub struct Config {
    #[command(flatten)]
    pub source: Source,
    #[command(flatten)]
    pub stream: StreamConfig,
    /// Subject of an event; `{aggregatetype}`, `{aggregateid}` and `{type}` are the row's columns.
    #[arg(long, env = "CDC_SUBJECT", default_value = "events.{type}")]
    pub subject: Template,
    #[command(flatten)]
    pub nats: Nats,
    #[command(flatten)]
    pub admin: Admin,
    #[command(flatten)]
    pub telemetry: Telemetry,
    #[command(flatten)]
    pub shutdown: Shutdown,
}

/// Where the events come from.
#[derive(Args, Clone, Debug)]
pub struct Source {
    /// The database that holds the outbox, as `postgres://user:password@host:port/database`. The user
    /// needs REPLICATION, SELECT on the table, and ownership of it where the publication is missing.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: DatabaseUrl,
    /// The outbox table, with its schema.
    #[arg(long, env = "CDC_TABLE", default_value = "public.outbox")]
    pub table: Table,
    /// The replication slot; created where missing. One name for the whole Postgres server: relays of
    /// the same slot stand by for each other.
    #[arg(long, env = "CDC_SLOT", default_value = "cdc_relay", value_parser = slot_name)]
    pub slot: String,
    /// The publication; created where missing.
    #[arg(long, env = "CDC_PUBLICATION", default_value = "cdc_relay")]
    pub publication: String,
    /// Seconds after which Postgres frees the slot of a relay that has vanished without a word.
    #[arg(
        long,
        env = "CDC_WAL_SENDER_TIMEOUT_SECONDS",
        default_value_t = 10,
        value_parser = clap::value_parser!(u64).range(3..=3600)
    )]
    pub wal_sender_timeout_seconds: u64,
}

/// Where they go.
#[derive(Args, Clone, Debug)]
pub struct StreamConfig {
    /// The JetStream stream; created where missing. This relay must be its only writer.
    #[arg(long = "stream", env = "CDC_STREAM")]
    pub name: String,
    /// The subjects that the stream takes when it is created, separated by commas.
    #[arg(
        long = "stream-subjects",
        env = "CDC_STREAM_SUBJECTS",
        value_delimiter = ',',
        required = true
    )]
    pub subjects: Vec<String>,
    /// Servers that hold a copy of the stream when it is created: 1, 3 or 5.
    #[arg(
        long = "stream-replicas",
        env = "CDC_STREAM_REPLICAS",
        default_value_t = 1,
        value_parser = clap::value_parser!(u8).range(1..=5)
    )]
    pub replicas: u8,
    /// Seconds that the server remembers an event's id, when the stream is created. The relay does not
    /// rely on it.
    #[arg(
        long = "stream-duplicate-window-seconds",
        env = "CDC_STREAM_DUPLICATE_WINDOW_SECONDS",
        default_value_t = 120
    )]
    pub duplicate_window_seconds: u64,
}

impl Source {
    pub fn wal_sender_timeout(&self) -> Duration {
        Duration::from_secs(self.wal_sender_timeout_seconds)
    }
}

impl StreamConfig {
    pub fn duplicate_window(&self) -> Duration {
        Duration::from_secs(self.duplicate_window_seconds)
    }
}

/// A table's qualified name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    pub schema: String,
    pub name: String,
}

impl Table {
    /// For SQL.
    pub fn quoted(&self) -> String {
        format!("{}.{}", quote(&self.schema), quote(&self.name))
    }
}

impl FromStr for Table {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (schema, name) = text.split_once('.').unwrap_or(("public", text));
        if schema.is_empty() || name.is_empty() || name.contains('.') {
            return Err(format!(
                "`{text}` is not a table: write schema.table, such as public.outbox"
            ));
        }
        Ok(Self {
            schema: schema.to_owned(),
            name: name.to_owned(),
        })
    }
}

/// Postgres takes 63 characters; a little is kept back for the slot of the first copy.
const SLOT_NAME_MAX: usize = 50;

fn slot_name(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if text.is_empty() || text.len() > SLOT_NAME_MAX || !text.chars().all(fits) {
        return Err(format!(
            "`{text}` is not a slot's name: 1 to {SLOT_NAME_MAX} of a-z, 0-9 and _"
        ));
    }
    Ok(text.to_owned())
}
