//! Which column of the table is which. The defaults are the names of Debezium's outbox event router.

use chassis::config::Value;
use clap::Args;

use super::{pairs::ColumnHeaders, value::identifier};

/// The outbox's columns.
#[derive(Args, Clone, Debug)]
pub struct Columns {
    /// The column with the event's id: uuid, text, bigint or integer, or a domain over one,
    /// and unique
    #[arg(id = "CDC_COLUMN_ID", long = "cdc-column-id", env = "CDC_COLUMN_ID", default_value = "id",
          value_parser = Value::new(identifier, "event_id"))]
    pub id: String,

    /// The column with the kind of thing that the event is about
    #[arg(id = "CDC_COLUMN_AGGREGATE_TYPE", long = "cdc-column-aggregate-type",
          env = "CDC_COLUMN_AGGREGATE_TYPE", default_value = "aggregatetype",
          value_parser = Value::new(identifier, "aggregate_type"))]
    pub aggregate_type: String,

    /// The column with the id of the thing that the event is about
    #[arg(id = "CDC_COLUMN_AGGREGATE_ID", long = "cdc-column-aggregate-id",
          env = "CDC_COLUMN_AGGREGATE_ID", default_value = "aggregateid",
          value_parser = Value::new(identifier, "aggregate_id"))]
    pub aggregate_id: String,

    /// The column with the event's type
    #[arg(id = "CDC_COLUMN_TYPE", long = "cdc-column-type", env = "CDC_COLUMN_TYPE",
          default_value = "type", value_parser = Value::new(identifier, "event_type"))]
    pub event_type: String,

    /// The column with the payload: bytea, jsonb, json or text
    #[arg(id = "CDC_COLUMN_PAYLOAD", long = "cdc-column-payload", env = "CDC_COLUMN_PAYLOAD",
          default_value = "payload", value_parser = Value::new(identifier, "data"))]
    pub payload: String,

    /// The column with a JSON object of message headers, jsonb or json; without it `headers` is read
    /// where the table has it
    #[arg(id = "CDC_COLUMN_HEADERS", long = "cdc-column-headers", env = "CDC_COLUMN_HEADERS",
          value_parser = Value::new(identifier, "metadata"))]
    pub headers: Option<String>,

    /// The column with the event's time, timestamptz or text, which CloudEvents messages carry as `ce-time`
    #[arg(id = "CDC_COLUMN_TIME", long = "cdc-column-time", env = "CDC_COLUMN_TIME",
          value_parser = Value::new(identifier, "created_at"))]
    pub time: Option<String>,

    /// Further columns that become message headers: `column=Header`, comma separated, or a JSON object
    #[arg(id = "CDC_COLUMNS_AS_HEADERS", long = "cdc-columns-as-headers", env = "CDC_COLUMNS_AS_HEADERS",
          default_value = "", value_parser = Value::new(|given| given.parse::<ColumnHeaders>(),
                                                        "tenant=Tenant,region=Region"))]
    pub as_headers: ColumnHeaders,
}
