//! What the orders' events do to customers' credit: load → decide → store, a batch in one transaction.
//! The number of statements does not grow with the batch. The answer that an order is approved by
//! commits with the reservation that it tells of (I9).
//!
//! Danger: the reservations are read after the customers' rows are locked: sent with the lock, and begun by
//! Postgres when it is held. Read before, they would miss what the transaction that the lock waited for has
//! just reserved for the same order; only the key of `reservations` would then stand between that order and
//! a second answer.
//!
//! What a newer version would read, this one leaves for it: during a rolling upgrade both share one
//! consumer.

use std::collections::{BTreeMap, BTreeSet};

use chassis::failure::chain;
use mailbox::consumer::{Failure, Handler};
use mailbox::inbox::Claimed;
use mailbox::outbox;
use tokio_postgres::Transaction;
use uuid::Uuid;

use crate::api::AGGREGATE;
use crate::domain::{Ask, Books, CustomerId, Decision, Event, OrderId, Refusal, ReservationState};
use crate::{store, wire};

/// Reserves credit for the orders that ask, answers each, and releases that of cancelled ones.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reactions;

impl Handler for Reactions {
    async fn handle(&self, tx: &Transaction<'_>, events: &[Claimed]) -> Result<(), Failure> {
        let told = read(events)?;
        let customers = told.iter().map(|event| event.ask().customer_id).collect();
        let orders = told.iter().map(|event| event.ask().order_id).collect();
        // In one round trip; Postgres executes them one after the other, each on a snapshot of its own.
        let (accounts, reservations) = tokio::join!(
            store::lock_accounts(tx, &customers),
            store::reservations(tx, &orders)
        );
        let accounts = accounts.map_err(failed)?;
        let reservations = reservations.map_err(failed)?;

        // Each event finds what the one before it left, as if it had a transaction of its own.
        let mut books = Books {
            accounts,
            reservations,
        };
        let mut changes = Changes::default();
        for (event, told) in events.iter().zip(&told) {
            let decision = books.decide(told).map_err(|contradiction| {
                let order_id = Uuid::from(told.ask().order_id);
                Failure::Definite(format!(
                    "{}, order {order_id}: {contradiction}",
                    event.event_type
                ))
            })?;
            changes.note(event, told, decision);
        }
        changes.write(tx, &books).await
    }
}

/// What a batch changes.
#[derive(Debug, Default)]
struct Changes {
    /// Orders that get their reservation, with the reason if it is refused.
    entered: BTreeMap<OrderId, Option<Refusal>>,
    /// Orders whose reservation was there before, and is released.
    released: BTreeSet<OrderId>,
    /// What customers have reserved more than before, or less.
    reserved: BTreeMap<CustomerId, i64>,
    answers: Vec<outbox::Event>,
}

impl Changes {
    fn note(&mut self, event: &Claimed, told: &Event, decision: Decision) {
        let ask = told.ask();
        let (order_id, customer_id) = (ask.order_id, ask.customer_id);
        // Of one customer, between zero and the limit: no overflow.
        match decision {
            Decision::Reserve => {
                self.entered.insert(order_id, None);
                *self.reserved.entry(customer_id).or_default() += ask.amount.minor_units();
                count_answered(None);
                self.tell(event, ask, &wire::credit_reserved(ask));
            }
            Decision::Refuse(refusal) => {
                self.entered.insert(order_id, Some(refusal));
                count_answered(Some(&refusal));
                self.answers.push(refused(ask, &refusal).caused_by(event));
            }
            Decision::Release(amount) => {
                if !self.entered.contains_key(&order_id) {
                    self.released.insert(order_id);
                }
                *self.reserved.entry(customer_id).or_default() -= amount.minor_units();
                metrics::counter!("credit_released_total").increment(1);
                self.tell(event, ask, &wire::credit_released(ask, amount));
            }
            Decision::Bar => {
                self.entered.insert(order_id, None);
                metrics::counter!("credit_tombstones_total").increment(1);
            }
            Decision::Ignore(state) => count_ignored(told, state),
        }
    }

    fn tell<M: prost::Message + prost::Name>(&mut self, event: &Claimed, ask: &Ask, message: &M) {
        let told = outbox::Event::new(AGGREGATE, ask.customer_id.into(), message);
        self.answers.push(told.caused_by(event));
    }

    async fn write(mut self, tx: &Transaction<'_>, books: &Books) -> Result<(), Failure> {
        self.reserved.retain(|_, change| *change != 0);
        // As the last event of the batch left them: reserved and released in one batch is released.
        let entries: Vec<store::Entry> = self
            .entered
            .into_iter()
            .filter_map(|(order_id, refusal)| {
                let reservation = *books.reservations.get(&order_id)?;
                Some(store::Entry {
                    order_id,
                    reservation,
                    refusal,
                })
            })
            .collect();
        // Sent together: one round trip for all. The first error counts, because what follows it
        // fails only for being in the same transaction.
        let now = store::now();
        let (entered, released, adjusted, appended) = tokio::join!(
            store::enter(tx, &entries, now),
            store::release(tx, &self.released, now),
            store::adjust(tx, &self.reserved),
            outbox::append(tx, &self.answers)
        );
        let entered = entered.map_err(failed)?;
        let released = released.map_err(failed)?;
        adjusted.map_err(failed)?;
        appended.map_err(Failure::from_postgres)?;
        if entered != entries.len() as u64 || released != self.released.len() as u64 {
            // Two deliveries of one order whose customer has no row to lock: the next try finds the
            // other's reservation, and says nothing more (I6).
            return Err(Failure::Transient(
                "another transaction has just answered one of these orders".into(),
            ));
        }
        Ok(())
    }
}

/// Retry, or dead letter. A row that this version cannot read is mended by a deployment.
fn failed(error: store::Error) -> Failure {
    match error {
        store::Error::Postgres(error) => Failure::from_postgres(error),
        unreadable @ store::Error::Unreadable { .. } => Failure::Transient(Box::new(unreadable)),
        other => Failure::Definite(chain(&other)),
    }
}

fn read(events: &[Claimed]) -> Result<Vec<Event>, Failure> {
    let read = |event: &Claimed| wire::event(&event.event_type, &event.payload);
    let told: Result<_, _> = events.iter().map(read).collect();
    told.map_err(|unreadable| match unreadable {
        // A newer version asked the common consumer for it, and reads it.
        wire::Unreadable::Type(_) => Failure::Unknown(unreadable.to_string()),
        wire::Unreadable::Protobuf(..)
        | wire::Unreadable::Field(..)
        | wire::Unreadable::Json(..) => Failure::Definite(unreadable.to_string()),
    })
}

fn refused(ask: &Ask, refusal: &Refusal) -> outbox::Event {
    let customer_id = ask.customer_id.into();
    match refusal {
        Refusal::CreditLimitExceeded { available } => {
            let exceeded = wire::credit_limit_exceeded(ask, *available);
            outbox::Event::new(AGGREGATE, customer_id, &exceeded)
        }
        Refusal::CustomerNotFound => {
            outbox::Event::new(AGGREGATE, customer_id, &wire::customer_not_found(ask))
        }
        Refusal::CurrencyMismatch { customer_currency } => {
            let mismatch = wire::currency_mismatch(ask, *customer_currency);
            outbox::Event::new(AGGREGATE, customer_id, &mismatch)
        }
    }
}

// Counted before the commit: a batch that is rolled back and applied again counts twice.
fn count_answered(refusal: Option<&Refusal>) {
    let answer = match refusal {
        None => "credit_reserved",
        Some(Refusal::CreditLimitExceeded { .. }) => "credit_limit_exceeded",
        Some(Refusal::CustomerNotFound) => "customer_not_found",
        Some(Refusal::CurrencyMismatch { .. }) => "currency_mismatch",
    };
    metrics::counter!("credit_answers_total", "answer" => answer).increment(1);
}

fn count_ignored(told: &Event, state: ReservationState) {
    let event = match told {
        Event::OrderCreated(_) => wire::ORDER_CREATED,
        Event::OrderCancelled(_) => wire::ORDER_CANCELLED,
    };
    metrics::counter!("customer_reactions_ignored_total",
                      "state" => store::state_name(state), "event" => event)
    .increment(1);
}
