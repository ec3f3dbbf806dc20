//! Where the events come from.

use std::{path::PathBuf, time::Duration};

use chassis::config::{DatabaseUrl, Value};
use clap::Args;

use super::value::{name, number};
use crate::wal::quote;

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

    /// A file that holds the password of `DATABASE_URL`'s user, which then has none itself; it is read for each
    /// new connection
    #[arg(id = "DATABASE_PASSWORD_FILE", long = "database-password-file", env = "DATABASE_PASSWORD_FILE",
          value_parser = Value::new(|given| Ok(PathBuf::from(given)), "/run/secrets/database-password"))]
    pub database_password_file: Option<PathBuf>,

    /// The outbox table, with its schema
    #[arg(id = "CDC_TABLE", long = "cdc-table", env = "CDC_TABLE", default_value = "public.outbox",
          value_parser = Value::new(table, "public.outbox"))]
    pub table: Table,

    /// Takes events that no table holds: the messages that `pg_logical_emit_message(true, prefix, content)`
    /// writes with this prefix. What it forfeits is in the relay's README
    #[arg(id = "CDC_MESSAGE_PREFIX", long = "cdc-message-prefix", env = "CDC_MESSAGE_PREFIX",
          value_parser = Value::new(name, "outbox"))]
    pub message_prefix: Option<String>,

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

impl Source {
    pub fn wal_sender_timeout(&self) -> Duration {
        Duration::from_secs(self.wal_sender_timeout_seconds)
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

pub(super) fn table(given: &str) -> Result<Table, String> {
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

fn timeout(given: &str) -> Result<u64, String> {
    number(given, 3, 3600)
}
