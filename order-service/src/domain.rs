//! An order's life, and nothing else: no protobuf, no SQL, no clock.
//!
//! ```text
//!              CreditReserved
//!   pending ────────────────────────────────► approved
//!      │      CreditLimitExceeded
//!      │      CustomerNotFound
//!      └───── CurrencyMismatch ─────────────► cancelled(reason)
//! ```
//!
//! Every other (state, answer) pair changes nothing: answers come twice and late (I6).

use std::time::SystemTime;

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
}

/// Where an order stands. Approved and cancelled are final.
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

/// What an answer does to an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Approve,
    Cancel(Reason),
    /// Nothing: the order is settled already.
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
    /// A new order: pending until the Customer Service has answered.
    pub fn place(
        order_id: OrderId,
        customer_id: CustomerId,
        total: Total,
        now: SystemTime,
    ) -> Self {
        Self {
            order_id,
            customer_id,
            total,
            state: State::Pending,
            create_time: now,
            update_time: now,
        }
    }

    /// Lets an answer take effect, and tells what it did. `update_time` never steps back, whatever
    /// the clock does.
    pub fn apply(&mut self, answer: Answer, now: SystemTime) -> Decision {
        let decision = react(self.state, answer);
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

/// What an answer does to an order in this state: defined for every pair.
pub fn react(state: State, answer: Answer) -> Decision {
    match (state, answer) {
        (State::Pending, Answer::CreditReserved) => Decision::Approve,
        (State::Pending, Answer::CreditLimitExceeded) => {
            Decision::Cancel(Reason::CreditLimitExceeded)
        }
        (State::Pending, Answer::CustomerNotFound) => Decision::Cancel(Reason::UnknownCustomer),
        (State::Pending, Answer::CurrencyMismatch) => Decision::Cancel(Reason::CurrencyMismatch),
        (State::Approved | State::Cancelled(_), _) => Decision::Ignore,
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    const ANSWERS: [Answer; 4] = [
        Answer::CreditReserved,
        Answer::CreditLimitExceeded,
        Answer::CustomerNotFound,
        Answer::CurrencyMismatch,
    ];
    const SETTLED: [State; 4] = [
        State::Approved,
        State::Cancelled(Reason::CreditLimitExceeded),
        State::Cancelled(Reason::UnknownCustomer),
        State::Cancelled(Reason::CurrencyMismatch),
    ];

    fn usd(minor_units: i64) -> Result<Total, NonPositiveTotal> {
        Total::new(minor_units, Currency::new("USD").unwrap())
    }

    fn order() -> Order {
        let now = UNIX_EPOCH + Duration::from_secs(1_000);
        Order::place(
            OrderId([1; 16]),
            CustomerId([2; 16]),
            usd(100).unwrap(),
            now,
        )
    }

    #[test]
    fn each_answer_settles_a_pending_order_in_its_own_way() {
        let outcomes = ANSWERS.map(|answer| {
            let mut order = order();
            order.apply(answer, UNIX_EPOCH + Duration::from_secs(1_001));
            order.state
        });
        assert_eq!(outcomes, SETTLED);
    }

    #[test]
    fn a_settled_order_ignores_every_answer() {
        for state in SETTLED {
            for answer in ANSWERS {
                assert_eq!(
                    react(state, answer),
                    Decision::Ignore,
                    "{state:?} {answer:?}"
                );
                let before = Order { state, ..order() };
                let mut after = before;
                after.apply(answer, UNIX_EPOCH + Duration::from_secs(2_000));
                assert_eq!(after, before, "{state:?} {answer:?}");
            }
        }
    }

    #[test]
    fn update_time_moves_with_the_state_and_never_back() {
        let mut later = order();
        later.apply(
            Answer::CreditReserved,
            UNIX_EPOCH + Duration::from_secs(1_001),
        );
        assert_eq!(later.update_time, UNIX_EPOCH + Duration::from_secs(1_001));

        let mut clock_stepped_back = order();
        clock_stepped_back.apply(Answer::CreditReserved, UNIX_EPOCH);
        assert_eq!(clock_stepped_back.update_time, order().create_time);
    }

    #[test]
    fn a_total_is_more_than_zero() {
        assert_eq!(usd(1).unwrap().minor_units(), 1);
        assert_eq!(usd(i64::MAX).unwrap().minor_units(), i64::MAX);
        for minor_units in [0, -1, i64::MIN] {
            assert_eq!(usd(minor_units), Err(NonPositiveTotal), "{minor_units}");
        }
    }

    #[test]
    fn a_currency_is_three_upper_case_letters() {
        assert_eq!(Currency::new("JPY").unwrap().code(), "JPY");
        for code in ["", "US", "USDX", "usd", "U5D", "€", "U\u{00c4}", " USD"] {
            assert_eq!(Currency::new(code), Err(MalformedCurrency), "{code:?}");
        }
    }
}
