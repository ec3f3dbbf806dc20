//! Customers and their credit, and nothing else: no protobuf, no SQL, no clock.
//!
//! ```text
//!   an order asks ─► has it been answered before? ─► nothing more is said (I6)
//!                    is there such a customer?    no ─► CustomerNotFound
//!                    is it the same currency?     no ─► CurrencyMismatch
//!                    does it fit what is left?    no ─► CreditLimitExceeded
//!                                                yes ─► reserved += total      (I7)
//! ```
//!
//! 0 ≤ reserved ≤ limit, always: so what is left neither overflows nor falls below zero.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::SystemTime;

/// Characters in a name at most.
pub const NAME_CHARS_MAX: usize = 200;

/// The customer's id: the bytes of a UUID; of those created here, a UUIDv7, which orders by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CustomerId(pub [u8; 16]);

/// The id of the order that asks for credit: the bytes of a UUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrderId(pub [u8; 16]);

/// A currency code in the form of ISO 4217: three upper-case letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Currency([u8; 3]);

/// Format characters that nobody sees and that make a name pass for another one, or break its line:
/// zero width space and its like, directional embeddings, overrides and isolates, line separators.
const DECEPTIVE: [RangeInclusive<char>; 5] = [
    '\u{200b}'..='\u{200b}',
    '\u{2028}'..='\u{202e}',
    '\u{2060}'..='\u{2060}',
    '\u{2066}'..='\u{2069}',
    '\u{feff}'..='\u{feff}',
];
/// What shows nothing by itself, but has its place in a name: soft hyphen, joiners and marks of
/// direction; the fillers of Hangul and Braille's blank.
const UNSEEN: [RangeInclusive<char>; 7] = [
    '\u{ad}'..='\u{ad}',
    '\u{34f}'..='\u{34f}',
    '\u{61c}'..='\u{61c}',
    '\u{115f}'..='\u{1160}',
    '\u{200c}'..='\u{200f}',
    '\u{2800}'..='\u{2800}',
    '\u{3164}'..='\u{3164}',
];

/// A customer's name: 1 to 200 characters, not all blank, without control characters and without
/// format characters that deceive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(String);

/// The most that may be reserved at one time: zero or more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CreditLimit {
    minor_units: i64,
    currency: Currency,
}

/// What an order asks to reserve: more than zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amount {
    minor_units: i64,
    currency: Currency,
}

/// A limit, and what of it is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    limit: CreditLimit,
    reserved: i64,
}

/// A customer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Customer {
    pub customer_id: CustomerId,
    pub name: Name,
    pub account: Account,
    pub create_time: SystemTime,
}

/// An order that asks for credit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    pub order_id: OrderId,
    pub customer_id: CustomerId,
    pub amount: Amount,
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

/// Where an order's reservation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReservationState {
    /// Its amount counts as reserved.
    Active,
    Refused,
    /// Held no longer, and not to be had again.
    Released,
}

/// What is answered to an order that asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Reserve,
    Refuse(Refusal),
    /// Nothing: it was answered before, and its reservation stands so.
    Ignore(ReservationState),
}

/// The accounts and reservations that a batch of asks concerns, as they stand from one ask to the
/// next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Books {
    pub accounts: BTreeMap<CustomerId, Account>,
    pub reservations: BTreeMap<OrderId, ReservationState>,
}

/// A currency code that does not have the form of ISO 4217.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be three upper-case letters of ISO 4217, such as USD")]
pub struct MalformedCurrency;

/// A limit below zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be zero or more")]
pub struct NegativeLimit;

/// An amount that reserves nothing, or less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be more than zero")]
pub struct NonPositiveAmount;

/// More reserved than the limit, or less than nothing: an account that cannot be (I7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reserved} reserved of a limit of {limit}")]
pub struct OverReserved {
    reserved: i64,
    limit: i64,
}

/// A name that cannot be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    #[error("must not be empty or all blank")]
    Blank,
    #[error("must have at most {NAME_CHARS_MAX} characters")]
    TooLong,
    #[error("must not contain control characters, such as line breaks")]
    ControlCharacter,
    #[error("must not contain invisible characters, such as U+200B or U+202E")]
    DeceptiveCharacter,
}

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

impl Name {
    pub fn new(name: String) -> Result<Self, InvalidName> {
        if name.chars().nth(NAME_CHARS_MAX).is_some() {
            Err(InvalidName::TooLong)
        } else if name.contains(char::is_control) {
            Err(InvalidName::ControlCharacter)
        } else if name.contains(|c| is_in(&DECEPTIVE, c)) {
            Err(InvalidName::DeceptiveCharacter)
        } else if name.chars().all(|c| c.is_whitespace() || is_in(&UNSEEN, c)) {
            Err(InvalidName::Blank)
        } else {
            Ok(Self(name))
        }
    }

    /// A name as it was kept: taken once, perhaps by rules that were laxer.
    pub fn kept(name: String) -> Self {
        Self(name)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_in(ranges: &[RangeInclusive<char>], c: char) -> bool {
    ranges.iter().any(|range| range.contains(&c))
}

impl CreditLimit {
    /// `minor_units` in the currency's minor unit (cents for USD, yen for JPY).
    pub fn new(minor_units: i64, currency: Currency) -> Result<Self, NegativeLimit> {
        if minor_units >= 0 {
            Ok(Self {
                minor_units,
                currency,
            })
        } else {
            Err(NegativeLimit)
        }
    }

    pub fn minor_units(&self) -> i64 {
        self.minor_units
    }

    pub fn currency(&self) -> Currency {
        self.currency
    }
}

impl Amount {
    /// `minor_units` in the currency's minor unit (cents for USD, yen for JPY).
    pub fn new(minor_units: i64, currency: Currency) -> Result<Self, NonPositiveAmount> {
        if minor_units > 0 {
            Ok(Self {
                minor_units,
                currency,
            })
        } else {
            Err(NonPositiveAmount)
        }
    }

    pub fn minor_units(&self) -> i64 {
        self.minor_units
    }

    pub fn currency(&self) -> Currency {
        self.currency
    }
}

impl Account {
    /// An account of which nothing is taken yet.
    pub fn open(limit: CreditLimit) -> Self {
        Self { limit, reserved: 0 }
    }

    /// An account as it was kept: `reserved` minor units of the limit are taken.
    pub fn reopen(limit: CreditLimit, reserved: i64) -> Result<Self, OverReserved> {
        if (0..=limit.minor_units).contains(&reserved) {
            Ok(Self { limit, reserved })
        } else {
            Err(OverReserved {
                reserved,
                limit: limit.minor_units,
            })
        }
    }

    pub fn limit(&self) -> CreditLimit {
        self.limit
    }

    /// Minor units that are taken.
    pub fn reserved(&self) -> i64 {
        self.reserved
    }

    /// Minor units that are left; never below zero.
    pub fn available(&self) -> i64 {
        self.limit.minor_units - self.reserved
    }

    /// Takes the amount, all of it or nothing; what fits exactly fits.
    fn reserve(&mut self, amount: Amount) -> Result<(), Refusal> {
        if amount.currency != self.limit.currency {
            return Err(Refusal::CurrencyMismatch {
                customer_currency: self.limit.currency,
            });
        }
        let available = self.available();
        if amount.minor_units > available {
            return Err(Refusal::CreditLimitExceeded { available });
        }
        self.reserved += amount.minor_units; // at most the limit: no overflow
        assert!(self.reserved <= self.limit.minor_units, "I7");
        Ok(())
    }
}

impl Books {
    /// Decides on one ask, and enters what was decided, so that the next ask finds it. Defined for
    /// every combination of account and reservation, present or not.
    pub fn decide(&mut self, ask: &Ask) -> Decision {
        if let Some(state) = self.reservations.get(&ask.order_id) {
            return Decision::Ignore(*state);
        }
        let reserved = match self.accounts.get_mut(&ask.customer_id) {
            Some(account) => account.reserve(ask.amount),
            None => Err(Refusal::CustomerNotFound),
        };
        let (state, decision) = match reserved {
            Ok(()) => (ReservationState::Active, Decision::Reserve),
            Err(refusal) => (ReservationState::Refused, Decision::Refuse(refusal)),
        };
        self.reservations.insert(ask.order_id, state);
        decision
    }
}

#[cfg(test)]
mod tests;
