//! What the Customer Service's answers do to orders: load → decide → store, a batch in one
//! transaction. The number of statements does not grow with the batch. An order is approved by a
//! reservation and by nothing else (I9).
//!
//! Danger: an answer can come before its order can be seen. Postgres writes a commit to the WAL, where
//! the relay reads it, a moment before other transactions see it: while the committing process has not
//! run on yet, and with synchronous replication until the standby has answered. Answers are quick. One
//! that was dropped for this would leave its order pending for ever (I8).
//!
//! What a newer version would read, this one leaves for it: during a rolling upgrade both share one
//! consumer, and a dead letter is final.

use chassis::failure::chain;
use mailbox::consumer::{Failure, Handler};
use mailbox::inbox::Claimed;
use tokio_postgres::Transaction;
use uuid::Uuid;

use crate::changes::Changes;
use crate::domain::{Answer, Input, OrderId};
use crate::{store, wire};

/// Settles orders by the answers about them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reactions;

impl Handler for Reactions {
    async fn handle(&self, tx: &Transaction<'_>, events: &[Claimed]) -> Result<(), Failure> {
        let answers = read(events)?;
        let asked = answers.iter().map(|(order_id, _)| *order_id).collect();
        let mut orders = store::lock(tx, &asked).await.map_err(failed)?;

        // Each answer finds what the one before it left, as if it had a transaction of its own.
        let now = store::now();
        let mut changes = Changes::default();
        for (event, (order_id, answer)) in events.iter().zip(answers) {
            let order = orders
                .get_mut(&order_id)
                .ok_or_else(|| unknown(event, order_id))?;
            changes.apply(order, Input::Answer(answer), now, Some(event));
        }
        changes.write(tx).await.map_err(failed)
    }
}

/// Retry, or dead letter. A row that this version cannot read is mended by a deployment.
fn failed(error: store::Error) -> Failure {
    match error {
        store::Error::Postgres(error) => Failure::from_postgres(error),
        unreadable @ store::Error::Unreadable(_) => Failure::Transient(Box::new(unreadable)),
        other => Failure::Definite(chain(&other)),
    }
}

fn read(events: &[Claimed]) -> Result<Vec<(OrderId, Answer)>, Failure> {
    let read = |event: &Claimed| wire::answer(&event.event_type, &event.payload);
    let answers: Result<_, _> = events.iter().map(read).collect();
    answers.map_err(|unreadable| match unreadable {
        // A newer version asked the common consumer for it, and reads it.
        wire::Unreadable::Type(_) => Failure::Unknown(unreadable.to_string()),
        wire::Unreadable::Protobuf(..)
        | wire::Unreadable::Field(..)
        | wire::Unreadable::Json(..) => Failure::Definite(unreadable.to_string()),
    })
}

/// An answer about an order that is not there is tried again for as long as it takes. No age tells an
/// order that cannot be seen yet from one that was lost with a restored database: clocks differ, and a
/// standby may hold a commit back for hours. The others do not wait for it; the metric and the log show
/// it to an operator.
fn unknown(event: &Claimed, order_id: OrderId) -> Failure {
    metrics::counter!("order_reactions_unknown_order_total", "event" => event.event_type.clone())
        .increment(1);
    let order_id = Uuid::from(order_id);
    let why = format!(
        "order {order_id} cannot be seen; if it stays so, was the database restored to an earlier point?"
    );
    Failure::Transient(why.into())
}
