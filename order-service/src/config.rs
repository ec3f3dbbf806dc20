//! What the environment sets. `--help` shows all of it; every flag has a variable.

use std::time::Duration;

use chassis::config::{Admin, Auth, Database, Grpc, Nats, Owner, Shutdown, Telemetry, Value};
use chassis::tls::expiry::Watched;
use mailbox::consumer;

/// More events in one transaction than this hold row locks for too long.
const CONSUMER_BATCH_MAX: u16 = 4096;

/// Longer than this nobody waits for an order, nor finds out that it should not have been waited for.
const ORDER_DEADLINE_SECONDS_MAX: u64 = 7 * 24 * 3600;

/// Each takes about 9 kB, most of them in its gRPC stream: more than this no replica should hold.
const WATCHERS_MAX: usize = 1_000_000;

/// They are counted again and again while orders are placed, which takes a third of a second for so many.
const PENDING_ORDERS_MAX: usize = 1_000_000;

/// The Order Service: takes orders, and settles them by the Customer Service's answers.
#[derive(Clone, Debug, clap::Parser)]
#[command(version)]
pub struct Config {
    #[command(flatten)]
    pub telemetry: Telemetry,
    #[command(flatten)]
    pub database: Database,
    #[command(flatten)]
    pub owner: Owner,
    #[command(flatten)]
    pub nats: Nats,
    #[command(flatten)]
    pub admin: Admin,
    #[command(flatten)]
    pub shutdown: Shutdown,
    #[command(flatten)]
    pub grpc: Grpc,
    #[command(flatten)]
    pub auth: Auth,

    /// The JetStream stream with the Customer Service's answers, which the customer database's relay creates
    #[arg(id = "EVENTS_STREAM", long = "events-stream", env = "EVENTS_STREAM",
          default_value = "CUSTOMERS", value_parser = Value::stream("CUSTOMERS"))]
    pub events_stream: String,

    /// How many events are applied in one transaction at most
    #[arg(id = "CONSUMER_BATCH_MAX", long = "consumer-batch-max", env = "CONSUMER_BATCH_MAX",
          default_value = "256", value_parser = Value::new(batch_max, "256"))]
    pub consumer_batch_max: u16,

    /// After how many seconds the events that a killed replica had in hand go to another; applying a
    /// batch is given a quarter of it
    #[arg(id = "CONSUMER_ACK_WAIT_SECONDS", long = "consumer-ack-wait-seconds",
          env = "CONSUMER_ACK_WAIT_SECONDS", default_value = "30",
          value_parser = Value::new(ack_wait, "30"))]
    pub consumer_ack_wait_seconds: u64,

    /// For how many seconds the answer to a request with a `request_id` is kept; older ids are refused
    #[arg(id = "REQUEST_RETENTION_SECONDS", long = "request-retention-seconds",
          env = "REQUEST_RETENTION_SECONDS", default_value = "604800",
          value_parser = Value::new(request_retention, "604800"))]
    pub request_retention_seconds: u64,

    /// For how many seconds the inbox remembers what it has applied; it must outlast every redelivery, and
    /// without it nothing is forgotten
    #[arg(id = "INBOX_RETENTION_SECONDS", long = "inbox-retention-seconds",
          env = "INBOX_RETENTION_SECONDS", value_parser = Value::new(inbox_retention, "1209600"))]
    pub inbox_retention_seconds: Option<u64>,

    /// After how many seconds an order that is still pending is cancelled as timed out; it should outlast
    /// the death of a replica, which costs CONSUMER_ACK_WAIT_SECONDS
    #[arg(id = "ORDER_DEADLINE_SECONDS", long = "order-deadline-seconds",
          env = "ORDER_DEADLINE_SECONDS", default_value = "120",
          value_parser = Value::new(order_deadline, "120"))]
    pub order_deadline_seconds: u64,

    /// The JetStream stream with this service's own events, which its database's relay creates: they wake
    /// those who watch orders
    #[arg(id = "OWN_EVENTS_STREAM", long = "own-events-stream", env = "OWN_EVENTS_STREAM",
          default_value = "ORDERS", value_parser = Value::stream("ORDERS"))]
    pub own_events_stream: String,

    /// How many clients watch an order, or wait for one, at a time at most
    #[arg(id = "WATCHERS_MAX", long = "watchers-max", env = "WATCHERS_MAX",
          default_value = "10000", value_parser = Value::new(watchers_max, "10000"))]
    pub watchers_max: usize,

    /// How many orders are pending at a time at most, at all replicas together
    #[arg(id = "PENDING_ORDERS_MAX", long = "pending-orders-max", env = "PENDING_ORDERS_MAX",
          default_value = "10000", value_parser = Value::new(pending_orders_max, "10000"))]
    pub pending_orders_max: usize,
}

impl Config {
    /// For how long the inbox remembers what it has applied; for ever if not said.
    pub fn inbox_retention(&self) -> Option<Duration> {
        self.inbox_retention_seconds.map(Duration::from_secs)
    }

    /// For how long answers to requests with an id are kept.
    pub fn request_retention(&self) -> Duration {
        Duration::from_secs(self.request_retention_seconds)
    }

    /// How long an order may be pending (I8).
    pub fn order_deadline(&self) -> Duration {
        Duration::from_secs(self.order_deadline_seconds)
    }

    /// The files of certificates that it shows, and by which it trusts.
    pub fn certificates(&self) -> Vec<Watched> {
        let (grpc, auth) = (self.grpc.certificates(), self.auth.certificates());
        [
            grpc,
            auth,
            self.nats.certificates(),
            self.database.certificates(),
        ]
        .concat()
    }

    /// The durable consumer `durable` of the other service's events `types`, by their full names.
    pub fn consumer<'a>(
        &self,
        durable: &str,
        types: impl IntoIterator<Item = &'a str>,
    ) -> consumer::Config {
        let filters = types.into_iter().map(|name| format!("events.{name}"));
        consumer::Config {
            batch_max: self.consumer_batch_max.into(),
            ack_wait: Duration::from_secs(self.consumer_ack_wait_seconds),
            ..consumer::Config::new(&self.events_stream, durable, filters)
        }
    }
}

fn watchers_max(given: &str) -> Result<usize, String> {
    match given.parse() {
        Ok(watchers) if (1..=WATCHERS_MAX).contains(&watchers) => Ok(watchers),
        _ => Err(format!("must be a number from 1 to {WATCHERS_MAX}")),
    }
}

fn pending_orders_max(given: &str) -> Result<usize, String> {
    match given.parse() {
        Ok(orders) if (1..=PENDING_ORDERS_MAX).contains(&orders) => Ok(orders),
        _ => Err(format!("must be a number from 1 to {PENDING_ORDERS_MAX}")),
    }
}

fn order_deadline(given: &str) -> Result<u64, String> {
    match given.parse() {
        Ok(seconds) if (1..=ORDER_DEADLINE_SECONDS_MAX).contains(&seconds) => Ok(seconds),
        _ => Err(format!(
            "must be a number from 1 to {ORDER_DEADLINE_SECONDS_MAX}"
        )),
    }
}

/// It goes by the day; of more than ten years nobody has to be told.
fn inbox_retention(given: &str) -> Result<u64, String> {
    match given.parse() {
        Ok(seconds) if (86_400..=3650 * 86_400).contains(&seconds) => Ok(seconds),
        _ => Err("must be a number from 86400 to 315360000".to_owned()),
    }
}

/// Less than an hour is less than a client's outage; each day more is one more partition.
fn request_retention(given: &str) -> Result<u64, String> {
    match given.parse() {
        Ok(seconds) if (3600..=90 * 86_400).contains(&seconds) => Ok(seconds),
        _ => Err("must be a number from 3600 to 7776000".to_owned()),
    }
}

fn batch_max(given: &str) -> Result<u16, String> {
    match given.parse() {
        Ok(events) if (1..=CONSUMER_BATCH_MAX).contains(&events) => Ok(events),
        _ => Err(format!("must be a number from 1 to {CONSUMER_BATCH_MAX}")),
    }
}

/// A quarter of less is too little for a batch on a busy database, and nobody waits for an hour.
fn ack_wait(given: &str) -> Result<u64, String> {
    match given.parse() {
        Ok(seconds) if (4..=3600).contains(&seconds) => Ok(seconds),
        _ => Err("must be a number from 4 to 3600".to_owned()),
    }
}
