//! How long the table keeps its rows, if the relay is to see to it.

use chassis::config::Value;
use clap::Args;

use super::{
    source::{Table, table},
    value::{name, number},
};

/// What the relay removes from the table.
#[derive(Args, Clone, Debug)]
pub struct Retention {
    /// Rows that were written longer ago than so many seconds, and that were published, are removed from
    /// the table: by dropping its partitions, or by deleting. The user needs DELETE on the table, or owns
    /// its partitions, or calls CDC_RETENTION_FUNCTION. What is removed cannot be published again, so less than
    /// ten times JetStream's sync_interval (1200 by default) is refused at the start, and less than the
    /// stream's max_age with CDC_STREAM_DELETED=recreate
    #[arg(id = "CDC_RETENTION_SECONDS", long = "cdc-retention-seconds", env = "CDC_RETENTION_SECONDS",
          value_parser = Value::new(seconds, "604800"))]
    pub seconds: Option<u64>,

    /// The column that tells when a row was written, of type timestamptz; UUIDv7 ids tell it themselves
    #[arg(id = "CDC_RETENTION_COLUMN", long = "cdc-retention-column", env = "CDC_RETENTION_COLUMN",
          value_parser = Value::new(name, "created_at"))]
    pub column: Option<String>,

    /// A function (partition regclass, is_published boolean) that locks and then drops partitions with their
    /// owner's rights (SECURITY DEFINER), so that the relay's own role need not have them
    #[arg(id = "CDC_RETENTION_FUNCTION", long = "cdc-retention-function", env = "CDC_RETENTION_FUNCTION",
          value_parser = Value::new(table, "public.outbox_retire"))]
    pub function: Option<Table>,
}

/// A minute, by which clocks may differ. What the stream demands besides is asked for at the start.
const SECONDS_MIN: u64 = 60;

fn seconds(given: &str) -> Result<u64, String> {
    number(given, SECONDS_MIN, 10 * 365 * 86_400)
}
