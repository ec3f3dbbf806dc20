//! Chance that can be had again: a run prints its seed, and `HARNESS_SEED` plays the same draws.

use std::{env, time::Duration};

use anyhow::{Context as _, Result};

const SEED: &str = "HARNESS_SEED";

/// Draws (SplitMix64): the same numbers from the same seed, whatever any library does.
#[derive(Debug)]
pub struct Draw(u64);

impl Draw {
    /// From `HARNESS_SEED`, or another one at each call; prints it.
    pub fn start(what: &str) -> Result<Self> {
        let seed = match env::var(SEED) {
            Ok(given) => given.parse().with_context(|| format!("{SEED}={given}"))?,
            Err(_) => u64::from(rand::random::<u32>()),
        };
        println!("{what}: seed {seed}; again with {SEED}={seed}");
        Ok(Self(seed))
    }

    /// Draws of its own, for something that runs beside others.
    pub fn fork(&mut self) -> Self {
        Self(self.next())
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap_or(0)
    }

    /// A time up to `most`.
    pub fn up_to(&mut self, most: Duration) -> Duration {
        most.mul_f64(self.below(1001) as f64 / 1000.0)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }
}
