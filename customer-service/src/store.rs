//! All the SQL of this service: rows ↔ domain. Statements that change something, or hold a lock,
//! take a `&Transaction`, so that nobody calls them outside of one (I1, I7).

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio_postgres::error::DbError;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row, Transaction};
use uuid::Uuid;

use crate::domain::{
    Account, Amount, CreditLimit, Currency, Customer, CustomerId, InvalidName, MalformedCurrency,
    Name, NegativeLimit, OrderId, Refusal, Reservation, ReservationState,
};

const INSERT: &str = "\
    INSERT INTO customers (customer_id, name, currency, credit_limit_minor_units, \
                           reserved_minor_units, create_time) \
    VALUES ($1, $2, $3, $4, $5, $6)";

const GET: &str = "\
    SELECT customer_id, name, currency, credit_limit_minor_units, reserved_minor_units, create_time \
    FROM customers WHERE customer_id = $1";

const LIST: &str = "\
    SELECT customer_id, name, currency, credit_limit_minor_units, reserved_minor_units, create_time \
    FROM customers WHERE customer_id > $1 \
    ORDER BY customer_id LIMIT $2";

// Without FOR UPDATE two batches read the same reserved sum, and both find room. In key order: two
// batches that share customers queue up behind each other instead of deadlocking.
const LOCK: &str = "\
    SELECT customer_id, currency, credit_limit_minor_units, reserved_minor_units \
    FROM customers WHERE customer_id = ANY ($1) \
    ORDER BY customer_id FOR UPDATE";

const LOCK_ONE: &str = "\
    SELECT customer_id, name, currency, credit_limit_minor_units, reserved_minor_units, create_time \
    FROM customers WHERE customer_id = $1 FOR UPDATE";

const SET_LIMIT: &str = "\
    UPDATE customers SET credit_limit_minor_units = $2 WHERE customer_id = $1";

const RESERVATIONS: &str = "\
    SELECT order_id, customer_id, amount_minor_units, currency, state \
    FROM reservations WHERE order_id = ANY ($1)";

// In key order, for the same reason. An order whose reservation another transaction has made in the
// meantime is left out, and missing in what is returned.
const ENTER: &str = "\
    INSERT INTO reservations (order_id, customer_id, amount_minor_units, currency, state, reason, \
                              create_time) \
    SELECT order_id, customer_id, amount, currency, state, reason, $7 \
    FROM unnest($1, $2, $3, $4, $5, $6) \
         AS new (order_id, customer_id, amount, currency, state, reason) \
    ORDER BY order_id \
    ON CONFLICT (order_id) DO NOTHING";

// Their customers' rows are locked, so nobody else changes them: no order is needed.
const RELEASE: &str = "\
    UPDATE reservations SET state = 'released' \
    WHERE order_id = ANY ($1) AND state = 'active'";

const ADJUST: &str = "\
    UPDATE customers \
    SET reserved_minor_units = reserved_minor_units + change.amount \
    FROM unnest($1, $2) AS change (customer_id, amount) \
    WHERE customers.customer_id = change.customer_id";

/// A statement that did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `customers_name_length` or `customers_name_not_blank` refused the customer.
    #[error(transparent)]
    InvalidName(InvalidName),
    /// `customers_limit_not_negative` refused the customer.
    #[error(transparent)]
    NegativeLimit(NegativeLimit),
    /// `customers_currency_iso4217_form` refused the customer.
    #[error(transparent)]
    MalformedCurrency(MalformedCurrency),
    #[error(transparent)]
    Postgres(tokio_postgres::Error),
    /// A row that this version of the service cannot read.
    #[error("a row of table {table}: {why}")]
    Unreadable {
        table: &'static str,
        why: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    fn customer(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        let table = "customers";
        let why = why.into();
        Self::Unreadable { table, why }
    }

    fn reservation(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        let table = "reservations";
        let why = why.into();
        Self::Unreadable { table, why }
    }
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.as_db_error().and_then(DbError::constraint) {
            Some("customers_name_length") => Self::InvalidName(InvalidName::TooLong),
            Some("customers_name_not_blank") => Self::InvalidName(InvalidName::Blank),
            Some("customers_limit_not_negative") => Self::NegativeLimit(NegativeLimit),
            Some("customers_currency_iso4217_form") => Self::MalformedCurrency(MalformedCurrency),
            _ => Self::Postgres(error),
        }
    }
}

/// A new reservation, with its reason if it is refused.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub order_id: OrderId,
    pub reservation: Reservation,
    pub refusal: Option<Refusal>,
}

/// Adds a new customer.
pub async fn insert(tx: &Transaction<'_>, customer: &Customer) -> Result<(), Error> {
    let limit = customer.account.limit();
    tx.execute_typed(
        INSERT,
        &[
            (&Uuid::from(customer.customer_id), Type::UUID),
            (&customer.name.as_str(), Type::TEXT),
            (&limit.currency().code(), Type::TEXT),
            (&limit.minor_units(), Type::INT8),
            (&customer.account.reserved(), Type::INT8),
            (&customer.create_time, Type::TIMESTAMPTZ),
        ],
    )
    .await?;
    Ok(())
}

/// Reads one customer.
pub async fn get(client: &Client, customer_id: CustomerId) -> Result<Option<Customer>, Error> {
    client
        .query_typed_opt(GET, &[(&Uuid::from(customer_id), Type::UUID)])
        .await?
        .as_ref()
        .map(customer)
        .transpose()
}

/// Reads at most `limit` customers that come after the customer `after`, the oldest first.
pub async fn list(
    client: &Client,
    after: Option<CustomerId>,
    limit: usize,
) -> Result<Vec<Customer>, Error> {
    // No UUIDv7 is nil, so nil stands before them all.
    let after = after.map_or(Uuid::nil(), Uuid::from);
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    client
        .query_typed(LIST, &[(&after, Type::UUID), (&limit, Type::INT8)])
        .await?
        .iter()
        .map(customer)
        .collect()
}

/// Reads one customer, and holds it against every other writer until the transaction ends (I7).
pub async fn lock(
    tx: &Transaction<'_>,
    customer_id: CustomerId,
) -> Result<Option<Customer>, Error> {
    tx.query_typed_opt(LOCK_ONE, &[(&Uuid::from(customer_id), Type::UUID)])
        .await?
        .as_ref()
        .map(customer)
        .transpose()
}

/// Writes the limit of a customer that `lock` holds; the database refuses less than what is reserved
/// (I7).
pub async fn set_limit(tx: &Transaction<'_>, customer: &Customer) -> Result<(), Error> {
    let limit = customer.account.limit().minor_units();
    tx.execute_typed(
        SET_LIMIT,
        &[
            (&Uuid::from(customer.customer_id), Type::UUID),
            (&limit, Type::INT8),
        ],
    )
    .await?;
    Ok(())
}

/// Reads the accounts of those of the customers that exist, and holds them against every other
/// writer until the transaction ends (I7). One statement, whatever the count.
pub async fn lock_accounts(
    tx: &Transaction<'_>,
    customer_ids: &BTreeSet<CustomerId>,
) -> Result<BTreeMap<CustomerId, Account>, Error> {
    let customer_ids: Vec<Uuid> = customer_ids.iter().copied().map(Uuid::from).collect();
    tx.query_typed(LOCK, &[(&customer_ids, Type::UUID_ARRAY)])
        .await?
        .iter()
        .map(|row| {
            let customer_id: Uuid = row.try_get("customer_id")?;
            Ok((customer_id.into(), account(row)?))
        })
        .collect()
}

/// Reads the reservations that the orders have. To be called when `lock_accounts` has returned, or
/// it misses those that another transaction made while this one waited. One statement, whatever the
/// count.
pub async fn reservations(
    tx: &Transaction<'_>,
    order_ids: &BTreeSet<OrderId>,
) -> Result<BTreeMap<OrderId, Reservation>, Error> {
    let order_ids: Vec<Uuid> = order_ids.iter().copied().map(Uuid::from).collect();
    tx.query_typed(RESERVATIONS, &[(&order_ids, Type::UUID_ARRAY)])
        .await?
        .iter()
        .map(|row| {
            let order_id: Uuid = row.try_get("order_id")?;
            Ok((order_id.into(), reservation(row)?))
        })
        .collect()
}

/// Adds reservations, and tells how many: fewer than were given when another transaction was first
/// with one of the orders. One statement, whatever the count.
pub async fn enter(tx: &Transaction<'_>, entries: &[Entry], now: SystemTime) -> Result<u64, Error> {
    let count = entries.len();
    if count == 0 {
        return Ok(0);
    }
    let mut orders: Vec<Uuid> = Vec::with_capacity(count);
    let mut customers: Vec<Uuid> = Vec::with_capacity(count);
    let mut amounts = Vec::with_capacity(count);
    let mut currencies = Vec::with_capacity(count);
    let mut states = Vec::with_capacity(count);
    let mut reasons = Vec::with_capacity(count);
    for entry in entries {
        let Reservation {
            customer_id,
            amount,
            state,
        } = entry.reservation;
        orders.push(entry.order_id.into());
        customers.push(customer_id.into());
        amounts.push(amount.minor_units());
        currencies.push(amount.currency());
        states.push(state_name(state));
        reasons.push(entry.refusal.as_ref().map(reason));
    }
    let currencies: Vec<&str> = currencies.iter().map(Currency::code).collect();
    let entered = tx
        .execute_typed(
            ENTER,
            &[
                (&orders, Type::UUID_ARRAY),
                (&customers, Type::UUID_ARRAY),
                (&amounts, Type::INT8_ARRAY),
                (&currencies, Type::TEXT_ARRAY),
                (&states, Type::TEXT_ARRAY),
                (&reasons, Type::TEXT_ARRAY),
                (&now, Type::TIMESTAMPTZ),
            ],
        )
        .await?;
    Ok(entered)
}

/// Releases active reservations of customers that `lock_accounts` holds, and tells how many. One
/// statement, whatever the count.
pub async fn release(tx: &Transaction<'_>, order_ids: &BTreeSet<OrderId>) -> Result<u64, Error> {
    if order_ids.is_empty() {
        return Ok(0);
    }
    let order_ids: Vec<Uuid> = order_ids.iter().copied().map(Uuid::from).collect();
    let released = tx
        .execute_typed(RELEASE, &[(&order_ids, Type::UUID_ARRAY)])
        .await?;
    Ok(released)
}

/// Adds to what customers that `lock_accounts` holds have reserved, or takes from it, in minor units;
/// the database refuses more than the limit (I7). One statement, whatever the count.
pub async fn adjust(
    tx: &Transaction<'_>,
    changes: &BTreeMap<CustomerId, i64>,
) -> Result<(), Error> {
    if changes.is_empty() {
        return Ok(());
    }
    let customers: Vec<Uuid> = changes.keys().map(|id| Uuid::from(*id)).collect();
    let amounts: Vec<i64> = changes.values().copied().collect();
    tx.execute_typed(
        ADJUST,
        &[(&customers, Type::UUID_ARRAY), (&amounts, Type::INT8_ARRAY)],
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

/// The name of a state, in the table and in metrics.
pub fn state_name(state: ReservationState) -> &'static str {
    match state {
        ReservationState::Active => "active",
        ReservationState::Refused => "refused",
        ReservationState::Released => "released",
    }
}

fn reason(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::CreditLimitExceeded { .. } => "credit_limit_exceeded",
        Refusal::CustomerNotFound => "customer_not_found",
        Refusal::CurrencyMismatch { .. } => "currency_mismatch",
    }
}

fn state(state: &str) -> Result<ReservationState, Error> {
    match state {
        "active" => Ok(ReservationState::Active),
        "refused" => Ok(ReservationState::Refused),
        "released" => Ok(ReservationState::Released),
        other => Err(Error::reservation(format!(
            "this version does not know state {other:?}"
        ))),
    }
}

fn reservation(row: &Row) -> Result<Reservation, Error> {
    let currency = Currency::new(row.try_get("currency")?).map_err(Error::reservation)?;
    let amount =
        Amount::new(row.try_get("amount_minor_units")?, currency).map_err(Error::reservation)?;
    Ok(Reservation {
        customer_id: row.try_get::<_, Uuid>("customer_id")?.into(),
        amount,
        state: state(row.try_get("state")?)?,
    })
}

fn customer(row: &Row) -> Result<Customer, Error> {
    Ok(Customer {
        customer_id: row.try_get::<_, Uuid>("customer_id")?.into(),
        name: Name::kept(row.try_get("name")?),
        account: account(row)?,
        create_time: row.try_get("create_time")?,
    })
}

fn account(row: &Row) -> Result<Account, Error> {
    let currency = Currency::new(row.try_get("currency")?).map_err(Error::customer)?;
    let limit = CreditLimit::new(row.try_get("credit_limit_minor_units")?, currency)
        .map_err(Error::customer)?;
    let reserved = row.try_get("reserved_minor_units")?;
    Account::reopen(limit, reserved).map_err(Error::customer)
}
