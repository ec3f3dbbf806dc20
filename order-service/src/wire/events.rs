//! Events: the other service's, which settle orders, and this one's own.

use prost::Message as _;
use proto::{customers::v1 as customers, orders::v1 as orders};
use uuid::Uuid;

use super::{Invalid, reason, timestamp, total, uuid};
use crate::domain::{Answer, Order, OrderId, Reason};

/// The answers that settle orders, by the full names of their messages.
pub const CREDIT_RESERVED: &str = "customers.v1.CreditReserved";
pub const CREDIT_LIMIT_EXCEEDED: &str = "customers.v1.CreditLimitExceeded";
pub const CUSTOMER_NOT_FOUND: &str = "customers.v1.CustomerNotFound";
pub const CURRENCY_MISMATCH: &str = "customers.v1.CurrencyMismatch";
pub const ANSWERS: [&str; 4] = [
    CREDIT_RESERVED,
    CREDIT_LIMIT_EXCEEDED,
    CUSTOMER_NOT_FOUND,
    CURRENCY_MISMATCH,
];

/// An event that this service cannot read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    #[error("order-service does not take events of type {0:?}; it takes {ANSWERS:?}")]
    Type(String),
    #[error("not a {0} in protobuf: {1}")]
    Protobuf(&'static str, #[source] prost::DecodeError),
    #[error("{0}: {1}")]
    Field(&'static str, #[source] Invalid),
    #[error("a {0} that JSON cannot show: {1}")]
    Json(&'static str, #[source] serde_json::Error),
}

/// The order that an event answers about, and the answer.
pub fn answer(event_type: &str, payload: &[u8]) -> Result<(OrderId, Answer), Unreadable> {
    macro_rules! read {
        ($name:ident, $message:ident) => {{
            let message = customers::$message::decode(payload)
                .map_err(|error| Unreadable::Protobuf($name, error))?;
            let order_id = uuid("order_id", &message.order_id)
                .map_err(|invalid| Unreadable::Field($name, invalid))?;
            Ok((order_id.into(), Answer::$message))
        }};
    }
    match event_type {
        CREDIT_RESERVED => read!(CREDIT_RESERVED, CreditReserved),
        CREDIT_LIMIT_EXCEEDED => read!(CREDIT_LIMIT_EXCEEDED, CreditLimitExceeded),
        CUSTOMER_NOT_FOUND => read!(CUSTOMER_NOT_FOUND, CustomerNotFound),
        CURRENCY_MISMATCH => read!(CURRENCY_MISMATCH, CurrencyMismatch),
        other => Err(Unreadable::Type(other.to_owned())),
    }
}

/// `OrderCreated`, which asks for credit.
pub fn order_created(order: &Order) -> orders::OrderCreated {
    orders::OrderCreated {
        order_id: Uuid::from(order.order_id).to_string(),
        customer_id: Uuid::from(order.customer_id).to_string(),
        total: Some(total(order.total)),
        create_time: Some(timestamp(order.create_time)),
    }
}

/// `OrderApproved`.
pub fn order_approved(order: &Order) -> orders::OrderApproved {
    orders::OrderApproved {
        order_id: Uuid::from(order.order_id).to_string(),
        customer_id: Uuid::from(order.customer_id).to_string(),
        total: Some(total(order.total)),
    }
}

/// `OrderCancelled`, with its reason.
pub fn order_cancelled(order: &Order, why: Reason) -> orders::OrderCancelled {
    orders::OrderCancelled {
        order_id: Uuid::from(order.order_id).to_string(),
        customer_id: Uuid::from(order.customer_id).to_string(),
        total: Some(total(order.total)),
        reason: reason(why).into(),
    }
}
