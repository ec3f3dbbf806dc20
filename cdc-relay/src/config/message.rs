//! What the events are turned into.

use chassis::config::Value;
use clap::Args;

use crate::subject::Template;

/// What a message is made of.
#[derive(Args, Clone, Debug)]
pub struct Message {
    /// The subject of an event: `{aggregatetype}`, `{aggregateid}` and `{type}` stand for the row's columns
    #[arg(id = "CDC_SUBJECT", long = "cdc-subject", env = "CDC_SUBJECT",
          default_value = "events.{type}", value_parser = Value::new(subject, "events.{type}"))]
    pub subject: Template,
}

fn subject(given: &str) -> Result<Template, String> {
    given.parse().map_err(|error| format!("{error}"))
}
