//! What the relay does by itself where slot, stream and table do not belong together any more.

use chassis::config::Value;
use clap::Args;

/// How far the relay may go to mend what it finds.
#[derive(Args, Clone, Copy, Debug)]
pub struct Healing {
    /// What is done when the slot was lost, the server was restored, or the stream lost messages: `auto`
    /// publishes from the table what the stream lacks, `refuse` stops and says what to do
    #[arg(id = "CDC_HEAL", long = "cdc-heal", env = "CDC_HEAL", default_value = "auto",
          value_parser = Value::new(policy, "auto"))]
    pub policy: Policy,

    /// What is done when the stream was deleted behind its slot: `recreate` makes it anew and publishes
    /// what the table holds, `refuse` stops and says what to do
    #[arg(id = "CDC_STREAM_DELETED", long = "cdc-stream-deleted", env = "CDC_STREAM_DELETED",
          default_value = "recreate", value_parser = Value::new(deleted, "recreate"))]
    pub deleted: Policy,

    /// Whether the slot is made so that it follows a failover to a standby, where the server can do that
    /// (Postgres 17 and newer): `true` or `false`
    #[arg(id = "CDC_SLOT_FAILOVER", long = "cdc-slot-failover", env = "CDC_SLOT_FAILOVER",
          default_value = "true", value_parser = Value::new(flag, "true"))]
    pub slot_failover: bool,

    /// Whether the stream is compared with the table once in each process, in the background, in case it
    /// lost messages while no relay ran: `true` or `false`
    #[arg(id = "CDC_VERIFY", long = "cdc-verify", env = "CDC_VERIFY", default_value = "true",
          value_parser = Value::new(flag, "true"))]
    pub verify: bool,

    /// There is a table to mend from.
    #[arg(skip = true)]
    pub has_table: bool,
}

/// By itself, or only on somebody's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    Heal,
    Refuse,
}

fn policy(given: &str) -> Result<Policy, String> {
    one_of(given, "auto")
}

fn deleted(given: &str) -> Result<Policy, String> {
    one_of(given, "recreate")
}

fn one_of(given: &str, heal: &str) -> Result<Policy, String> {
    match given {
        "refuse" => Ok(Policy::Refuse),
        given if given == heal => Ok(Policy::Heal),
        _ => Err(format!("must be `{heal}` or `refuse`")),
    }
}

fn flag(given: &str) -> Result<bool, String> {
    given
        .parse()
        .map_err(|_| "must be `true` or `false`".to_owned())
}
