//! What the events are turned into.

use async_nats::HeaderValue;
use chassis::config::Value;
use clap::Args;

use super::pairs::FixedHeaders;
use crate::subject::Template;

/// What a message is made of.
#[derive(Args, Clone, Debug)]
pub struct Message {
    /// The subject of an event: `{aggregatetype}`, `{aggregateid}`, `{type}` and `{id}` stand for the
    /// columns that are mapped to them, and other names, such as `{tenant}`, for the table's columns
    #[arg(id = "CDC_SUBJECT", long = "cdc-subject", env = "CDC_SUBJECT",
          default_value = "events.{type}", value_parser = Value::new(subject, "events.{type}"))]
    pub subject: Template,

    /// Headers that every message gets: `Name=value`, comma separated, or a JSON object
    #[arg(id = "CDC_HEADERS", long = "cdc-headers", env = "CDC_HEADERS", default_value = "",
          value_parser = Value::new(|given| given.parse::<FixedHeaders>(), "X-Source=shop"))]
    pub headers: FixedHeaders,

    /// Makes each message a CloudEvent in binary mode (`ce-id`, `ce-type` and so on); this is its `ce-source`
    #[arg(id = "CDC_CLOUDEVENTS_SOURCE", long = "cdc-cloudevents-source", env = "CDC_CLOUDEVENTS_SOURCE",
          value_parser = Value::new(source, "/shop/orders"))]
    pub cloudevents_source: Option<HeaderValue>,
}

fn subject(given: &str) -> Result<Template, String> {
    given.parse().map_err(|error| format!("{error}"))
}

fn source(given: &str) -> Result<HeaderValue, String> {
    let refused = || "must be a URI reference: printable ASCII without blanks or quotes".to_owned();
    if given.is_empty() || !given.chars().all(|c| c.is_ascii_graphic() && c != '"') {
        return Err(refused());
    }
    given.parse().map_err(|_| refused())
}
