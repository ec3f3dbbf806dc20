//! The operations, and their shares of the load.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use crate::value::rate;

/// What a request does.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Operation {
    /// Places an order.
    Create,
    /// Reads one of the latest orders.
    Get,
    /// Cancels one of the latest orders.
    Cancel,
    /// Follows the latest order up to its outcome; over NATS, a `GetOrder` that waits for it.
    Watch,
}

impl Operation {
    pub(crate) const ALL: [Self; 4] = [Self::Create, Self::Get, Self::Cancel, Self::Watch];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Get => "get",
            Self::Cancel => "cancel",
            Self::Watch => "watch",
        }
    }
}

/// Shares, in the order of [`Operation::ALL`]; they sum to one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Mix([f64; 4]);

impl Mix {
    /// The operation that belongs to a number from 0 to 1.
    pub(crate) fn draw(&self, number: f64) -> Operation {
        let mut up_to = 0.0;
        for (operation, share) in self.shares() {
            up_to += share;
            if number < up_to {
                return operation;
            }
        }
        let mut given = self.shares().filter(|(_, share)| *share > 0.0);
        given
            .next_back()
            .map_or(Operation::Create, |(operation, _)| operation)
    }

    pub(crate) fn shares(&self) -> impl DoubleEndedIterator<Item = (Operation, f64)> {
        Operation::ALL.into_iter().zip(self.0)
    }
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut shares = [0.0; 4];
        for part in text.split(',') {
            let (name, share) = part
                .split_once('=')
                .ok_or_else(|| format!("{part:?} is not a share such as create=70"))?;
            let index = Operation::ALL.iter().position(|one| one.name() == name);
            let index = index.ok_or_else(|| {
                format!("{name:?} is none of the operations create, get, cancel and watch")
            })?;
            shares[index] = rate(share)?;
        }
        let sum: f64 = shares.iter().sum();
        match sum > 0.0 && sum.is_finite() {
            true => Ok(Self(shares.map(|share| share / sum))),
            false => Err("must have a share of more than 0".to_owned()),
        }
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let given = self.shares().filter(|(_, share)| *share > 0.0);
        let parts: Vec<_> = given
            .map(|(operation, share)| format!("{} {:.0}%", operation.name(), share * 100.0))
            .collect();
        f.write_str(&parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_come_by_their_shares() {
        let mix: Mix = "create=7,get=2,watch=1".parse().unwrap();
        let drawn = |operation| {
            let draws = (0..1000).map(|number| mix.draw(f64::from(number) / 1000.0));
            draws.filter(|one| *one == operation).count()
        };
        assert!(drawn(Operation::Create).abs_diff(700) <= 1);
        assert!(drawn(Operation::Get).abs_diff(200) <= 1);
        assert_eq!(drawn(Operation::Cancel), 0);
        assert!(drawn(Operation::Watch).abs_diff(100) <= 1);
        assert_eq!(mix.draw(1.0), Operation::Watch);
        for wrong in ["", "create", "create=0", "list=1", "create=-1", "get=x"] {
            assert!(wrong.parse::<Mix>().is_err(), "{wrong}");
        }
    }
}
