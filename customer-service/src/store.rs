//! All the SQL of this service: rows ↔ domain. Statements that change something, or hold a lock,
//! take a `&Transaction`, so that nobody calls them outside of one (I1, I7).

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio_postgres::error::DbError;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row, Transaction};
use uuid::Uuid;

use crate::domain::{
    Account, CreditLimit, Currency, Customer, CustomerId, InvalidName, MalformedCurrency, Name,
    NegativeLimit,
};

mod reservations;

pub use reservations::{
    Entry, Listed, enter, list_reservations, release, reservations, state_name,
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
