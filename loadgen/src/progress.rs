//! How the load goes, while it goes: one line that is written over at a terminal, and a line every few seconds
//! elsewhere.

use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::time::{MissedTickBehavior, interval};

use crate::record::Numbers;
use crate::traffic::Traffic;

const EVERY: Duration = Duration::from_secs(1);
/// Where lines stay, fewer of them do.
const EVERY_IN_A_FILE: Duration = Duration::from_secs(5);

/// Counts at one moment.
#[derive(Clone, Copy, Default)]
struct Look {
    offered: u64,
    ok: u64,
    settled: u64,
    wrong: u64,
}

impl Look {
    fn at(numbers: &Numbers) -> Self {
        let mut look = Self::default();
        for one in &numbers.intervals {
            look.offered += one.offered;
            look.ok += one.ok;
            look.settled += one.settled;
            look.wrong += one.failed + one.unsent;
        }
        look
    }
}

/// Until it is dropped.
pub(crate) async fn show(traffic: Arc<Traffic>) {
    let is_terminal = std::io::stderr().is_terminal();
    let every = if is_terminal { EVERY } else { EVERY_IN_A_FILE };
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    let mut before = Look::default();
    loop {
        ticks.tick().await;
        let line = {
            let numbers = traffic.record.numbers();
            let now = Look::at(&numbers);
            let line = line(&traffic, &numbers, before, now, every);
            before = now;
            line
        };
        let mut out = std::io::stderr().lock();
        let _ = match is_terminal {
            true => write!(out, "\r\x1b[2K{line}").and_then(|()| out.flush()),
            false => writeln!(out, "{line}"),
        };
    }
}

/// The line that was written over is left as it is.
pub(crate) fn end() {
    if std::io::stderr().is_terminal() {
        let _ = writeln!(std::io::stderr());
    }
}

fn line(traffic: &Traffic, numbers: &Numbers, before: Look, now: Look, every: Duration) -> String {
    let a_second = |count: u64, before: u64| (count - before) as f64 / every.as_secs_f64();
    // Of the interval that has just ended.
    let width = traffic.record.interval().as_secs_f64();
    let elapsed = traffic.record.start().elapsed().as_secs_f64();
    let last = ((elapsed / width) as usize).saturating_sub(1);
    let last = numbers.intervals.get(last);
    let ms = |histogram: Option<&Histogram<u32>>, quantile| {
        histogram.map_or("–".to_owned(), |found| {
            format!("{:.1} ms", found.value_at_quantile(quantile) as f64 / 1e3)
        })
    };
    let request = last.and_then(|one| one.request.as_ref());
    let settling = last.and_then(|one| one.settling.as_ref());
    format!(
        "{elapsed:>5.0} s  offered {:.0}/s  answered {:.0}/s  settled {:.0}/s  request p50 {} p99 {}  settled p99 {}  \
         failed or unsent {}  on their way {}",
        a_second(now.offered, before.offered),
        a_second(now.ok, before.ok),
        a_second(now.settled, before.settled),
        ms(request, 0.5),
        ms(request, 0.99),
        ms(settling, 0.99),
        now.wrong,
        numbers.on_their_way
    )
}
