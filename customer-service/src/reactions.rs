//! What `OrderCreated` does to customers' credit: load → decide → store, a batch in one transaction.
//! The number of statements does not grow with the batch. The answer that an order is approved by
//! commits with the reservation that it tells of (I9).
//!
//! Danger: the reservations are read after the customers' rows are locked. Read before, they would
//! miss what the transaction that the lock waited for has just reserved for the same order; only the
//! key of `reservations` would then stand between that order and a second answer.
//!
//! What a newer version would read, this one leaves for it: during a rolling upgrade both share one
//! consumer, and a dead letter is final.

use std::collections::BTreeMap;

use chassis::failure::chain;
use mailbox::consumer::{Failure, Handler};
use mailbox::inbox::Claimed;
use mailbox::outbox;
use tokio_postgres::Transaction;

use crate::api::AGGREGATE;
use crate::domain::{Ask, Books, CustomerId, Decision, Refusal, ReservationState};
use crate::{store, wire};

/// Reserves credit for the orders that ask, and answers each.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reactions;

impl Handler for Reactions {
    async fn handle(&self, tx: &Transaction<'_>, events: &[Claimed]) -> Result<(), Failure> {
        let asks = read(events)?;
        let customers = asks.iter().map(|ask| ask.customer_id).collect();
        let orders = asks.iter().map(|ask| ask.order_id).collect();
        let accounts = store::lock_accounts(tx, &customers).await;
        let accounts = accounts.map_err(failed)?;
        let reservations = store::reservations(tx, &orders).await;
        let reservations = reservations.map_err(failed)?;

        // Each ask finds what the one before it left, as if it had a transaction of its own.
        let mut books = Books {
            accounts,
            reservations,
        };
        let mut entries = Vec::new();
        let mut reserved: BTreeMap<CustomerId, i64> = BTreeMap::new();
        let mut answers = Vec::new();
        for (event, ask) in events.iter().zip(asks) {
            let refusal = match books.decide(&ask) {
                Decision::Reserve => {
                    // Of one customer within one limit: no overflow.
                    *reserved.entry(ask.customer_id).or_default() += ask.amount.minor_units();
                    None
                }
                Decision::Refuse(refusal) => Some(refusal),
                Decision::Ignore(state) => {
                    count_ignored(state);
                    continue;
                }
            };
            count_answered(refusal.as_ref());
            answers.push(answer(&ask, refusal.as_ref()).caused_by(event));
            entries.push((ask, refusal));
        }
        if entries.is_empty() {
            return Ok(());
        }
        write(tx, &entries, &reserved, &answers).await
    }
}

async fn write(
    tx: &Transaction<'_>,
    entries: &[store::Reservation],
    reserved: &BTreeMap<CustomerId, i64>,
    answers: &[outbox::Event],
) -> Result<(), Failure> {
    // Sent together: one round trip for all. The first error counts, because what follows it fails
    // only for being in the same transaction.
    let (entered, reserved, appended) = tokio::join!(
        store::enter(tx, entries, store::now()),
        store::reserve(tx, reserved),
        outbox::append(tx, answers)
    );
    let entered = entered.map_err(failed)?;
    reserved.map_err(failed)?;
    appended.map_err(Failure::from_postgres)?;
    if entered != entries.len() as u64 {
        // Two deliveries of one order whose customer has no row to lock: the next try finds the
        // other's reservation, and says nothing more (I6).
        return Err(Failure::Transient(
            "another transaction has just answered one of these orders".into(),
        ));
    }
    Ok(())
}

/// Retry, or dead letter. A row that this version cannot read is mended by a deployment.
fn failed(error: store::Error) -> Failure {
    match error {
        store::Error::Postgres(error) => Failure::from_postgres(error),
        unreadable @ store::Error::Unreadable { .. } => Failure::Transient(Box::new(unreadable)),
        other => Failure::Definite(chain(&other)),
    }
}

fn read(events: &[Claimed]) -> Result<Vec<Ask>, Failure> {
    let read = |event: &Claimed| wire::ask(&event.event_type, &event.payload);
    let asks: Result<_, _> = events.iter().map(read).collect();
    asks.map_err(|unreadable| match unreadable {
        // A newer version asked the common consumer for it, and reads it.
        wire::Unreadable::Type(_) => Failure::Transient(Box::new(unreadable)),
        wire::Unreadable::Protobuf(_) | wire::Unreadable::Field(_) => {
            Failure::Definite(unreadable.to_string())
        }
    })
}

fn answer(ask: &Ask, refusal: Option<&Refusal>) -> outbox::Event {
    let customer_id = ask.customer_id.into();
    match refusal {
        None => outbox::Event::new(AGGREGATE, customer_id, &wire::credit_reserved(ask)),
        Some(Refusal::CreditLimitExceeded { available }) => {
            let exceeded = wire::credit_limit_exceeded(ask, *available);
            outbox::Event::new(AGGREGATE, customer_id, &exceeded)
        }
        Some(Refusal::CustomerNotFound) => {
            outbox::Event::new(AGGREGATE, customer_id, &wire::customer_not_found(ask))
        }
        Some(Refusal::CurrencyMismatch { customer_currency }) => {
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

fn count_ignored(state: ReservationState) {
    let state = match state {
        ReservationState::Active => "active",
        ReservationState::Refused => "refused",
        ReservationState::Released => "released",
    };
    metrics::counter!("customer_reactions_ignored_total",
                      "state" => state, "event" => wire::ORDER_CREATED)
    .increment(1);
}
