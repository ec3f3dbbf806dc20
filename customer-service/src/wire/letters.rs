//! The events that this service consumes as people see them, in dead letters: in JSON.

use prost::Message as _;
use proto::orders::v1 as orders;

use super::{ORDER_CANCELLED, ORDER_CREATED, Unreadable};

/// An event's message in protobuf's canonical JSON, whatever its fields hold: of an event that cannot be
/// applied they may be the reason.
pub fn json(event_type: &str, payload: &[u8]) -> Result<String, String> {
    macro_rules! shown {
        ($name:ident, $message:ident) => {{
            orders::$message::decode(payload)
                .map_err(|error| Unreadable::Protobuf($name, error))
                .and_then(|message| {
                    serde_json::to_string(&message).map_err(|error| Unreadable::Json($name, error))
                })
        }};
    }
    let shown = match event_type {
        ORDER_CREATED => shown!(ORDER_CREATED, OrderCreated),
        ORDER_CANCELLED => shown!(ORDER_CANCELLED, OrderCancelled),
        other => Err(Unreadable::Type(other.to_owned())),
    };
    shown.map_err(|unreadable| unreadable.to_string())
}
