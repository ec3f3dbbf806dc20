//! Customers and their credit, and nothing else: no protobuf, no SQL, no clock.

use std::time::SystemTime;

mod account;
mod books;
mod name;

pub use self::account::{
    Account, Amount, CreditLimit, LimitChange, LimitRefusal, NegativeLimit, NonPositiveAmount,
    OverReserved,
};
pub use self::books::{
    Ask, Books, Contradiction, Decision, Event, Refusal, RefusalKind, Reservation,
    ReservationState, Step, react,
};
pub use self::name::{InvalidName, NAME_CHARS_MAX, Name};

/// The customer's id: the bytes of a UUID; of those created here, a UUIDv7, which orders by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CustomerId(pub [u8; 16]);

/// The id of the order that credit is reserved for: the bytes of a UUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrderId(pub [u8; 16]);

/// A currency code in the form of ISO 4217: three upper-case letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Currency([u8; 3]);

/// A customer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Customer {
    pub customer_id: CustomerId,
    pub name: Name,
    pub account: Account,
    pub create_time: SystemTime,
}

/// A currency code that does not have the form of ISO 4217.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be three upper-case letters of ISO 4217, such as USD")]
pub struct MalformedCurrency;

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

#[cfg(test)]
mod tests;
