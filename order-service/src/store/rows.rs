//! Between the columns of table orders and the domain.

use tokio_postgres::Row;
use uuid::Uuid;

use super::Error;
use crate::domain::{Currency, Order, Reason, State, Total};

/// All that may stand in the table.
const REASONS: [Reason; 5] = [
    Reason::CreditLimitExceeded,
    Reason::UnknownCustomer,
    Reason::CurrencyMismatch,
    Reason::ByCustomer,
    Reason::TimedOut,
];

pub(super) fn columns(state: State) -> (&'static str, Option<&'static str>) {
    match state {
        State::Pending => ("pending", None),
        State::Approved => ("approved", None),
        State::Cancelled(reason) => ("cancelled", Some(reason_name(reason))),
    }
}

/// The name of a reason, in the table and in metrics.
pub fn reason_name(reason: Reason) -> &'static str {
    match reason {
        Reason::CreditLimitExceeded => "credit_limit_exceeded",
        Reason::UnknownCustomer => "unknown_customer",
        Reason::CurrencyMismatch => "currency_mismatch",
        Reason::ByCustomer => "by_customer",
        Reason::TimedOut => "timed_out",
    }
}

fn state(state: &str, reason: Option<&str>) -> Result<State, Error> {
    let reason_of = |name| {
        REASONS
            .into_iter()
            .find(|reason| reason_name(*reason) == name)
    };
    let known = match (state, reason) {
        ("pending", None) => Some(State::Pending),
        ("approved", None) => Some(State::Approved),
        ("cancelled", Some(name)) => reason_of(name).map(State::Cancelled),
        _ => None,
    };
    known.ok_or_else(|| {
        Error::unreadable(format!(
            "this version does not know state {state:?} with reason {reason:?}"
        ))
    })
}

pub(super) fn order(row: &Row) -> Result<Order, Error> {
    let currency = Currency::new(row.try_get("currency")?).map_err(Error::unreadable)?;
    let total =
        Total::new(row.try_get("total_minor_units")?, currency).map_err(Error::unreadable)?;
    Ok(Order {
        order_id: row.try_get::<_, Uuid>("order_id")?.into(),
        customer_id: row.try_get::<_, Uuid>("customer_id")?.into(),
        total,
        state: state(row.try_get("state")?, row.try_get("cancellation_reason")?)?,
        create_time: row.try_get("create_time")?,
        update_time: row.try_get("update_time")?,
        deadline: row.try_get("deadline")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_is_read_as_it_was_written() {
        let cancelled = REASONS.map(State::Cancelled);
        for written in [State::Pending, State::Approved]
            .into_iter()
            .chain(cancelled)
        {
            let (name, reason) = columns(written);
            assert_eq!(state(name, reason).unwrap(), written);
        }
    }

    #[test]
    fn a_state_of_a_newer_version_is_told_by_name() {
        let told = |name, reason| state(name, reason).unwrap_err().to_string();
        assert!(told("shipped", None).contains("\"shipped\""));
        assert!(told("cancelled", Some("theft")).contains("\"theft\""));
    }
}
