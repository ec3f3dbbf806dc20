//! How long to wait before trying again.

use std::time::Duration;

use rand::RngExt;

/// The first wait.
const FIRST: Duration = Duration::from_millis(100);
/// The longest: a peer that came back is noticed within this time.
const LONGEST: Duration = Duration::from_secs(5);

/// Doubles with each attempt (counted from 0) up to [`LONGEST`], of which a random half is taken
/// away, so that processes that lost a peer together do not return to it together.
pub(crate) fn delay(attempt: u32) -> Duration {
    let whole = FIRST.saturating_mul(1 << attempt.min(16)).min(LONGEST);
    whole.mul_f64(rand::rng().random_range(0.5..1.0))
}
