//! Which way of appending is the quicker, for batches that may go either way. It depends on the
//! server: an atomic batch costs a few syncs whatever its size, and messages apart cost none each, or
//! one each where the server syncs always. No client can ask, so it is measured.

use std::time::{Duration, Instant};

/// Batches of similar size are compared: 1, 2–3, 4–7, … events.
const CLASSES: usize = 16;

/// The slower way is tried again when so many times its cost have passed: it may cost a thousandth of
/// the time.
const PATIENCE: u32 = 1000;

/// How much a new measurement counts against those before it.
const WEIGHT: f64 = 0.2;

/// How a batch is appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// As single messages.
    Apart,
    /// As one atomic batch.
    Together,
}

/// What was measured.
#[derive(Debug, Default)]
pub(super) struct Pace {
    classes: [Class; CLASSES],
}

#[derive(Clone, Copy, Debug, Default)]
struct Class {
    apart: Option<Measured>,
    together: Option<Measured>,
}

#[derive(Clone, Copy, Debug)]
struct Measured {
    seconds_per_event: f64,
    /// When this way is worth a try although it was the slower one.
    again: Instant,
}

impl Pace {
    /// The quicker way for so many events, as far as it is known.
    pub(super) fn choose(&self, count: usize, now: Instant) -> Way {
        let class = self.classes[class(count)];
        let (Some(apart), Some(together)) = (class.apart, class.together) else {
            return match class.apart {
                None => Way::Apart,
                Some(_) => Way::Together,
            };
        };
        if apart.seconds_per_event <= together.seconds_per_event {
            together.unless_due(Way::Together, Way::Apart, now)
        } else {
            apart.unless_due(Way::Apart, Way::Together, now)
        }
    }

    /// Notes how long a batch took.
    pub(super) fn learn(&mut self, way: Way, count: usize, begun: Instant, took: Duration) {
        let class = &mut self.classes[class(count)];
        let known = match way {
            Way::Apart => &mut class.apart,
            Way::Together => &mut class.together,
        };
        let this = took.as_secs_f64() / count.max(1) as f64;
        let before = known.map_or(this, |measured| measured.seconds_per_event);
        *known = Some(Measured {
            seconds_per_event: before + WEIGHT * (this - before),
            again: begun + took * PATIENCE,
        });
    }
}

impl Measured {
    /// The quicker way, unless this slower one is due for a try.
    fn unless_due(self, this: Way, quicker: Way, now: Instant) -> Way {
        if self.again <= now { this } else { quicker }
    }
}

fn class(count: usize) -> usize {
    (count.max(1).ilog2() as usize).min(CLASSES - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAST: Duration = Duration::from_millis(1);
    const SLOW: Duration = Duration::from_millis(10);

    #[test]
    fn both_ways_are_tried_and_the_quicker_is_kept() {
        for (apart, together, kept) in [(FAST, SLOW, Way::Apart), (SLOW, FAST, Way::Together)] {
            let (mut pace, now) = (Pace::default(), Instant::now());
            for _ in 0..2 {
                let way = pace.choose(10, now);
                let took = if way == Way::Apart { apart } else { together };
                pace.learn(way, 10, now, took);
            }
            assert_eq!(pace.choose(10, now), kept);
            // What holds for ten does not for a thousand.
            assert_eq!(pace.choose(1000, now), Way::Apart);
        }
    }

    #[test]
    fn the_slower_way_is_tried_again_after_a_thousand_times_its_cost() {
        let (mut pace, begun) = (Pace::default(), Instant::now());
        pace.learn(Way::Apart, 10, begun, FAST);
        pace.learn(Way::Together, 10, begun, SLOW);
        assert_eq!(pace.choose(10, begun + SLOW * 999), Way::Apart);
        assert_eq!(pace.choose(10, begun + SLOW * 1000), Way::Together);
    }
}
