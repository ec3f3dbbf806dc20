//! What the environment sets. `--help` shows all of it; every flag has a variable.

use std::time::Duration;

use chassis::config::{Admin, DatabaseUrl, Nats, Shutdown, Telemetry, Value};
use clap::{Args, Parser};

use crate::{subject::Template, wal::quote};

/// Publishes the rows of an outbox table to a NATS JetStream stream: in commit order, each once.
#[derive(Clone, Debug, Parser)]
#[command(name = "cdc-relay", version)]
pub struct Config {
    #[command(flatten)]
    pub source: Source,
    #[command(flatten)]
    pub stream: StreamConfig,
    /// The subject of an event: `{aggregatetype}`, `{aggregateid}` and `{type}` stand for the row's columns
    #[arg(id = "CDC_SUBJECT", long = "cdc-subject", env = "CDC_SUBJECT",
          default_value = "events.{type}", value_parser = Value::new(subject, "events.{type}"))]
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
    /// The database that holds the outbox, as a libpq URL; the user needs REPLICATION, SELECT on the
    /// table and TEMP on the database, and, where the publication is still to be created, CREATE on the
    /// database and ownership of the table
    #[arg(id = "DATABASE_URL", long = "database-url", env = "DATABASE_URL", hide_env_values = true,
          value_parser = Value::secret(|given| given.parse::<DatabaseUrl>(),
                                       "postgres://user:password@127.0.0.1:5432/orders"))]
    pub database_url: DatabaseUrl,

    /// The outbox table, with its schema
    #[arg(id = "CDC_TABLE", long = "cdc-table", env = "CDC_TABLE", default_value = "public.outbox",
          value_parser = Value::new(table, "public.outbox"))]
    pub table: Table,

    /// The replication slot, created where missing; its name is taken for the whole Postgres server,
    /// and relays of one slot stand by for each other
    #[arg(id = "CDC_SLOT", long = "cdc-slot", env = "CDC_SLOT", default_value = "cdc_relay",
          value_parser = Value::new(slot_name, "orders_relay"))]
    pub slot: String,

    /// The publication, created where missing
    #[arg(id = "CDC_PUBLICATION", long = "cdc-publication", env = "CDC_PUBLICATION",
          default_value = "cdc_relay", value_parser = Value::new(name, "cdc_relay"))]
    pub publication: String,

    /// After how many seconds Postgres frees the slot of a relay that has vanished without a word
    #[arg(id = "CDC_WAL_SENDER_TIMEOUT_SECONDS", long = "cdc-wal-sender-timeout-seconds",
          env = "CDC_WAL_SENDER_TIMEOUT_SECONDS", default_value = "10",
          value_parser = Value::new(timeout, "10"))]
    pub wal_sender_timeout_seconds: u64,
}

/// Where they go.
#[derive(Args, Clone, Debug)]
pub struct StreamConfig {
    /// The JetStream stream, created where missing; this relay must be its only writer
    #[arg(id = "CDC_STREAM", long = "cdc-stream", env = "CDC_STREAM",
          value_parser = Value::stream("ORDERS"))]
    pub name: String,

    /// The subjects that the stream takes when it is created, comma separated
    #[arg(id = "CDC_STREAM_SUBJECTS", long = "cdc-stream-subjects", env = "CDC_STREAM_SUBJECTS",
          value_delimiter = ',', required = true, value_parser = Value::new(name, "events.orders.>"))]
    pub subjects: Vec<String>,

    /// How many servers hold a copy of the stream when it is created: 1, 3 or 5
    #[arg(id = "CDC_STREAM_REPLICAS", long = "cdc-stream-replicas", env = "CDC_STREAM_REPLICAS",
          default_value = "1", value_parser = Value::new(replicas, "3"))]
    pub replicas: u8,

    /// How many seconds the server remembers an event's id, when the stream is created; the relay does
    /// not rely on it
    #[arg(id = "CDC_STREAM_DUPLICATE_WINDOW_SECONDS", long = "cdc-stream-duplicate-window-seconds",
          env = "CDC_STREAM_DUPLICATE_WINDOW_SECONDS", default_value = "120",
          value_parser = Value::new(window, "120"))]
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

/// Postgres takes 63 characters; a little is kept back for the slot of the first copy.
const SLOT_NAME_MAX: usize = 50;

fn subject(given: &str) -> Result<Template, String> {
    given.parse().map_err(|error| format!("{error}"))
}

fn table(given: &str) -> Result<Table, String> {
    let (schema, name) = given.split_once('.').unwrap_or(("public", given));
    if schema.is_empty() || name.is_empty() || name.contains('.') {
        return Err("must be a table with its schema".to_owned());
    }
    Ok(Table {
        schema: schema.to_owned(),
        name: name.to_owned(),
    })
}

fn slot_name(given: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if given.is_empty() || given.len() > SLOT_NAME_MAX || !given.chars().all(fits) {
        return Err(format!("must be 1 to {SLOT_NAME_MAX} of a-z, 0-9 and _"));
    }
    Ok(given.to_owned())
}

fn name(given: &str) -> Result<String, String> {
    if given.is_empty() || given.contains(char::is_whitespace) {
        return Err("must not be empty or hold blanks".to_owned());
    }
    Ok(given.to_owned())
}

fn timeout(given: &str) -> Result<u64, String> {
    number(given, 3, 3600)
}

fn replicas(given: &str) -> Result<u8, String> {
    match given.parse() {
        Ok(count @ (1 | 3 | 5)) => Ok(count),
        _ => Err("must be 1, 3 or 5".to_owned()),
    }
}

fn window(given: &str) -> Result<u64, String> {
    number(given, 1, 86_400)
}

fn number(given: &str, least: u64, most: u64) -> Result<u64, String> {
    match given.parse() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(format!("must be a number from {least} to {most}")),
    }
}
