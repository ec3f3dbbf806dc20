//! What a message carries beside its payload: the names of the headers, and how they are read.
//!
//! The relay writes these headers, the consumer reads them, and neither looks into the payload.

mod position;
mod trace;

use async_nats::HeaderMap;
use bytes::Bytes;
use uuid::Uuid;

pub use position::{ParsePositionError, Position};
pub use trace::TraceContext;

use crate::inbox::Delivery;

/// The event's id, a UUIDv7. JetStream drops a repeat of it within the stream's duplicate window.
pub const EVENT_ID: &str = "Nats-Msg-Id";
/// The full protobuf name of the payload: `orders.v1.OrderCreated`.
pub const EVENT_TYPE: &str = "Event-Type";
/// The kind of thing that the event is about: `order`.
pub const AGGREGATE_TYPE: &str = "Aggregate-Type";
/// The id of the thing that the event is about.
pub const AGGREGATE_ID: &str = "Aggregate-Id";
/// Where the event stands in its source's WAL: a [`Position`]. Written by the relay only.
pub const POSITION: &str = "Cdc-Position";
/// On the last event of a transaction: how many events the transaction has. Written by the relay only.
pub const COMMIT: &str = "Cdc-Commit";
/// On a message that does not stand at its own place in the WAL order, such as one released from
/// quarantine or published again: after which row the WAL is to be resumed, as `{position} {event id}`.
/// Written by the relay only.
pub const RESUME: &str = "Cdc-Resume";
/// On a message released from quarantine: its place there. Written by the relay only.
pub const QUARANTINE: &str = "Cdc-Quarantine";
/// W3C trace context: the span that caused the event.
pub const TRACEPARENT: &str = "traceparent";
/// W3C trace context: what tracing vendors add to it.
pub const TRACESTATE: &str = "tracestate";

/// A message that is no event of ours. Delivering it again would not mend it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// There is nothing to recognise a repeat by.
    #[error("the header {EVENT_ID} is missing")]
    NoEventId,
    /// The inbox is keyed by UUID.
    #[error("the header {EVENT_ID} is not a UUID: `{0}`")]
    InvalidEventId(String),
    /// There is nothing to choose a decoder by.
    #[error("the header {EVENT_TYPE} is missing or empty")]
    NoEventType,
}

/// Reads one message. [`AGGREGATE_ID`] may be missing, and is then empty: not every producer has one.
///
/// # Errors
/// The message lacks a valid [`EVENT_ID`] or an [`EVENT_TYPE`].
pub fn decode(headers: Option<&HeaderMap>, payload: Bytes) -> Result<Delivery, Malformed> {
    let header = |name: &str| headers.and_then(|h| h.get(name)).map(|v| v.as_str());
    let id = header(EVENT_ID).ok_or(Malformed::NoEventId)?;
    let id = Uuid::parse_str(id).map_err(|_| Malformed::InvalidEventId(excerpt(id)))?;
    let event_type = header(EVENT_TYPE)
        .filter(|name| !name.is_empty())
        .ok_or(Malformed::NoEventType)?;
    let mut delivery = Delivery::new(
        id,
        event_type,
        header(AGGREGATE_ID).unwrap_or_default(),
        payload,
    );
    delivery.trace = TraceContext::new(header(TRACEPARENT), header(TRACESTATE));
    Ok(delivery)
}

/// Enough of a stranger's header to recognise it in a log, and no more.
fn excerpt(value: &str) -> String {
    const EXCERPT_MAX: usize = 64;
    value.chars().take(EXCERPT_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.insert(*name, *value);
        }
        map
    }

    #[test]
    fn an_event_needs_an_id_and_a_type() {
        let id = Uuid::now_v7().to_string();
        let read = |pairs: &[(&'static str, &str)]| {
            decode(Some(&headers(pairs)), Bytes::from_static(b"x")).map(|d| d.event_type)
        };
        assert_eq!(decode(None, Bytes::new()).err(), Some(Malformed::NoEventId));
        assert_eq!(read(&[(EVENT_TYPE, "a.B")]), Err(Malformed::NoEventId));
        assert_eq!(
            read(&[(EVENT_ID, "17"), (EVENT_TYPE, "a.B")]),
            Err(Malformed::InvalidEventId("17".into()))
        );
        assert_eq!(read(&[(EVENT_ID, &id)]), Err(Malformed::NoEventType));
        assert_eq!(
            read(&[(EVENT_ID, &id), (EVENT_TYPE, "")]),
            Err(Malformed::NoEventType)
        );
        assert_eq!(
            read(&[(EVENT_ID, &id), (EVENT_TYPE, "a.B")]),
            Ok("a.B".into())
        );
    }

    #[test]
    fn a_decoded_event_carries_its_aggregate_payload_and_trace() {
        let id = Uuid::now_v7();
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let map = headers(&[
            (EVENT_ID, &id.to_string()),
            (EVENT_TYPE, "orders.v1.OrderCreated"),
            (AGGREGATE_ID, "42"),
            (TRACEPARENT, parent),
        ]);
        let delivery = decode(Some(&map), Bytes::from_static(b"bytes")).unwrap();
        assert_eq!(delivery.id, id);
        assert_eq!(delivery.aggregate_id, "42");
        assert_eq!(&delivery.payload[..], b"bytes");
        assert_eq!(delivery.trace.traceparent(), Some(parent));
    }
}
