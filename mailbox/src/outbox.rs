//! Appends events to the outbox, within the transaction that changes the state (I1).
//!
//! Nothing here talks to NATS. An event is published because its row was committed, and for no other
//! reason: a transaction that rolls back takes its events with it.

use prost::{Message, Name};
use serde_json::{Value, json};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Error, Transaction};
use uuid::Uuid;

use crate::envelope::{TRACEPARENT, TRACESTATE, TraceContext};
use crate::inbox::Claimed;

/// The relay publishes rows in the order in which they were inserted, so the order of `events` is kept.
const INSERT: &str = "\
INSERT INTO public.outbox (id, aggregatetype, aggregateid, type, payload, headers)
SELECT id, aggregatetype, aggregateid, type, payload, headers
FROM unnest($1, $2, $3, $4, $5, $6) WITH ORDINALITY
  AS event (id, aggregatetype, aggregateid, type, payload, headers, position)
ORDER BY position";

/// One event: a row of the outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// A UUIDv7; consumers recognise a repeat by it. Ids drawn by one process ascend.
    pub id: Uuid,
    /// The kind of thing that the event is about: `order`.
    pub aggregate_type: &'static str,
    /// The thing that the event is about.
    pub aggregate_id: Uuid,
    /// The full protobuf name of the message: `orders.v1.OrderCreated`.
    pub event_type: String,
    /// The message, encoded.
    pub payload: Vec<u8>,
    /// The trace that the event belongs to.
    pub trace: TraceContext,
}

impl Event {
    /// A new event with an id of its own, in the trace of the span that is current here.
    #[must_use]
    pub fn new<M: Message + Name>(
        aggregate_type: &'static str,
        aggregate_id: Uuid,
        message: &M,
    ) -> Self {
        Self {
            id: Uuid::now_v7(),
            aggregate_type,
            aggregate_id,
            event_type: M::full_name(),
            payload: message.encode_to_vec(),
            trace: TraceContext::current(),
        }
    }

    /// Puts the event in the trace of the event that caused it. Handlers apply many events at once, so
    /// the current span does not tell which of them it was.
    #[must_use]
    pub fn caused_by(mut self, cause: &Claimed) -> Self {
        self.trace = cause.trace_onward();
        self
    }

    fn headers(&self) -> Value {
        let mut headers = serde_json::Map::new();
        let pairs = [
            (TRACEPARENT, self.trace.traceparent()),
            (TRACESTATE, self.trace.tracestate()),
        ];
        for (name, value) in pairs {
            if let Some(value) = value {
                headers.insert(name.to_owned(), json!(value));
            }
        }
        Value::Object(headers)
    }
}

/// Appends `events` in their order: one statement and one round trip, whatever their number.
///
/// They are published if and only if `tx` commits (I1). Without events it does nothing.
///
/// # Errors
/// Postgres refused the statement, or the connection is lost; `tx` can then only be rolled back.
pub async fn append<'a>(
    tx: &Transaction<'_>,
    events: impl IntoIterator<Item = &'a Event>,
) -> Result<(), Error> {
    let events: Vec<&Event> = events.into_iter().collect();
    if events.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = events.iter().map(|e| e.id).collect();
    let aggregate_types: Vec<&str> = events.iter().map(|e| e.aggregate_type).collect();
    let aggregate_ids: Vec<String> = events.iter().map(|e| e.aggregate_id.to_string()).collect();
    let types: Vec<&str> = events.iter().map(|e| e.event_type.as_str()).collect();
    let payloads: Vec<&[u8]> = events.iter().map(|e| e.payload.as_slice()).collect();
    let headers: Vec<Value> = events.iter().map(|e| e.headers()).collect();
    let columns: [(&(dyn ToSql + Sync), Type); 6] = [
        (&ids, Type::UUID_ARRAY),
        (&aggregate_types, Type::TEXT_ARRAY),
        (&aggregate_ids, Type::TEXT_ARRAY),
        (&types, Type::TEXT_ARRAY),
        (&payloads, Type::BYTEA_ARRAY),
        (&headers, Type::JSONB_ARRAY),
    ];
    tx.execute_typed(INSERT, &columns).await?;
    Ok(())
}
