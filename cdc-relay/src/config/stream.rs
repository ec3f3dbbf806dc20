//! Where the events go.

use std::time::Duration;

use chassis::config::Value;
use clap::Args;

use super::value::{name, number};

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

impl StreamConfig {
    pub fn duplicate_window(&self) -> Duration {
        Duration::from_secs(self.duplicate_window_seconds)
    }
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
