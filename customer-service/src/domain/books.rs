//! An order's reservation, from what the Order Service tells of the order. Every (state, event) pair is
//! defined:
//!
//! ```text
//!             OrderCreated                                    OrderCancelled
//!   none      is there such a customer? no ─► refused         ─► released: a tombstone, which the
//!             is it the same currency?  no ─► refused            OrderCreated that is late finds
//!             does it fit what is left? no ─► refused
//!                                      yes ─► active
//!   active    —                                               ─► released, and the amount given back
//!   refused   —                                               —
//!   released  —                                               —
//! ```
//!
//! `—` changes nothing and says nothing: events come twice and late, and before their predecessors (I6).
//! To an order that finds the tombstone nothing is said either. It is cancelled, so no answer could
//! change it, and a reservation would only have to be released again (I9).

use std::collections::BTreeMap;

use super::{Account, Amount, Currency, CustomerId, OrderId};

/// An order, as its events tell of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    pub order_id: OrderId,
    pub customer_id: CustomerId,
    pub amount: Amount,
}

/// What the Order Service tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The order asks for credit.
    OrderCreated(Ask),
    /// The order needs no credit any more, for whatever reason.
    OrderCancelled(Ask),
}

/// Why credit is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    CustomerNotFound,
    CurrencyMismatch {
        customer_currency: Currency,
    },
    CreditLimitExceeded {
        /// What is left, in the account's minor units.
        available: i64,
    },
}

/// Why credit is refused, without the particulars of the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalKind {
    CustomerNotFound,
    CurrencyMismatch,
    CreditLimitExceeded,
}

impl Refusal {
    pub fn kind(&self) -> RefusalKind {
        match self {
            Self::CustomerNotFound => RefusalKind::CustomerNotFound,
            Self::CurrencyMismatch { .. } => RefusalKind::CurrencyMismatch,
            Self::CreditLimitExceeded { .. } => RefusalKind::CreditLimitExceeded,
        }
    }
}

/// Where an order's reservation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReservationState {
    /// Its amount counts as reserved.
    Active,
    Refused,
    /// Held no longer, or never, and not to be had again.
    Released,
}

/// What was entered for an order. There is one for each order at most (I6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reservation {
    pub customer_id: CustomerId,
    pub amount: Amount,
    pub state: ReservationState,
}

/// What an event leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Reserve,
    Refuse(Refusal),
    /// The amount of the reservation is given back.
    Release(Amount),
    /// The order was cancelled before it asked: it shall not reserve when it does.
    Bar,
    /// Nothing, as the reservation stands so.
    Ignore(ReservationState),
}

/// An event that cannot be true together with the books.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Contradiction {
    #[error("the order's reservation is another customer's")]
    OtherCustomer,
    #[error("the customer has less reserved than the order's reservation")]
    NotReserved,
}

/// The accounts and reservations that a batch of events concerns, as they stand from one event to the
/// next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Books {
    pub accounts: BTreeMap<CustomerId, Account>,
    pub reservations: BTreeMap<OrderId, Reservation>,
}

/// What remains to be decided about an order, by the state of its reservation; none is an order that
/// nothing was heard of yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Reserve, if the account allows it.
    Answer,
    Release,
    Bar,
    Ignore(ReservationState),
}

/// What an event asks of an order's reservation in this state: defined for every pair.
pub fn react(state: Option<ReservationState>, event: &Event) -> Step {
    match (state, event) {
        (None, Event::OrderCreated(_)) => Step::Answer,
        (None, Event::OrderCancelled(_)) => Step::Bar,
        (Some(ReservationState::Active), Event::OrderCancelled(_)) => Step::Release,
        (Some(state @ ReservationState::Active), Event::OrderCreated(_))
        | (Some(state @ (ReservationState::Refused | ReservationState::Released)), _) => {
            Step::Ignore(state)
        }
    }
}

impl Event {
    /// The order that it tells of.
    pub fn ask(&self) -> &Ask {
        match self {
            Self::OrderCreated(ask) | Self::OrderCancelled(ask) => ask,
        }
    }
}

impl Books {
    /// Decides on one event, and enters what was decided, so that the next one finds it.
    pub fn decide(&mut self, event: &Event) -> Result<Decision, Contradiction> {
        let ask = event.ask();
        let present = self.reservations.get(&ask.order_id).copied();
        let (state, decision) = match react(present.map(|found| found.state), event) {
            Step::Answer => match self.reserve(ask) {
                Ok(()) => (ReservationState::Active, Decision::Reserve),
                Err(refusal) => (ReservationState::Refused, Decision::Refuse(refusal)),
            },
            Step::Release => {
                let held = self.release(ask)?;
                (ReservationState::Released, Decision::Release(held))
            }
            Step::Bar => (ReservationState::Released, Decision::Bar),
            Step::Ignore(state) => return Ok(Decision::Ignore(state)),
        };
        // What was reserved is what is released, whatever a later event says of the order.
        let entered = self.reservations.entry(ask.order_id);
        let entered = entered.or_insert(Reservation {
            customer_id: ask.customer_id,
            amount: ask.amount,
            state,
        });
        entered.state = state;
        Ok(decision)
    }

    fn reserve(&mut self, ask: &Ask) -> Result<(), Refusal> {
        match self.accounts.get_mut(&ask.customer_id) {
            Some(account) => account.reserve(ask.amount),
            None => Err(Refusal::CustomerNotFound),
        }
    }

    fn release(&mut self, ask: &Ask) -> Result<Amount, Contradiction> {
        let held = self.reservations.get(&ask.order_id);
        let held = held.ok_or(Contradiction::NotReserved)?;
        // The account of any other customer is not locked.
        if held.customer_id != ask.customer_id {
            return Err(Contradiction::OtherCustomer);
        }
        let account = self.accounts.get_mut(&held.customer_id);
        account
            .ok_or(Contradiction::NotReserved)?
            .release(held.amount)?;
        Ok(held.amount)
    }
}
