//! What became of one order, read from the streams themselves.

use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use async_nats::jetstream::{self, message::StreamMessage};
use harness::{Side, eventually};
use prost::{Message, Name};
use proto::customers::v1::{CreditLimitExceeded, CreditReleased, CreditReserved, CustomerNotFound};
use proto::money::v1::Money;
use proto::orders::v1::{CancellationReason, OrderApproved, OrderCancelled, OrderCreated};

use super::show::{Show, euros, words};

/// An order is settled in a fraction of this, on a slow machine too.
const SETTLE_DEADLINE: Duration = Duration::from_secs(20);

/// The events that end the way of a new order.
pub(super) const SETTLED: [&str; 2] = [OrderApproved::NAME, OrderCancelled::NAME];

/// An event of an order, where it stands, and what it tells.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) name: &'static str,
    pub(super) stream: &'static str,
    pub(super) sequence: u64,
    /// When the stream stored it.
    pub(super) at: SystemTime,
    pub(super) tells: String,
}

/// Reads both streams on from where it was.
#[derive(Debug)]
pub(super) struct Trail {
    jetstream: jetstream::Context,
    /// The sequence to read next, of each side's stream.
    next: [(Side, u64); 2],
}

impl Trail {
    pub(super) fn new(nats: &async_nats::Client) -> Self {
        Self {
            jetstream: jetstream::new(nats.clone()),
            next: Side::ALL.map(|side| (side, 1)),
        }
    }

    /// Awaits one of these events of the order; returns all up to it in the order of time, but not what
    /// was read before.
    pub(super) async fn follow(&mut self, order_id: &str, last: &[&str]) -> Result<Vec<Event>> {
        let mut found: Vec<Event> = Vec::new();
        let what = format!("the end of order {order_id}");
        eventually(&what, SETTLE_DEADLINE, async || {
            self.read_on(order_id, &mut found).await?;
            let names: Vec<&str> = found.iter().map(|event| event.name).collect();
            anyhow::ensure!(
                names.iter().any(|name| last.contains(name)),
                "events so far: {names:?}"
            );
            Ok(Some(()))
        })
        .await?;
        found.sort_by_key(|event| event.at);
        Ok(found)
    }

    /// Shows them, each with the time that it took.
    pub(super) fn show(&self, show: Show, events: &[Event], since: impl Fn(SystemTime) -> String) {
        for (index, event) in events.iter().enumerate() {
            let label = if index == 0 { "events" } else { "" };
            let place = format!("{} {}", event.stream, event.sequence);
            show.row(
                label,
                &format!(
                    "{:<19} {place:<13} +{:<7} {}",
                    event.name,
                    since(event.at),
                    event.tells
                ),
            );
        }
    }

    async fn read_on(&mut self, order_id: &str, found: &mut Vec<Event>) -> Result<()> {
        for (side, next) in &mut self.next {
            let stream = self.jetstream.get_stream(side.stream()).await?;
            let last = stream.cached_info().state.last_sequence;
            while *next <= last {
                let message = stream.get_raw_message(*next).await?;
                *next += 1;
                if let Some((order, event)) = read(side.stream(), &message)?
                    && order == order_id
                {
                    found.push(event);
                }
            }
        }
        Ok(())
    }
}

/// The order that an event is about, and the event. None for an event about no order.
fn read(stream: &'static str, message: &StreamMessage) -> Result<Option<(String, Event)>> {
    let header = message
        .headers
        .get("Event-Type")
        .context("an event without its type")?;
    let event_type = header.as_str();
    let payload = message.payload.as_ref();
    let (name, order_id, tells) = if event_type == OrderCreated::full_name() {
        let event = OrderCreated::decode(payload)?;
        (
            OrderCreated::NAME,
            event.order_id,
            "order-service has stored the order, pending".to_owned(),
        )
    } else if event_type == CreditReserved::full_name() {
        let event = CreditReserved::decode(payload)?;
        let tells = format!("customer-service has reserved {}", amount(event.amount));
        (CreditReserved::NAME, event.order_id, tells)
    } else if event_type == CreditReleased::full_name() {
        let event = CreditReleased::decode(payload)?;
        let tells = format!("customer-service has released {}", amount(event.amount));
        (CreditReleased::NAME, event.order_id, tells)
    } else if event_type == CreditLimitExceeded::full_name() {
        let event = CreditLimitExceeded::decode(payload)?;
        let tells = format!(
            "customer-service has refused: only {} are left",
            amount(event.available)
        );
        (CreditLimitExceeded::NAME, event.order_id, tells)
    } else if event_type == CustomerNotFound::full_name() {
        let event = CustomerNotFound::decode(payload)?;
        (
            CustomerNotFound::NAME,
            event.order_id,
            "customer-service knows no such customer".to_owned(),
        )
    } else if event_type == OrderApproved::full_name() {
        let event = OrderApproved::decode(payload)?;
        (
            OrderApproved::NAME,
            event.order_id,
            "order-service has approved the order".to_owned(),
        )
    } else if event_type == OrderCancelled::full_name() {
        let event = OrderCancelled::decode(payload)?;
        let tells = format!(
            "order-service has cancelled the order: {}",
            reason(event.reason())
        );
        (OrderCancelled::NAME, event.order_id, tells)
    } else {
        return Ok(None);
    };
    let event = Event {
        name,
        stream,
        sequence: message.sequence,
        at: message.time.into(),
        tells,
    };
    Ok(Some((order_id, event)))
}

fn amount(money: Option<Money>) -> String {
    euros(money.map_or(0, |money| money.minor_units))
}

/// `credit limit exceeded`
pub(super) fn reason(reason: CancellationReason) -> String {
    words(
        &reason
            .as_str_name()
            .trim_start_matches("CANCELLATION_REASON_"),
    )
}
