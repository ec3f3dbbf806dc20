//! Limits, and what of them is taken.
//!
//! 0 ≤ reserved ≤ limit, always (I7): so what is left neither overflows nor falls below zero.

use super::{Contradiction, Currency, Refusal};

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

/// What setting a limit has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitChange {
    /// Nothing: it was the limit already.
    None,
    From(CreditLimit),
}

/// Why a limit cannot be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitRefusal {
    OtherCurrency {
        account: Currency,
    },
    /// More is reserved than the new limit would allow, by so many minor units.
    BelowReserved {
        reserved: i64,
        short_by: i64,
    },
}

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

    /// Puts another limit in the place of this one. What is reserved stays reserved, so the limit cannot
    /// fall below it (I7); and it stays in the account's currency, in which the reservations are.
    pub fn set_limit(&mut self, limit: CreditLimit) -> Result<LimitChange, LimitRefusal> {
        let previous = self.limit;
        if limit.currency != previous.currency {
            return Err(LimitRefusal::OtherCurrency {
                account: previous.currency,
            });
        }
        if limit.minor_units < self.reserved {
            return Err(LimitRefusal::BelowReserved {
                reserved: self.reserved,
                short_by: self.reserved - limit.minor_units, // both zero or more: no overflow
            });
        }
        if limit == previous {
            return Ok(LimitChange::None);
        }
        self.limit = limit;
        Ok(LimitChange::From(previous))
    }

    /// Takes the amount, all of it or nothing; what fits exactly fits.
    pub(super) fn reserve(&mut self, amount: Amount) -> Result<(), Refusal> {
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

    /// Gives back what was taken.
    pub(super) fn release(&mut self, amount: Amount) -> Result<(), Contradiction> {
        if amount.currency != self.limit.currency || amount.minor_units > self.reserved {
            return Err(Contradiction::NotReserved);
        }
        self.reserved -= amount.minor_units;
        Ok(())
    }
}
