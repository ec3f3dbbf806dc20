//! Reads the facts. Everything is held in memory at once: this is for tests and demonstrations, of
//! up to some hundred thousand orders.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use anyhow::{Context as _, Result};
use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::{Context, ErrorCode};
use futures_util::TryStreamExt;
use tokio_postgres::Client;
use uuid::Uuid;

use super::Account;

/// Messages asked for at once: some hundred kilobytes of headers.
const FETCH: usize = 1_000;
/// A message that is in the stream comes at once.
const FETCH_WAIT: Duration = Duration::from_secs(10);

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) orders: HashMap<Uuid, Order>,
    pub(super) customers: Vec<Account>,
    pub(super) reservations: HashMap<Uuid, Reservation>,
    pub(super) sources: BTreeMap<&'static str, Source>,
    pub(super) dead_letters: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Order {
    pub(super) customer_id: Uuid,
    pub(super) total: i64,
    pub(super) currency: String,
    pub(super) state: String,
    pub(super) reason: Option<String>,
}

#[derive(Clone, Debug)]
pub(super) struct Reservation {
    pub(super) customer_id: Uuid,
    pub(super) amount: i64,
    pub(super) currency: String,
    pub(super) state: String,
    pub(super) reason: Option<String>,
}

/// A database's outbox and its stream.
#[derive(Debug, Default)]
pub(super) struct Source {
    pub(super) outbox: HashSet<Uuid>,
    pub(super) messages: Vec<Message>,
}

/// A message of a stream, by its headers; empty where it lacks one.
#[derive(Clone, Debug, Default)]
pub(super) struct Message {
    pub(super) sequence: u64,
    pub(super) id: String,
    pub(super) event_type: String,
    pub(super) aggregate_id: String,
    pub(super) position: String,
}

pub(super) async fn orders(client: &Client) -> Result<HashMap<Uuid, Order>> {
    let rows = client
        .query(
            "SELECT order_id, customer_id, total_minor_units, currency, state, \
                    cancellation_reason FROM orders",
            &[],
        )
        .await
        .context("cannot read the orders")?;
    let order = |row: &tokio_postgres::Row| Order {
        customer_id: row.get(1),
        total: row.get(2),
        currency: row.get(3),
        state: row.get(4),
        reason: row.get(5),
    };
    Ok(rows.iter().map(|row| (row.get(0), order(row))).collect())
}

pub(super) async fn pending(client: &Client) -> Result<i64> {
    let row = client
        .query_one("SELECT count(*) FROM orders WHERE state = 'pending'", &[])
        .await?;
    Ok(row.get(0))
}

/// Customers and reservations, as of one instant: a row and the sum behind it change together.
pub(super) async fn credit(client: &Client) -> Result<(Vec<Account>, HashMap<Uuid, Reservation>)> {
    client
        .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        .await?;
    let customers = client
        .query(
            "SELECT customer_id::text, name, currency, credit_limit_minor_units, \
                    reserved_minor_units, \
                    (SELECT coalesce(sum(amount_minor_units), 0)::bigint FROM reservations r \
                     WHERE r.customer_id = c.customer_id AND r.state = 'active') \
             FROM customers c ORDER BY c.customer_id",
            &[],
        )
        .await
        .context("cannot read the customers")?;
    let reservations = client
        .query(
            "SELECT order_id, customer_id, amount_minor_units, currency, state, reason \
             FROM reservations",
            &[],
        )
        .await
        .context("cannot read the reservations")?;
    client.batch_execute("COMMIT").await?;
    let account = |row: &tokio_postgres::Row| Account {
        customer_id: row.get(0),
        name: row.get(1),
        currency: row.get(2),
        limit: row.get(3),
        reserved: row.get(4),
        active: row.get(5),
    };
    let reservation = |row: &tokio_postgres::Row| Reservation {
        customer_id: row.get(1),
        amount: row.get(2),
        currency: row.get(3),
        state: row.get(4),
        reason: row.get(5),
    };
    Ok((
        customers.iter().map(account).collect(),
        reservations
            .iter()
            .map(|row| (row.get(0), reservation(row)))
            .collect(),
    ))
}

pub(super) async fn outbox(client: &Client) -> Result<HashSet<Uuid>> {
    let rows = client
        .query("SELECT id FROM public.outbox", &[])
        .await
        .context("cannot read the outbox")?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

pub(super) async fn outbox_count(client: &Client) -> Result<u64> {
    let row = client
        .query_one("SELECT count(*) FROM public.outbox", &[])
        .await?;
    Ok(u64::try_from(row.get::<_, i64>(0))?)
}

pub(super) async fn message_count(jetstream: &Context, name: &str) -> Result<u64> {
    match jetstream.get_stream(name).await {
        Ok(stream) => Ok(stream.cached_info().state.messages),
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(source)
                if source.error_code() == ErrorCode::STREAM_NOT_FOUND =>
            {
                Ok(0)
            }
            _ => Err(error).with_context(|| format!("cannot read the stream {name}")),
        },
    }
}

/// Events of a stream that were not delivered to a durable consumer yet, and those that it has not
/// acknowledged.
pub(super) async fn backlog(
    jetstream: &Context,
    name: &str,
    durable: &str,
) -> Result<(u64, usize)> {
    let stream = jetstream.get_stream(name).await?;
    let info = stream
        .consumer_info(durable)
        .await
        .with_context(|| format!("cannot read the consumer {durable} of {name}"))?;
    Ok((info.num_pending, info.num_ack_pending))
}

pub(super) async fn dead_letters(jetstream: &Context) -> Result<u64> {
    message_count(jetstream, "DEAD_LETTERS").await
}

/// All messages of a stream, by their headers, in the stream's order. None when there is no stream.
pub(super) async fn stream(jetstream: &Context, name: &str) -> Result<Vec<Message>> {
    let expected = usize::try_from(message_count(jetstream, name).await?)?;
    let mut messages = Vec::with_capacity(expected);
    if expected == 0 {
        return Ok(messages);
    }
    let consumer = jetstream
        .get_stream(name)
        .await?
        .create_consumer(pull::Config {
            ack_policy: AckPolicy::None,
            headers_only: true,
            memory_storage: true,
            inactive_threshold: Duration::from_secs(30),
            ..Default::default()
        })
        .await
        .with_context(|| format!("cannot read the stream {name}"))?;
    while messages.len() < expected {
        let batch = consumer
            .batch()
            .max_messages(FETCH.min(expected - messages.len()))
            .expires(FETCH_WAIT)
            .messages()
            .await?;
        let before = messages.len();
        let found: Vec<_> = batch
            .try_collect()
            .await
            .map_err(|error| anyhow::anyhow!("cannot read the stream {name}: {error}"))?;
        for message in &found {
            messages.push(noted(message)?);
        }
        anyhow::ensure!(
            messages.len() > before,
            "the stream {name} said that it holds {expected} messages and gave {before}"
        );
    }
    Ok(messages)
}

fn noted(message: &async_nats::jetstream::Message) -> Result<Message> {
    let header = |name: &str| {
        let headers = message.headers.as_ref();
        let value = headers.and_then(|headers| headers.get(name));
        value
            .map(|value| value.as_str().to_owned())
            .unwrap_or_default()
    };
    let info = message
        .info()
        .map_err(|error| anyhow::anyhow!("a message without its place: {error}"))?;
    Ok(Message {
        sequence: info.stream_sequence,
        id: header("Nats-Msg-Id"),
        event_type: header("Event-Type"),
        aggregate_id: header("Aggregate-Id"),
        position: header("Cdc-Position"),
    })
}
