//! Claims events for a consumer, within the transaction that applies them (I4, I6).
//!
//! A claim is a row (event, consumer). It commits with the event's effects or not at all; who finds
//! the row there already has a repeat in hand. JetStream delivers at least once, even what was
//! acknowledged: this table decides, not the acknowledgement.

use std::collections::HashSet;
use std::ops::Deref;

use bytes::Bytes;
use tokio_postgres::types::Type;
use tokio_postgres::{Error, Transaction};
use tracing::{Span, field, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use uuid::Uuid;

use crate::envelope::TraceContext;

/// In key order: of two replicas with common events the second waits for the first at the lowest of
/// them, and neither can hold what the other waits for.
const CLAIM: &str = "\
INSERT INTO public.inbox (event_id, consumer)
SELECT event_id, $1 FROM unnest($2) AS delivery (event_id) ORDER BY event_id
ON CONFLICT DO NOTHING
RETURNING event_id";

/// One event as it arrived, perhaps not for the first time.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The event's id: what a repeat is recognised by.
    pub id: Uuid,
    /// The full protobuf name of the payload: `orders.v1.OrderCreated`.
    pub event_type: String,
    /// The thing that the event is about; empty if the producer named none.
    pub aggregate_id: String,
    /// The message, encoded.
    pub payload: Bytes,
    /// The trace that the event belongs to.
    pub trace: TraceContext,
}

impl Delivery {
    /// A delivery outside any trace.
    #[must_use]
    pub fn new(
        id: Uuid,
        event_type: impl Into<String>,
        aggregate_id: impl Into<String>,
        payload: Bytes,
    ) -> Self {
        Self {
            id,
            event_type: event_type.into(),
            aggregate_id: aggregate_id.into(),
            payload,
            trace: TraceContext::default(),
        }
    }
}

/// An event that this transaction was the first to claim: the permission to apply it.
///
/// Only [`claim`] makes one, so a handler that takes `&Claimed` cannot be given a repeat.
#[derive(Debug)]
pub struct Claimed {
    delivery: Delivery,
    /// Open as long as the event is being applied; its parent is the span that caused the event.
    span: Span,
}

impl Claimed {
    fn new(delivery: Delivery, consumer: &str) -> Self {
        let span = info_span!(
            parent: None,
            "apply",
            otel.name = format!("apply {}", delivery.event_type),
            otel.kind = "consumer",
            otel.status_code = field::Empty,
            consumer,
            event_id = %delivery.id,
            event_type = delivery.event_type,
            aggregate_id = delivery.aggregate_id,
        );
        if !delivery.trace.is_empty() {
            // Fails only where no OpenTelemetry layer is installed; there is then no trace to join.
            let _ = span.set_parent(delivery.trace.extract());
        }
        Self { delivery, span }
    }

    /// The span in which the event is applied, for work that concerns this event alone.
    #[must_use]
    pub fn span(&self) -> &Span {
        &self.span
    }

    /// Marks the span: this attempt to apply the event has failed.
    pub(crate) fn record_failure(&self) {
        self.span.record("otel.status_code", "ERROR");
    }

    /// What events caused by this one carry. Without a tracing layer here the trace passes through.
    pub(crate) fn trace_onward(&self) -> TraceContext {
        let own = TraceContext::of(&self.span);
        if own.is_empty() {
            self.delivery.trace.clone()
        } else {
            own
        }
    }
}

impl Deref for Claimed {
    type Target = Delivery;

    fn deref(&self) -> &Delivery {
        &self.delivery
    }
}

/// Claims `deliveries` for `consumer` and returns those that nobody claimed before, in their order.
///
/// One statement, whatever their number. An event that stands several times among them is claimed
/// once. If another transaction is applying one of them right now, this waits for its end: committed,
/// the event is a repeat; rolled back, it is ours.
///
/// # Errors
/// Postgres refused the statement, or the connection is lost; `tx` can then only be rolled back.
pub async fn claim(
    tx: &Transaction<'_>,
    consumer: &str,
    deliveries: Vec<Delivery>,
) -> Result<Vec<Claimed>, Error> {
    if deliveries.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<Uuid> = deliveries.iter().map(|d| d.id).collect();
    let rows = tx
        .query_typed(CLAIM, &[(&consumer, Type::TEXT), (&ids, Type::UUID_ARRAY)])
        .await?;
    let mut first: HashSet<Uuid> = rows.iter().map(|row| row.get(0)).collect();
    Ok(deliveries
        .into_iter()
        .filter(|delivery| first.remove(&delivery.id))
        .map(|delivery| Claimed::new(delivery, consumer))
        .collect())
}
