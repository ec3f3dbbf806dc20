//! Which way of appending is the quicker, for batches that may go either way. It depends on the
//! server: an atomic batch costs a few syncs whatever its size, and messages apart cost none each, or
//! one each where the server syncs always. No client can ask, so it is measured.
//!
//! Danger: where each message is synced, at three replicas perhaps, to try a thousand of them apart takes
//! seconds, and all events wait behind them. The larger a batch, the better it goes together: what smaller ones
//! have shown is believed of larger ones, and the other way about, before either way is tried.

use std::time::{Duration, Instant};

/// Batches of similar size are compared: 1, 2–3, 4–7, … events.
const CLASSES: usize = 16;

/// Each way is tried so often before the two are compared: the first may pay for what is only done once.
const TRIES: u32 = 3;

/// The slower way is tried again once so many times what that loses has passed. Events wait for such a
/// try, and no more than one in a thousand may; two that are close are soon compared again.
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
    /// Before it no slower way is tried, in any class.
    next_try: Option<Instant>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Class {
    apart: Measured,
    together: Measured,
}

#[derive(Clone, Copy, Debug, Default)]
struct Measured {
    tries: u32,
    seconds_per_event: f64,
}

impl Class {
    fn is_known(self) -> bool {
        self.apart.tries.min(self.together.tries) >= TRIES
    }

    /// The slower way, and how many seconds an event loses by it.
    fn slower(self) -> (Way, f64) {
        let loss = self.together.seconds_per_event - self.apart.seconds_per_event;
        if loss >= 0.0 {
            (Way::Together, loss)
        } else {
            (Way::Apart, -loss)
        }
    }
}

impl Pace {
    /// The quicker way for so many events, as far as it is known.
    pub(super) fn choose(&self, count: usize, now: Instant) -> Way {
        let at = class(count);
        let class = self.classes[at];
        if !class.is_known()
            && let Some(way) = self.shown_by_others(at)
        {
            return way;
        }
        let prefers_apart = if class.is_known() {
            let is_due = self.next_try.is_none_or(|next| now >= next);
            (class.slower().0 == Way::Apart) == is_due
        } else {
            class.apart.tries <= class.together.tries
        };
        if prefers_apart {
            Way::Apart
        } else {
            Way::Together
        }
    }

    /// Whether what is quicker for batches of other sizes is so for this one too.
    fn shown_by_others(&self, at: usize) -> Option<Way> {
        let is_slower = |classes: &[Class], way| {
            let mut known = classes.iter().filter(|class| class.is_known());
            known.any(|class| class.slower().0 == way)
        };
        if is_slower(&self.classes[..at], Way::Apart) {
            Some(Way::Together)
        } else if is_slower(&self.classes[at + 1..], Way::Together) {
            Some(Way::Apart)
        } else {
            None
        }
    }

    /// Notes how long a batch took that began at `begun`.
    pub(super) fn learn(&mut self, way: Way, count: usize, begun: Instant, took: Duration) {
        let class = &mut self.classes[class(count)];
        let measured = match way {
            Way::Apart => &mut class.apart,
            Way::Together => &mut class.together,
        };
        measured.learn(took.as_secs_f64() / count.max(1) as f64);
        let (slower, loss) = class.slower();
        if way == slower {
            let loss = Duration::from_secs_f64(loss * count as f64);
            let next = begun + took + loss * PATIENCE;
            self.next_try = self.next_try.max(Some(next));
        }
    }
}

impl Measured {
    fn learn(&mut self, this: f64) {
        let before = self.seconds_per_event;
        self.seconds_per_event = match self.tries {
            0 => this,
            tries if tries < TRIES => before.min(this),
            _ => before + WEIGHT * (this - before),
        };
        self.tries = self.tries.saturating_add(1);
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

    /// Appends `times` batches of ten; each way takes what `took` says of it. Returns which ways were taken.
    fn play(pace: &mut Pace, now: &mut Instant, times: usize, took: [Duration; 2]) -> [usize; 2] {
        let mut taken = [0; 2];
        for _ in 0..times {
            let way = pace.choose(10, *now);
            let at = usize::from(way == Way::Together);
            taken[at] += 1;
            pace.learn(way, 10, *now, took[at]);
            *now += took[at];
        }
        taken
    }

    #[test]
    fn both_ways_are_tried_and_the_quicker_is_kept() {
        for (took, expected) in [([FAST, SLOW], [97, 3]), ([SLOW, FAST], [3, 97])] {
            let (mut pace, mut now) = (Pace::default(), Instant::now());
            assert_eq!(play(&mut pace, &mut now, 100, took), expected);
        }
    }

    #[test]
    fn what_is_known_of_one_size_is_not_tried_anew_for_another() {
        let (mut pace, mut now) = (Pace::default(), Instant::now());
        play(&mut pace, &mut now, 6, [SLOW, FAST]);
        assert_eq!(pace.choose(1000, now), Way::Together, "ten gain by it");
        assert_eq!(pace.choose(2, now), Way::Apart, "two may not");
        let (mut pace, mut now) = (Pace::default(), Instant::now());
        play(&mut pace, &mut now, 6, [FAST, SLOW]);
        assert_eq!(pace.choose(2, now), Way::Apart, "ten lose by it");
        pace.learn(Way::Apart, 1000, now, FAST);
        assert_eq!(pace.choose(1000, now), Way::Together, "a thousand may not");
    }

    #[test]
    fn the_slower_way_is_tried_again_after_a_thousand_times_its_loss() {
        let (mut pace, mut now) = (Pace::default(), Instant::now());
        play(&mut pace, &mut now, 6, [FAST, SLOW]);
        let loss = SLOW - FAST;
        assert_eq!(pace.choose(10, now + loss * 999), Way::Apart);
        assert_eq!(pace.choose(10, now + loss * 1001), Way::Together);
    }

    #[test]
    fn one_bad_measurement_does_not_decide() {
        let (mut pace, mut now) = (Pace::default(), Instant::now());
        pace.learn(Way::Apart, 10, now, SLOW * 10);
        let taken = play(&mut pace, &mut now, 100, [FAST, FAST * 2]);
        assert_eq!(taken, [97, 3]);
    }
}
