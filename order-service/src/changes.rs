//! What a transaction does to orders it holds: rows, and the events that tell of them, written together
//! (I1). Answers, clients and the clock change orders in this one way.

use std::collections::BTreeMap;
use std::time::SystemTime;

use mailbox::inbox::Claimed;
use mailbox::outbox;
use tokio_postgres::Transaction;

use crate::api::AGGREGATE;
use crate::domain::{Answer, Decision, Input, Order, OrderId, State};
use crate::{store, wire};

/// The changes of one transaction, in the order in which they were made.
#[derive(Debug, Default)]
pub struct Changes {
    orders: BTreeMap<OrderId, Order>,
    events: Vec<outbox::Event>,
}

impl Changes {
    /// Lets an input take effect on an order that the transaction has locked; `cause` is the event that
    /// it came with, or else it came with the current span.
    pub fn apply(
        &mut self,
        order: &mut Order,
        input: Input,
        now: SystemTime,
        cause: Option<&Claimed>,
    ) {
        let before = order.state;
        let id = order.order_id.into();
        let told = match order.apply(input, now) {
            Decision::Approve => outbox::Event::new(AGGREGATE, id, &wire::order_approved(order)),
            Decision::Cancel(reason) => {
                outbox::Event::new(AGGREGATE, id, &wire::order_cancelled(order, reason))
            }
            Decision::Ignore => {
                count_ignored(before, input);
                return;
            }
        };
        count_settled(order.state);
        self.orders.insert(order.order_id, *order);
        self.events.push(match cause {
            Some(event) => told.caused_by(event),
            None => told,
        });
    }

    /// Writes what was changed: two statements, whatever the count.
    pub async fn write(self, tx: &Transaction<'_>) -> Result<(), store::Error> {
        if self.orders.is_empty() {
            return Ok(());
        }
        // Sent together: one round trip for both. The first one's error counts, because the second
        // fails only for being in the same transaction.
        let (settled, appended) = tokio::join!(
            store::settle(tx, self.orders.values()),
            outbox::append(tx, &self.events)
        );
        settled?;
        appended.map_err(store::Error::from)
    }
}

// Counted before the commit: a batch that is rolled back and applied again counts twice. An order that
// is approved and then cancelled counts in both states.
fn count_settled(state: State) {
    let reason = match state {
        State::Pending | State::Approved => "",
        State::Cancelled(reason) => store::reason_name(reason),
    };
    let state = state_label(state);
    metrics::counter!("orders_settled_total", "state" => state, "reason" => reason).increment(1);
}

fn count_ignored(state: State, input: Input) {
    let event = match input {
        Input::Answer(Answer::CreditReserved) => wire::CREDIT_RESERVED,
        Input::Answer(Answer::CreditLimitExceeded) => wire::CREDIT_LIMIT_EXCEEDED,
        Input::Answer(Answer::CustomerNotFound) => wire::CUSTOMER_NOT_FOUND,
        Input::Answer(Answer::CurrencyMismatch) => wire::CURRENCY_MISMATCH,
        Input::Cancel => "cancel",
        Input::TimeOut => "time_out",
    };
    let state = state_label(state);
    metrics::counter!("order_reactions_ignored_total", "state" => state, "event" => event)
        .increment(1);
}

fn state_label(state: State) -> &'static str {
    match state {
        State::Pending => "pending",
        State::Approved => "approved",
        State::Cancelled(_) => "cancelled",
    }
}
