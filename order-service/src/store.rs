//! All the SQL of this service: rows ↔ domain. Statements that change something take a
//! `&Transaction`, so that nobody calls them outside of one (I1).

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio_postgres::error::DbError;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Transaction};
use uuid::Uuid;

use crate::domain::{Currency, CustomerId, MalformedCurrency, NonPositiveTotal, Order, OrderId};

mod rows;

pub use rows::reason_name;
use rows::{columns, order};

const INSERT: &str = "\
    INSERT INTO orders (order_id, customer_id, total_minor_units, currency, state, \
                        create_time, update_time, deadline) \
    SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8)";

const GET: &str = "\
    SELECT order_id, customer_id, total_minor_units, currency, state, cancellation_reason, \
           create_time, update_time, deadline \
    FROM orders WHERE order_id = $1";

// Many at a time, for those who watch them. What is pending still is left out: there is nothing to tell.
const SETTLED: &str = "\
    SELECT order_id, customer_id, total_minor_units, currency, state, cancellation_reason, \
           create_time, update_time, deadline \
    FROM orders WHERE order_id = ANY ($1) AND state <> 'pending'";

const LIST: &str = "\
    SELECT order_id, customer_id, total_minor_units, currency, state, cancellation_reason, \
           create_time, update_time, deadline \
    FROM orders WHERE order_id > $1 \
    ORDER BY order_id LIMIT $2";

const LIST_OF_CUSTOMER: &str = "\
    SELECT order_id, customer_id, total_minor_units, currency, state, cancellation_reason, \
           create_time, update_time, deadline \
    FROM orders WHERE order_id > $1 AND customer_id = $3 \
    ORDER BY order_id LIMIT $2";

// In key order: two batches that share orders queue up behind each other instead of deadlocking.
const LOCK: &str = "\
    SELECT order_id, customer_id, total_minor_units, currency, state, cancellation_reason, \
           create_time, update_time, deadline \
    FROM orders WHERE order_id = ANY ($1) \
    ORDER BY order_id FOR UPDATE";

// What another transaction holds is left to it: replicas sweep side by side, and nobody waits here.
const LOCK_OVERDUE: &str = "\
    SELECT order_id, customer_id, total_minor_units, currency, state, cancellation_reason, \
           create_time, update_time, deadline \
    FROM orders WHERE state = 'pending' AND deadline <= $1 \
    ORDER BY deadline LIMIT $2 FOR UPDATE SKIP LOCKED";

// By the index of what is pending: however large the table has grown, and whatever the planner believes of it.
const BY_INDEX: &str = "SET LOCAL enable_seqscan = off";
const COUNT_PENDING: &str = "\
    SELECT count(*) FROM (SELECT FROM orders WHERE state = 'pending' LIMIT $1) AS pending";

const SETTLE: &str = "\
    UPDATE orders \
    SET state = settled.state, \
        cancellation_reason = settled.reason, \
        update_time = settled.update_time \
    FROM unnest($1, $2, $3, $4) AS settled (order_id, state, reason, update_time) \
    WHERE orders.order_id = settled.order_id";

/// A statement that did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `orders_total_positive` refused the order.
    #[error(transparent)]
    NonPositiveTotal(NonPositiveTotal),
    /// `orders_currency_iso4217_form` refused the order.
    #[error(transparent)]
    MalformedCurrency(MalformedCurrency),
    #[error(transparent)]
    Postgres(tokio_postgres::Error),
    /// A row that this version of the service cannot read.
    #[error("a row of table orders: {0}")]
    Unreadable(Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    fn unreadable(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Unreadable(why.into())
    }
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.as_db_error().and_then(DbError::constraint) {
            Some("orders_total_positive") => Self::NonPositiveTotal(NonPositiveTotal),
            Some("orders_currency_iso4217_form") => Self::MalformedCurrency(MalformedCurrency),
            _ => Self::Postgres(error),
        }
    }
}

/// What [`settled`] found.
#[derive(Debug, Default)]
pub struct Settled {
    pub orders: Vec<Order>,
    /// Those that this version of the service cannot read, and why.
    pub unreadable: Vec<(OrderId, Error)>,
}

/// Adds new orders. One statement, whatever the count.
pub async fn insert(
    tx: &Transaction<'_>,
    orders: impl IntoIterator<Item = &Order>,
) -> Result<(), Error> {
    let orders: Vec<&Order> = orders.into_iter().collect();
    let ids: Vec<Uuid> = orders.iter().map(|order| order.order_id.into()).collect();
    let customers: Vec<Uuid> = orders
        .iter()
        .map(|order| order.customer_id.into())
        .collect();
    let totals: Vec<i64> = orders
        .iter()
        .map(|order| order.total.minor_units())
        .collect();
    let currencies: Vec<Currency> = orders.iter().map(|order| order.total.currency()).collect();
    let currencies: Vec<&str> = currencies.iter().map(Currency::code).collect();
    let states: Vec<&str> = orders.iter().map(|order| columns(order.state).0).collect();
    let created: Vec<SystemTime> = orders.iter().map(|order| order.create_time).collect();
    let updated: Vec<SystemTime> = orders.iter().map(|order| order.update_time).collect();
    let deadlines: Vec<SystemTime> = orders.iter().map(|order| order.deadline).collect();
    let columns: [(&(dyn ToSql + Sync), Type); 8] = [
        (&ids, Type::UUID_ARRAY),
        (&customers, Type::UUID_ARRAY),
        (&totals, Type::INT8_ARRAY),
        (&currencies, Type::TEXT_ARRAY),
        (&states, Type::TEXT_ARRAY),
        (&created, Type::TIMESTAMPTZ_ARRAY),
        (&updated, Type::TIMESTAMPTZ_ARRAY),
        (&deadlines, Type::TIMESTAMPTZ_ARRAY),
    ];
    tx.execute_typed(INSERT, &columns).await?;
    Ok(())
}

/// Reads one order.
pub async fn get(client: &Client, order_id: OrderId) -> Result<Option<Order>, Error> {
    client
        .query_typed_opt(GET, &[(&Uuid::from(order_id), Type::UUID)])
        .await?
        .as_ref()
        .map(order)
        .transpose()
}

/// Reads those of the orders that are approved or cancelled. One statement, whatever the count. What
/// cannot be read is told apart: these orders have nothing to do with each other.
pub async fn settled(client: &Client, order_ids: &[OrderId]) -> Result<Settled, Error> {
    let order_ids: Vec<Uuid> = order_ids.iter().copied().map(Uuid::from).collect();
    let rows = client
        .query_typed(SETTLED, &[(&order_ids, Type::UUID_ARRAY)])
        .await?;
    let mut settled = Settled::default();
    for row in &rows {
        match order(row) {
            Ok(order) => settled.orders.push(order),
            Err(why) => {
                let order_id: Uuid = row.try_get("order_id")?;
                settled.unreadable.push((order_id.into(), why));
            }
        }
    }
    Ok(settled)
}

/// Reads at most `limit` orders that come after the order `after`, the oldest first; of one
/// customer, or of all.
pub async fn list(
    client: &Client,
    customer_id: Option<CustomerId>,
    after: Option<OrderId>,
    limit: usize,
) -> Result<Vec<Order>, Error> {
    // No UUIDv7 is nil, so nil stands before them all.
    let after = after.map_or(Uuid::nil(), Uuid::from);
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = match customer_id.map(Uuid::from) {
        None => {
            client
                .query_typed(LIST, &[(&after, Type::UUID), (&limit, Type::INT8)])
                .await?
        }
        Some(customer_id) => {
            client
                .query_typed(
                    LIST_OF_CUSTOMER,
                    &[
                        (&after, Type::UUID),
                        (&limit, Type::INT8),
                        (&customer_id, Type::UUID),
                    ],
                )
                .await?
        }
    };
    rows.iter().map(order).collect()
}

/// Reads those of the orders that exist, and holds them against every other writer until the
/// transaction ends. One statement, whatever the count.
pub async fn lock(
    tx: &Transaction<'_>,
    order_ids: &BTreeSet<OrderId>,
) -> Result<BTreeMap<OrderId, Order>, Error> {
    let order_ids: Vec<Uuid> = order_ids.iter().copied().map(Uuid::from).collect();
    tx.query_typed(LOCK, &[(&order_ids, Type::UUID_ARRAY)])
        .await?
        .iter()
        .map(|row| order(row).map(|order| (order.order_id, order)))
        .collect()
}

/// Counts the pending orders, up to `limit`.
pub async fn count_pending(
    client: &mut Client,
    limit: usize,
) -> Result<usize, tokio_postgres::Error> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let tx = client.transaction().await?;
    tx.batch_execute(BY_INDEX).await?;
    let counted = tx
        .query_typed_one(COUNT_PENDING, &[(&limit, Type::INT8)])
        .await?;
    let counted: i64 = counted.try_get(0)?;
    tx.commit().await?;
    Ok(usize::try_from(counted).unwrap_or_default())
}

/// Reads at most `limit` pending orders whose deadline has passed, the longest overdue first, and holds
/// them until the transaction ends. Those that somebody else holds are left out.
pub async fn lock_overdue(
    tx: &Transaction<'_>,
    now: SystemTime,
    limit: usize,
) -> Result<Vec<Order>, Error> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    tx.query_typed(
        LOCK_OVERDUE,
        &[(&now, Type::TIMESTAMPTZ), (&limit, Type::INT8)],
    )
    .await?
    .iter()
    .map(order)
    .collect()
}

/// Writes the state of orders that `lock` or `lock_overdue` holds, each of them once. One statement, whatever the
/// count.
pub async fn settle(
    tx: &Transaction<'_>,
    orders: impl IntoIterator<Item = &Order>,
) -> Result<(), Error> {
    let mut ids: Vec<Uuid> = Vec::new();
    let mut states = Vec::new();
    let mut reasons = Vec::new();
    let mut times = Vec::new();
    for order in orders {
        let (state, reason) = columns(order.state);
        ids.push(order.order_id.into());
        states.push(state);
        reasons.push(reason);
        times.push(order.update_time);
    }
    tx.execute_typed(
        SETTLE,
        &[
            (&ids, Type::UUID_ARRAY),
            (&states, Type::TEXT_ARRAY),
            (&reasons, Type::TEXT_ARRAY),
            (&times, Type::TIMESTAMPTZ_ARRAY),
        ],
    )
    .await?;
    Ok(())
}

/// The time, in the microseconds that a timestamptz keeps: what is answered at once is what is read
/// later.
pub fn now() -> SystemTime {
    let now = SystemTime::now();
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    now - Duration::from_nanos(u64::from(since.subsec_nanos() % 1_000))
}
