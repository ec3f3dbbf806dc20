//! An order's life, and nothing else: no protobuf, no SQL, no clock.
//!
//! ```text
//!              CreditReserved                           cancel
//!   pending ────────────────────────────────► approved ──────┐
//!      │      CreditLimitExceeded                            ▼
//!      │      CustomerNotFound
//!      ├───── CurrencyMismatch ─────────────► cancelled(reason)
//!      └───── cancel, deadline passed ──────►
//! ```
//!
//! Every other (state, input) pair changes nothing: answers come twice and late (I6), two clients cancel
//! at once, and a deadline passes unnoticed by an order that is settled. An answer that comes to a
//! cancelled order is not lost: `OrderCancelled` makes the Customer Service release what it reserved,
//! whichever of the two was first (I9).

use std::time::{Duration, SystemTime};

/// The order's id: the bytes of a UUIDv7, which order by time of creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrderId(pub [u8; 16]);

/// The paying customer's id: the bytes of a UUID. Whether there is such a customer is not known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CustomerId(pub [u8; 16]);

/// A currency code in the form of ISO 4217: three upper-case letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Currency([u8; 3]);

/// What an order costs: more than zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Total {
    minor_units: i64,
    currency: Currency,
}

/// Why an order was cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    CreditLimitExceeded,
    UnknownCustomer,
    CurrencyMismatch,
    /// A client wanted it so.
    ByCustomer,
    /// Nobody answered before the order's deadline.
    TimedOut,
}

/// Where an order stands. Cancelled is final; approved is, unless the order is cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Pending,
    Approved,
    Cancelled(Reason),
}

/// What the Customer Service says about an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    CreditReserved,
    CreditLimitExceeded,
    CustomerNotFound,
    CurrencyMismatch,
}

/// What can befall an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    Answer(Answer),
    /// A client cancels it.
    Cancel,
    /// Its deadline has passed.
    TimeOut,
}

/// What an input does to an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Approve,
    Cancel(Reason),
    /// Nothing: the order stands where this makes no difference.
    Ignore,
}

/// An order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    pub order_id: OrderId,
    pub customer_id: CustomerId,
    pub total: Total,
    pub state: State,
    pub create_time: SystemTime,
    /// When the state last changed.
    pub update_time: SystemTime,
    /// Until when it may be pending (I8).
    pub deadline: SystemTime,
}

/// A currency code that does not have the form of ISO 4217.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be three upper-case letters of ISO 4217, such as USD")]
pub struct MalformedCurrency;

/// An order that would cost nothing, or less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be more than zero")]
pub struct NonPositiveTotal;

impl Currency {
    /// Checks the form only; which codes are in use is the business of whoever takes requests.
    pub fn new(code: &str) -> Result<Self, MalformedCurrency> {
        let letters: [u8; 3] = code.as_bytes().try_into().map_err(|_| MalformedCurrency)?;
        if letters.iter().all(u8::is_ascii_uppercase) {
            Ok(Self(letters))
        } else {
            Err(MalformedCurrency)
        }
    }

    /// The three letters.
    pub fn code(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default() // ASCII, as `new` saw to
    }
}

impl Total {
    /// `minor_units` in the currency's minor unit (cents for USD, yen for JPY).
    pub fn new(minor_units: i64, currency: Currency) -> Result<Self, NonPositiveTotal> {
        if minor_units > 0 {
            Ok(Self {
                minor_units,
                currency,
            })
        } else {
            Err(NonPositiveTotal)
        }
    }

    pub fn minor_units(&self) -> i64 {
        self.minor_units
    }

    pub fn currency(&self) -> Currency {
        self.currency
    }
}

impl Order {
    /// A new order: pending until the Customer Service has answered, and for `patience` at most.
    pub fn place(
        order_id: OrderId,
        customer_id: CustomerId,
        total: Total,
        now: SystemTime,
        patience: Duration,
    ) -> Self {
        Self {
            order_id,
            customer_id,
            total,
            state: State::Pending,
            create_time: now,
            update_time: now,
            deadline: now + patience,
        }
    }

    /// Lets an input take effect, and tells what it did. A deadline that has not passed yet changes
    /// nothing. `update_time` never steps back, whatever the clock does.
    pub fn apply(&mut self, input: Input, now: SystemTime) -> Decision {
        if input == Input::TimeOut && now < self.deadline {
            return Decision::Ignore;
        }
        let decision = react(self.state, input);
        let state = match decision {
            Decision::Approve => State::Approved,
            Decision::Cancel(reason) => State::Cancelled(reason),
            Decision::Ignore => return decision,
        };
        self.state = state;
        self.update_time = self.update_time.max(now);
        decision
    }
}

/// What an input does to an order in this state: defined for every pair.
pub fn react(state: State, input: Input) -> Decision {
    match (state, input) {
        (State::Pending, Input::Answer(Answer::CreditReserved)) => Decision::Approve,
        (State::Pending, Input::Answer(Answer::CreditLimitExceeded)) => {
            Decision::Cancel(Reason::CreditLimitExceeded)
        }
        (State::Pending, Input::Answer(Answer::CustomerNotFound)) => {
            Decision::Cancel(Reason::UnknownCustomer)
        }
        (State::Pending, Input::Answer(Answer::CurrencyMismatch)) => {
            Decision::Cancel(Reason::CurrencyMismatch)
        }
        (State::Pending | State::Approved, Input::Cancel) => Decision::Cancel(Reason::ByCustomer),
        (State::Pending, Input::TimeOut) => Decision::Cancel(Reason::TimedOut),
        (State::Approved, Input::Answer(_) | Input::TimeOut) | (State::Cancelled(_), _) => {
            Decision::Ignore
        }
    }
}

#[cfg(test)]
mod tests;
