//! Where the events go, and how the stream is made where it is missing.

use std::time::Duration;

use async_nats::jetstream::stream::{Compression, DiscardPolicy, StorageType};
use chassis::config::Value;
use clap::{Args, ValueEnum};

use super::value::{name, number};
use crate::quarantine;

/// Where they go.
#[derive(Args, Clone, Debug)]
pub struct StreamConfig {
    /// The JetStream stream, created where missing; this relay must be its only writer
    #[arg(id = "CDC_STREAM", long = "cdc-stream", env = "CDC_STREAM",
          value_parser = Value::stream("ORDERS"))]
    pub name: String,

    /// Whether the stream is created where it is missing: `missing`, or `never`
    #[arg(id = "CDC_STREAM_CREATE", long = "cdc-stream-create", env = "CDC_STREAM_CREATE",
          default_value = "missing", value_parser = Value::new(create, "never"))]
    pub create: Create,

    /// The subjects that the stream takes when it is created, comma separated; without them, all that
    /// CDC_SUBJECT can become
    #[arg(id = "CDC_STREAM_SUBJECTS", long = "cdc-stream-subjects", env = "CDC_STREAM_SUBJECTS",
          value_delimiter = ',', value_parser = Value::new(name, "events.orders.>"))]
    pub subjects: Vec<String>,

    /// How many servers hold a copy of the stream when it is created: 1, 3 or 5
    #[arg(id = "CDC_STREAM_REPLICAS", long = "cdc-stream-replicas", env = "CDC_STREAM_REPLICAS",
          default_value = "1", value_parser = Value::new(replicas, "3"))]
    pub replicas: u8,

    /// Where the stream is kept when it is created: `file`, or `memory`, which a restart empties
    #[arg(id = "CDC_STREAM_STORAGE", long = "cdc-stream-storage", env = "CDC_STREAM_STORAGE",
          default_value = "file", value_parser = Value::new(storage, "file"))]
    pub storage: StorageType,

    /// What the stream keeps: `limits`, everything up to its limits. Work queues and interest streams
    /// forget what was consumed, and with it where the relay has to go on
    #[arg(id = "CDC_STREAM_RETENTION", long = "cdc-stream-retention", env = "CDC_STREAM_RETENTION",
          default_value = "limits", value_parser = Value::new(retention, "limits"))]
    pub retention: Limits,

    /// Whether a transaction's events appear together: `whole`, all of them or none at any moment; or `apart`,
    /// one after the other, which is quicker where transactions are small, since JetStream makes and syncs files
    /// for what appears together
    #[arg(
        id = "CDC_TRANSACTIONS",
        long = "cdc-transactions",
        env = "CDC_TRANSACTIONS",
        value_enum,
        default_value = "whole"
    )]
    pub transactions: Transactions,

    /// After how many seconds the stream, when it is created, forgets an event; 0 for never
    #[arg(id = "CDC_STREAM_MAX_AGE_SECONDS", long = "cdc-stream-max-age-seconds",
          env = "CDC_STREAM_MAX_AGE_SECONDS", default_value = "0",
          value_parser = Value::new(age, "604800"))]
    pub max_age_seconds: u64,

    /// How many bytes the stream may take when it is created; 0 for no limit
    #[arg(id = "CDC_STREAM_MAX_BYTES", long = "cdc-stream-max-bytes", env = "CDC_STREAM_MAX_BYTES",
          default_value = "0", value_parser = Value::new(bytes, "10737418240"))]
    pub max_bytes: u64,

    /// How many bytes an event may have with its headers in the stream, when it is created; 0 for as many as
    /// the server takes. What consumers set aside must fit with what they add to it: leave them some room
    #[arg(id = "CDC_STREAM_MAX_MESSAGE_BYTES", long = "cdc-stream-max-message-bytes",
          env = "CDC_STREAM_MAX_MESSAGE_BYTES", default_value = "0",
          value_parser = Value::new(message_bytes, "1032192"))]
    pub max_message_bytes: i32,

    /// What gives way when the stream, as it is created, is full: `old` events are forgotten, or `new`
    /// ones wait in Postgres
    #[arg(id = "CDC_STREAM_DISCARD", long = "cdc-stream-discard", env = "CDC_STREAM_DISCARD",
          default_value = "old", value_parser = Value::new(discard, "new"))]
    pub discard: DiscardPolicy,

    /// How the stream is compressed when it is created: `none` or `s2`
    #[arg(id = "CDC_STREAM_COMPRESSION", long = "cdc-stream-compression",
          env = "CDC_STREAM_COMPRESSION", default_value = "none",
          value_parser = Value::new(compression, "s2"))]
    pub compression: Compression,

    /// How many seconds the server remembers an event's id, when the stream is created; the relay does
    /// not rely on it
    #[arg(id = "CDC_STREAM_DUPLICATE_WINDOW_SECONDS", long = "cdc-stream-duplicate-window-seconds",
          env = "CDC_STREAM_DUPLICATE_WINDOW_SECONDS", default_value = "120",
          value_parser = Value::new(window, "120"))]
    pub duplicate_window_seconds: u64,

    /// The stream that takes rows which cannot be published, created where missing, with as many
    /// replicas; `none` lets such a row stop the relay
    #[arg(id = "CDC_QUARANTINE_STREAM", long = "cdc-quarantine-stream", env = "CDC_QUARANTINE_STREAM",
          value_parser = Value::stream("ORDERS_QUARANTINE"))]
    pub quarantine: Option<String>,
}

/// Whether the relay may create the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Create {
    Missing,
    Never,
}

/// The only retention that keeps the stream's last event, which says where to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits;

/// Says that a row that cannot be published is to stop the relay.
const NO_QUARANTINE: &str = "none";

/// How a transaction of several events appears.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Transactions {
    Whole,
    Apart,
}

impl StreamConfig {
    /// The quarantine, unless there is to be none.
    pub fn quarantine(&self) -> Option<quarantine::Settings> {
        let name = match self.quarantine.as_deref() {
            Some(NO_QUARANTINE) => return None,
            Some(name) => name.to_owned(),
            None => format!("{}_QUARANTINE", self.name),
        };
        Some(quarantine::Settings {
            stream: self.name.clone(),
            quarantine: name,
            replicas: self.replicas.into(),
            create: self.create == Create::Missing,
        })
    }

    pub fn duplicate_window(&self) -> Duration {
        Duration::from_secs(self.duplicate_window_seconds)
    }
}

/// Ten years: JetStream counts in nanoseconds, which end soon after.
const AGE_SECONDS_MAX: u64 = 10 * 366 * 86_400;

fn create(given: &str) -> Result<Create, String> {
    match given {
        "missing" => Ok(Create::Missing),
        "never" => Ok(Create::Never),
        _ => Err("must be missing or never".to_owned()),
    }
}

fn replicas(given: &str) -> Result<u8, String> {
    match given.parse() {
        Ok(count @ (1 | 3 | 5)) => Ok(count),
        _ => Err("must be 1, 3 or 5".to_owned()),
    }
}

fn storage(given: &str) -> Result<StorageType, String> {
    match given {
        "file" => Ok(StorageType::File),
        "memory" => Ok(StorageType::Memory),
        _ => Err("must be file or memory".to_owned()),
    }
}

fn retention(given: &str) -> Result<Limits, String> {
    match given {
        "limits" => Ok(Limits),
        "workqueue" | "interest" => Err(
            "would forget what was consumed, and with it where the relay has to go on. Let this stream \
             keep its events, and make the work queue a second stream that has this one as its source"
                .to_owned(),
        ),
        _ => Err("must be limits".to_owned()),
    }
}

fn discard(given: &str) -> Result<DiscardPolicy, String> {
    match given {
        "old" => Ok(DiscardPolicy::Old),
        "new" => Ok(DiscardPolicy::New),
        _ => Err("must be old or new".to_owned()),
    }
}

fn compression(given: &str) -> Result<Compression, String> {
    match given {
        "none" => Ok(Compression::None),
        "s2" => Ok(Compression::S2),
        _ => Err("must be none or s2".to_owned()),
    }
}

fn age(given: &str) -> Result<u64, String> {
    number(given, 0, AGE_SECONDS_MAX)
}

fn bytes(given: &str) -> Result<u64, String> {
    number(given, 0, i64::MAX.unsigned_abs())
}

/// JetStream takes an `i32`.
fn message_bytes(given: &str) -> Result<i32, String> {
    let bytes = number(given, 0, i32::MAX.unsigned_abs().into())?;
    i32::try_from(bytes).map_err(|error| error.to_string())
}

fn window(given: &str) -> Result<u64, String> {
    number(given, 1, 86_400)
}
