//! What is asked of a run: `p99=250ms`, `settled-p99.9=2s`, `errors=0.1%`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Serialize;

use crate::record::Numbers;
use crate::value::{share, time};

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Slo {
    text: String,
    bound: Bound,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Bound {
    /// A quantile of the time from due to answered.
    Request(f64, Duration),
    /// A quantile of the time from due to settled.
    Settled(f64, Duration),
    /// The share of requests that failed or were not sent.
    Errors(f64),
}

/// How it came out. Values are milliseconds, or a share.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Verdict {
    pub(crate) slo: String,
    pub(crate) bound: f64,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    pub(crate) met: bool,
}

impl Slo {
    pub(crate) fn judge(&self, numbers: &Numbers) -> Verdict {
        let (bound, value, unit, counted) = match self.bound {
            Bound::Request(quantile, bound) => {
                let value = numbers.request.value_at_quantile(quantile);
                let counted = numbers.request.len();
                (milliseconds(bound), value as f64 / 1e3, "ms", counted)
            }
            Bound::Settled(quantile, bound) => {
                let value = numbers.settled.value_at_quantile(quantile);
                let counted = numbers.settled.len();
                (milliseconds(bound), value as f64 / 1e3, "ms", counted)
            }
            Bound::Errors(bound) => {
                let of = |count: fn(&crate::record::OfOperation) -> u64| -> u64 {
                    numbers.operations.iter().map(count).sum()
                };
                let (offered, wrong) = (of(|one| one.offered), of(|one| one.failed() + one.unsent));
                let value = wrong as f64 / offered.max(1) as f64;
                (bound, value, "share", offered)
            }
        };
        Verdict {
            slo: self.text.clone(),
            bound,
            value,
            unit,
            // What was not seen once has not been met.
            met: counted > 0 && value <= bound,
        }
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.met { "met" } else { "MISSED" };
        let value = match self.unit {
            "ms" => format!("{:.1} ms", self.value),
            _ => format!("{:.3}%", self.value * 100.0),
        };
        write!(f, "{word}: {} is {value}", self.slo)
    }
}

impl FromStr for Slo {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("{text:?} is none of p99=250ms, settled-p99=2s and errors=0.1%, or the like")
        };
        let (what, bound) = text.split_once('=').ok_or_else(wrong)?;
        let quantile = |digits: &str| match digits.parse::<f64>() {
            Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(percent / 100.0),
            _ => Err(wrong()),
        };
        let bound = if what == "errors" {
            Bound::Errors(share(bound)?)
        } else if let Some(digits) = what.strip_prefix("settled-p") {
            Bound::Settled(quantile(digits)?, time(bound)?)
        } else if let Some(digits) = what.strip_prefix('p') {
            Bound::Request(quantile(digits)?, time(bound)?)
        } else {
            return Err(wrong());
        };
        Ok(Self {
            text: text.to_owned(),
            bound,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objectives_are_read_with_their_bounds() {
        let bound = |text: &str| text.parse::<Slo>().map(|slo| slo.bound);
        let time = Duration::from_millis;
        assert_eq!(bound("p99=250ms"), Ok(Bound::Request(0.99, time(250))));
        assert_eq!(
            bound("settled-p99.9=2s"),
            Ok(Bound::Settled(0.9990000000000001, time(2000)))
        );
        assert_eq!(bound("errors=0.1%"), Ok(Bound::Errors(0.001)));
        for wrong in ["", "p99", "q99=1s", "p101=1s", "p99=1", "errors=1s"] {
            assert!(bound(wrong).is_err(), "{wrong}");
        }
    }
}
