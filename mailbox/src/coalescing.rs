//! How soon a loop that takes what waits may take again. A step has a price, whatever it holds: a transaction, its sync,
//! the relay's append. Where much comes, steps that follow each other as soon as they can are small and many, keep the
//! processors busy with their prices, and so make everything later that they mean to have sooner.
//!
//! ```text
//! one alone        ▏step▕▏step▕        at once: it was alone, nothing is saved by waiting
//! it had company   ▏step▕ ·· ▏step▕    the next begins STEP_EVERY after it did, with what has come meanwhile
//! full             ▏step▕▏step▕        at once: more is waiting than one step takes
//! ```

use std::time::Duration;

use tokio::time::Instant;

/// From one step's begin to that of the next. Steps that take longer are not held up at all. It is about what
/// an unloaded saga takes; docs/benchmark-saga.md has what other figures did.
pub const STEP_EVERY: Duration = Duration::from_millis(5);

/// When the next step of one loop may begin.
#[derive(Clone, Copy, Debug)]
pub struct Coalescing {
    every: Duration,
    not_before: Option<Instant>,
}

impl Coalescing {
    /// Steps that hold up the next do it until so long after their own begin.
    #[must_use]
    pub fn every(every: Duration) -> Self {
        Self {
            every,
            not_before: None,
        }
    }

    /// A step begins now that has `taken` what waited, of which it takes `max` at most.
    pub fn begin(&mut self, taken: usize, max: usize) {
        let had_company = taken > 1 && taken < max;
        self.not_before = had_company.then(|| Instant::now() + self.every);
    }

    /// Whether the next step has to wait still.
    #[must_use]
    pub fn is_resting(&self) -> bool {
        self.not_before.is_some_and(|at| at > Instant::now())
    }

    /// Returns when the next step may begin.
    pub async fn rest(&self) {
        if let Some(until) = self.not_before {
            tokio::time::sleep_until(until).await;
        }
    }
}

impl Default for Coalescing {
    fn default() -> Self {
        Self::every(STEP_EVERY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_a_step_that_had_company_and_room_holds_up_the_next() {
        let mut pace = Coalescing::default();
        let begin = Instant::now();
        for (taken, max) in [(0, 256), (1, 256), (256, 256), (1, 1)] {
            pace.begin(taken, max);
            assert!(!pace.is_resting(), "{taken} of {max}");
            pace.rest().await;
        }
        assert_eq!(begin.elapsed(), Duration::ZERO);
        for company in [2, 255] {
            let begin = Instant::now();
            pace.begin(company, 256);
            assert!(pace.is_resting(), "{company}");
            pace.rest().await;
            assert_eq!(begin.elapsed(), STEP_EVERY, "{company}");
            assert!(!pace.is_resting(), "{company}");
        }
    }
}
