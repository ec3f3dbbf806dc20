//! Events: the other service's, by which credit is reserved and released, and this one's own.

use prost::Message as _;
use proto::{customers::v1 as customers, money::v1 as money_v1, orders::v1 as orders};
use uuid::Uuid;

use super::{Invalid, Why, money, timestamp, uuid};
use crate::domain::{Amount, Ask, CreditLimit, Currency, Customer, Event};

/// The events that credit is reserved and released by, by the full names of their messages.
pub const ORDER_CREATED: &str = "orders.v1.OrderCreated";
pub const ORDER_CANCELLED: &str = "orders.v1.OrderCancelled";
pub const EVENTS: [&str; 2] = [ORDER_CREATED, ORDER_CANCELLED];

/// An event that this service cannot read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    #[error("customer-service does not take events of type {0:?}; it takes {EVENTS:?}")]
    Type(String),
    #[error("not a {0} in protobuf: {1}")]
    Protobuf(&'static str, #[source] prost::DecodeError),
    #[error("{0}: {1}")]
    Field(&'static str, #[source] Invalid),
    #[error("a {0} that JSON cannot show: {1}")]
    Json(&'static str, #[source] serde_json::Error),
}

/// What the Order Service tells.
pub fn event(event_type: &str, payload: &[u8]) -> Result<Event, Unreadable> {
    // The two share the fields that count here.
    macro_rules! read {
        ($name:ident, $message:ident) => {{
            let message = orders::$message::decode(payload)
                .map_err(|error| Unreadable::Protobuf($name, error))?;
            ask(&message.order_id, &message.customer_id, message.total)
                .map(Event::$message)
                .map_err(|invalid| Unreadable::Field($name, invalid))
        }};
    }
    match event_type {
        ORDER_CREATED => read!(ORDER_CREATED, OrderCreated),
        ORDER_CANCELLED => read!(ORDER_CANCELLED, OrderCancelled),
        other => Err(Unreadable::Type(other.to_owned())),
    }
}

fn ask(order_id: &str, customer_id: &str, total: Option<money_v1::Money>) -> Result<Ask, Invalid> {
    let total = total.ok_or(Why::Missing.at("total"))?;
    // The form only: the Order Service says which currencies it takes, and a customer in another one
    // is an answer, not an error.
    let currency =
        Currency::new(&total.currency).map_err(|why| Why::from(why).at("total.currency"))?;
    let amount = Amount::new(total.minor_units, currency)
        .map_err(|why| Why::from(why).at("total.minor_units"))?;
    Ok(Ask {
        order_id: uuid("order_id", order_id)?.into(),
        customer_id: uuid("customer_id", customer_id)?.into(),
        amount,
    })
}

/// `CustomerCreated`.
pub fn customer_created(customer: &Customer) -> customers::CustomerCreated {
    let limit = customer.account.limit();
    customers::CustomerCreated {
        customer_id: Uuid::from(customer.customer_id).to_string(),
        name: customer.name.as_str().to_owned(),
        credit_limit: Some(money(limit.minor_units(), limit.currency())),
        create_time: Some(timestamp(customer.create_time)),
    }
}

/// `CreditLimitChanged`, from the previous limit to the customer's present one.
pub fn credit_limit_changed(
    customer: &Customer,
    previous: CreditLimit,
) -> customers::CreditLimitChanged {
    let limit = customer.account.limit();
    customers::CreditLimitChanged {
        customer_id: Uuid::from(customer.customer_id).to_string(),
        credit_limit: Some(money(limit.minor_units(), limit.currency())),
        previous_credit_limit: Some(money(previous.minor_units(), previous.currency())),
    }
}

/// `CreditReserved`.
pub fn credit_reserved(ask: &Ask) -> customers::CreditReserved {
    customers::CreditReserved {
        order_id: Uuid::from(ask.order_id).to_string(),
        customer_id: Uuid::from(ask.customer_id).to_string(),
        amount: Some(amount(ask)),
    }
}

/// `CreditReleased`, with what was reserved.
pub fn credit_released(ask: &Ask, released: Amount) -> customers::CreditReleased {
    customers::CreditReleased {
        order_id: Uuid::from(ask.order_id).to_string(),
        customer_id: Uuid::from(ask.customer_id).to_string(),
        amount: Some(money(released.minor_units(), released.currency())),
    }
}

/// `CreditLimitExceeded`, with what was left in minor units of the asked currency.
pub fn credit_limit_exceeded(ask: &Ask, available: i64) -> customers::CreditLimitExceeded {
    customers::CreditLimitExceeded {
        order_id: Uuid::from(ask.order_id).to_string(),
        customer_id: Uuid::from(ask.customer_id).to_string(),
        amount: Some(amount(ask)),
        available: Some(money(available, ask.amount.currency())),
    }
}

/// `CustomerNotFound`.
pub fn customer_not_found(ask: &Ask) -> customers::CustomerNotFound {
    customers::CustomerNotFound {
        order_id: Uuid::from(ask.order_id).to_string(),
        customer_id: Uuid::from(ask.customer_id).to_string(),
    }
}

/// `CurrencyMismatch`, with the currency that the customer has.
pub fn currency_mismatch(ask: &Ask, customer_currency: Currency) -> customers::CurrencyMismatch {
    customers::CurrencyMismatch {
        order_id: Uuid::from(ask.order_id).to_string(),
        customer_id: Uuid::from(ask.customer_id).to_string(),
        amount: Some(amount(ask)),
        customer_currency: customer_currency.code().to_owned(),
    }
}

fn amount(ask: &Ask) -> money::Money {
    money(ask.amount.minor_units(), ask.amount.currency())
}
