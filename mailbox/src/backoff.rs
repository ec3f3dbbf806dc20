//! Waiting between attempts: exponential, bounded, and with jitter, so that replicas which failed
//! together do not come back together.

use std::time::Duration;

use rand::RngExt;

/// The first wait. A deadlock or a failover of a millisecond is over by then.
const FIRST: Duration = Duration::from_millis(100);

/// The longest wait: what an outage's end can add to an event's latency.
const LONGEST: Duration = Duration::from_secs(15);

/// A row of failures, and the longest wait between them.
#[derive(Debug)]
pub(crate) struct Backoff {
    failures: u32,
    longest: Duration,
}

impl Backoff {
    pub(crate) fn up_to(longest: Duration) -> Self {
        Self {
            failures: 0,
            longest,
        }
    }

    /// The wait after one more failure.
    pub(crate) fn next(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        after(self.failures).min(self.longest)
    }

    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

/// The wait after the given number of failures: doubled by each, then drawn from its upper half.
pub(crate) fn after(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let whole = FIRST.saturating_mul(1 << doublings).min(LONGEST);
    whole.mul_f64(rand::rng().random_range(0.5..=1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_stay_bounded() {
        for failures in [0, 1, 2, 5, 20, u32::MAX] {
            let wait = after(failures);
            assert!(wait >= FIRST / 2 && wait <= LONGEST, "{failures}: {wait:?}");
        }
        assert!(after(4) >= FIRST * 4);
        assert!(after(30) >= LONGEST / 2);
    }
}
