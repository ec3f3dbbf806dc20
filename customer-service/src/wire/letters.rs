//! Dead letters as people see them: what is known of one, and its event's message in JSON.

use mailbox::dead_letter::Letter;
use prost::Message as _;
use proto::dead_letters::v1::DeadLetter;
use proto::orders::v1 as orders;

use super::{ORDER_CANCELLED, ORDER_CREATED, Unreadable, timestamp};

/// What is known of a letter.
pub fn dead_letter(letter: Letter) -> DeadLetter {
    DeadLetter {
        sequence: letter.sequence,
        durable: letter.durable,
        reason: letter.reason,
        attempts: letter.attempts,
        dead_time: Some(timestamp(letter.time)),
        event_id: letter.event_id,
        event_type: letter.event_type,
        aggregate_type: letter.aggregate_type,
        aggregate_id: letter.aggregate_id,
        origin_stream: letter.origin.stream,
        origin_sequence: letter.origin.sequence,
        origin_subject: letter.origin.subject,
        payload_bytes: letter.payload_bytes,
        payload_omitted: letter.payload_omitted,
    }
}

/// An event's message in protobuf's canonical JSON, whatever its fields hold: of an event that cannot be
/// applied they may be the reason.
pub fn json(event_type: &str, payload: &[u8]) -> Result<String, Unreadable> {
    macro_rules! shown {
        ($name:ident, $message:ident) => {{
            let message = orders::$message::decode(payload)
                .map_err(|error| Unreadable::Protobuf($name, error))?;
            serde_json::to_string(&message).map_err(|error| Unreadable::Json($name, error))
        }};
    }
    match event_type {
        ORDER_CREATED => shown!(ORDER_CREATED, OrderCreated),
        ORDER_CANCELLED => shown!(ORDER_CANCELLED, OrderCancelled),
        other => Err(Unreadable::Type(other.to_owned())),
    }
}
