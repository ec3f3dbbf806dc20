//! The events that this service consumes as people see them, in dead letters: in JSON.

use prost::Message as _;
use proto::customers::v1 as customers;

use super::{
    CREDIT_LIMIT_EXCEEDED, CREDIT_RESERVED, CURRENCY_MISMATCH, CUSTOMER_NOT_FOUND, Unreadable,
};

/// An event's message in protobuf's canonical JSON, whatever its fields hold: of an event that cannot be
/// applied they may be the reason.
pub fn json(event_type: &str, payload: &[u8]) -> Result<String, String> {
    macro_rules! shown {
        ($name:ident, $message:ident) => {{
            customers::$message::decode(payload)
                .map_err(|error| Unreadable::Protobuf($name, error))
                .and_then(|message| {
                    serde_json::to_string(&message).map_err(|error| Unreadable::Json($name, error))
                })
        }};
    }
    let shown = match event_type {
        CREDIT_RESERVED => shown!(CREDIT_RESERVED, CreditReserved),
        CREDIT_LIMIT_EXCEEDED => shown!(CREDIT_LIMIT_EXCEEDED, CreditLimitExceeded),
        CUSTOMER_NOT_FOUND => shown!(CUSTOMER_NOT_FOUND, CustomerNotFound),
        CURRENCY_MISMATCH => shown!(CURRENCY_MISMATCH, CurrencyMismatch),
        other => Err(Unreadable::Type(other.to_owned())),
    };
    shown.map_err(|unreadable| unreadable.to_string())
}
