//! When requests are due: drawn before anything is sent, so that no answer, and no missing one, can move them.
//!
//! Arrivals are drawn at a rate of one and then stretched: the profile says when so many have come. That
//! serves ramps as it does a constant rate, for even spacing and for Poisson arrivals.

use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde::Serialize;

use crate::mix::{Mix, Operation};
use crate::value::{rate, time};
use crate::zipf::Zipf;

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ArrivalKind {
    Poisson,
    Constant,
}

/// A rate that is approached in a straight line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Stage {
    pub(crate) lasts: Duration,
    pub(crate) rate: f64,
}

impl FromStr for Stage {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (lasts, per_second) = text
            .split_once(':')
            .ok_or_else(|| format!("{text:?} is not a stage such as 30s:500"))?;
        Ok(Self {
            lasts: time(lasts)?,
            rate: rate(per_second)?,
        })
    }
}

/// The rate over time, in straight lines.
#[derive(Clone, Debug)]
pub(crate) struct Profile {
    pieces: Vec<Piece>,
}

#[derive(Clone, Copy, Debug)]
struct Piece {
    /// Seconds.
    begins: f64,
    lasts: f64,
    from: f64,
    to: f64,
}

impl Piece {
    fn arrivals(&self) -> f64 {
        (self.from + self.to) / 2.0 * self.lasts
    }

    /// When so many have come since its beginning.
    fn when(&self, arrivals: f64) -> f64 {
        if arrivals <= 0.0 {
            return 0.0;
        }
        let slope = (self.to - self.from) / self.lasts;
        // The root of from·t + slope·t²/2 = arrivals, in the form that a slope of zero does not spoil.
        let root = (self.from * self.from + 2.0 * slope * arrivals)
            .max(0.0)
            .sqrt();
        2.0 * arrivals / (self.from + root)
    }
}

impl Profile {
    /// `rate` for the warm-up; then the stages.
    pub(crate) fn new(rate: f64, warm_up: Duration, stages: &[Stage]) -> Self {
        let warm_up = Stage {
            lasts: warm_up,
            rate,
        };
        let (mut pieces, mut begins, mut from) = (Vec::new(), 0.0, rate);
        for stage in std::iter::once(&warm_up).chain(stages) {
            let lasts = stage.lasts.as_secs_f64();
            if lasts > 0.0 {
                pieces.push(Piece {
                    begins,
                    lasts,
                    from,
                    to: stage.rate,
                });
            }
            begins += lasts;
            from = stage.rate;
        }
        Self { pieces }
    }

    pub(crate) fn end(&self) -> Duration {
        let end = self.pieces.last().map(|piece| piece.begins + piece.lasts);
        Duration::from_secs_f64(end.unwrap_or_default())
    }

    /// When so many have come; none if the profile ends before.
    fn when(&self, arrivals: f64) -> Option<Duration> {
        let mut left = arrivals;
        for piece in &self.pieces {
            let all = piece.arrivals();
            if left < all {
                return Some(Duration::from_secs_f64(piece.begins + piece.when(left)));
            }
            left -= all;
        }
        None
    }
}

/// A request that is due.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Arrival {
    /// Since the start.
    pub(crate) due: Duration,
    pub(crate) operation: Operation,
    /// Which customer places the order.
    pub(crate) customer: usize,
    /// What else the request has to draw.
    pub(crate) luck: u64,
}

/// All of them, in their order; the same for the same seed.
#[derive(Debug)]
pub(crate) struct Arrivals {
    profile: Profile,
    kind: ArrivalKind,
    mix: Mix,
    zipf: Zipf,
    random: StdRng,
    count: u64,
    come: f64,
}

impl Arrivals {
    pub(crate) fn new(
        profile: Profile,
        kind: ArrivalKind,
        mix: Mix,
        zipf: Zipf,
        seed: u64,
    ) -> Self {
        Self {
            profile,
            kind,
            mix,
            zipf,
            random: StdRng::seed_from_u64(seed),
            count: 0,
            come: 0.0,
        }
    }
}

impl Iterator for Arrivals {
    type Item = Arrival;

    fn next(&mut self) -> Option<Arrival> {
        let draw: f64 = self.random.random();
        match self.kind {
            // In (0, 1], so that the logarithm is finite.
            ArrivalKind::Poisson => self.come -= (1.0 - draw).ln(),
            ArrivalKind::Constant => self.come = self.count as f64,
        }
        self.count += 1;
        Some(Arrival {
            due: self.profile.when(self.come)?,
            operation: self.mix.draw(self.random.random()),
            customer: self.zipf.draw(self.random.random()),
            luck: self.random.random(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn arrivals(kind: ArrivalKind, stages: &[Stage], seed: u64) -> Vec<Arrival> {
        let profile = Profile::new(500.0, Duration::ZERO, stages);
        let mix = "create=70,get=30".parse().unwrap();
        Arrivals::new(profile, kind, mix, Zipf::new(100, 1.0), seed).collect()
    }

    fn within(all: &[Arrival], from: u64, to: u64) -> usize {
        let range = SECOND * u32::try_from(from).unwrap()..SECOND * u32::try_from(to).unwrap();
        all.iter().filter(|one| range.contains(&one.due)).count()
    }

    #[test]
    fn constant_arrivals_are_evenly_spaced_at_the_rate() {
        let stage = Stage {
            lasts: SECOND * 10,
            rate: 500.0,
        };
        let all = arrivals(ArrivalKind::Constant, &[stage], 1);
        assert_eq!(all.len(), 5000);
        for (number, one) in all.iter().enumerate() {
            let off = one.due.as_secs_f64() - number as f64 / 500.0;
            assert!(off.abs() < 1e-6, "{number}: {off}");
        }
    }

    #[test]
    fn poisson_arrivals_keep_the_rate_and_their_gaps_are_exponential() {
        let stage = Stage {
            lasts: SECOND * 40,
            rate: 500.0,
        };
        let all = arrivals(ArrivalKind::Poisson, &[stage], 7);
        // 20,000 expected; four standard deviations are 566.
        assert!(all.len().abs_diff(20_000) < 566, "{}", all.len());
        let gaps = all
            .windows(2)
            .map(|pair| (pair[1].due - pair[0].due).as_secs_f64() * 500.0);
        let longer = gaps.filter(|gap| *gap > 1.0).count() as f64 / all.len() as f64;
        // Of exponential gaps a share of 1/e is longer than the mean; of even ones none is.
        assert!((longer - (-1.0_f64).exp()).abs() < 0.015, "{longer}");
    }

    #[test]
    fn a_ramp_has_the_arrivals_under_its_line() {
        let stages =
            ["10s:1500", "5s:1500", "5s:0", "1s:0", "2s:1000"].map(|text| text.parse().unwrap());
        let all = arrivals(ArrivalKind::Constant, &stages, 1);
        // 500 → 1500 over 10 s, held for 5 s, to nothing over 5 s.
        assert!(all.len().abs_diff(10_000 + 7_500 + 3_750 + 1_000) <= 1);
        assert!(within(&all, 0, 1).abs_diff(550) <= 1);
        assert!(within(&all, 9, 10).abs_diff(1450) <= 1);
        assert!(within(&all, 12, 13).abs_diff(1500) <= 1);
        assert!(within(&all, 19, 20).abs_diff(150) <= 1);
        assert!(all.windows(2).all(|pair| pair[0].due <= pair[1].due));
    }

    #[test]
    fn a_seed_repeats_everything_that_is_drawn() {
        let stage: Stage = "5s:500".parse().unwrap();
        let first = arrivals(ArrivalKind::Poisson, &[stage], 42);
        assert_eq!(arrivals(ArrivalKind::Poisson, &[stage], 42), first);
        assert_ne!(arrivals(ArrivalKind::Poisson, &[stage], 43), first);
    }
}
