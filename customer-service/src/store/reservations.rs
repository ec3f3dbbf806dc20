//! The table of reservations: what was answered to each order.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row, Transaction};
use uuid::Uuid;

use super::Error;
use crate::domain::{
    Amount, Currency, CustomerId, OrderId, Refusal, RefusalKind, Reservation, ReservationState,
};

const RESERVATIONS: &str = "\
    SELECT order_id, customer_id, amount_minor_units, currency, state \
    FROM reservations WHERE order_id = ANY ($1)";

// In key order, for the same reason. An order whose reservation another transaction has made in the
// meantime is left out, and missing in what is returned.
const ENTER: &str = "\
    INSERT INTO reservations (order_id, customer_id, amount_minor_units, currency, state, reason, \
                              create_time, release_time) \
    SELECT order_id, customer_id, amount, currency, state, reason, $7, \
           CASE WHEN state = 'released' THEN $7 END \
    FROM unnest($1, $2, $3, $4, $5, $6) \
         AS new (order_id, customer_id, amount, currency, state, reason) \
    ORDER BY order_id \
    ON CONFLICT (order_id) DO NOTHING";

// Their customers' rows are locked, so nobody else changes them: no order is needed.
const RELEASE: &str = "\
    UPDATE reservations SET state = 'released', release_time = $2 \
    WHERE order_id = ANY ($1) AND state = 'active'";

const LIST: &str = "\
    SELECT order_id, customer_id, amount_minor_units, currency, state, reason, create_time, \
           release_time \
    FROM reservations WHERE customer_id = $1 AND order_id > $2 \
    ORDER BY order_id LIMIT $3";

/// All that may stand in the table.
const REFUSALS: [RefusalKind; 3] = [
    RefusalKind::CreditLimitExceeded,
    RefusalKind::CustomerNotFound,
    RefusalKind::CurrencyMismatch,
];

/// A new reservation, with its reason if it is refused.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub order_id: OrderId,
    pub reservation: Reservation,
    pub refusal: Option<Refusal>,
}

/// A reservation that is there, with what a list tells of it.
#[derive(Clone, Copy, Debug)]
pub struct Listed {
    pub order_id: OrderId,
    pub reservation: Reservation,
    pub refusal: Option<RefusalKind>,
    pub create_time: SystemTime,
    /// Not told of what an older version released.
    pub release_time: Option<SystemTime>,
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
        reasons.push(entry.refusal.map(|refusal| reason(refusal.kind())));
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
pub async fn release(
    tx: &Transaction<'_>,
    order_ids: &BTreeSet<OrderId>,
    now: SystemTime,
) -> Result<u64, Error> {
    if order_ids.is_empty() {
        return Ok(0);
    }
    let order_ids: Vec<Uuid> = order_ids.iter().copied().map(Uuid::from).collect();
    let released = tx
        .execute_typed(
            RELEASE,
            &[(&order_ids, Type::UUID_ARRAY), (&now, Type::TIMESTAMPTZ)],
        )
        .await?;
    Ok(released)
}

/// Reads at most `limit` of a customer's reservations, of orders that come after the order `after`, in the
/// order of the orders' ids.
pub async fn list_reservations(
    client: &Client,
    customer_id: CustomerId,
    after: Option<OrderId>,
    limit: usize,
) -> Result<Vec<Listed>, Error> {
    // No UUIDv7 is nil, so nil stands before them all.
    let after = after.map_or(Uuid::nil(), Uuid::from);
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    client
        .query_typed(
            LIST,
            &[
                (&Uuid::from(customer_id), Type::UUID),
                (&after, Type::UUID),
                (&limit, Type::INT8),
            ],
        )
        .await?
        .iter()
        .map(|row| {
            let refusal: Option<&str> = row.try_get("reason")?;
            Ok(Listed {
                order_id: row.try_get::<_, Uuid>("order_id")?.into(),
                reservation: reservation(row)?,
                refusal: refusal.map(refusal_kind).transpose()?,
                create_time: row.try_get("create_time")?,
                release_time: row.try_get("release_time")?,
            })
        })
        .collect()
}

/// The name of a state, in the table and in metrics.
pub fn state_name(state: ReservationState) -> &'static str {
    match state {
        ReservationState::Active => "active",
        ReservationState::Refused => "refused",
        ReservationState::Released => "released",
    }
}

fn reason(refusal: RefusalKind) -> &'static str {
    match refusal {
        RefusalKind::CreditLimitExceeded => "credit_limit_exceeded",
        RefusalKind::CustomerNotFound => "customer_not_found",
        RefusalKind::CurrencyMismatch => "currency_mismatch",
    }
}

fn refusal_kind(name: &str) -> Result<RefusalKind, Error> {
    let known = REFUSALS.into_iter().find(|known| reason(*known) == name);
    known.ok_or_else(|| Error::reservation(format!("this version does not know reason {name:?}")))
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
