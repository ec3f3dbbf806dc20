//! How eagerly the socket is read. Each read that finds little wakes the walsender for little, which
//! costs it a send, and us a turn, for every few rows. While much comes, the socket is left to fill for
//! a moment; what comes now and then is read at once.

use std::time::{Duration, Instant};

/// How long the socket is left to fill. It adds so much to the latency of an event, where thousands
/// come each second.
pub(super) const REST: Duration = Duration::from_millis(2);

/// What counts as much: some 6,000 small rows a second.
const BYTES_PER_SECOND: f64 = 4.0 * 1024.0 * 1024.0;

/// Over how long it is counted.
const SPAN: Duration = Duration::from_millis(10);

/// How much has come.
#[derive(Debug)]
pub(super) struct Gather {
    since: Instant,
    bytes: usize,
    is_much: bool,
}

impl Gather {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            since: now,
            bytes: 0,
            is_much: false,
        }
    }

    /// Whether to rest before the next read.
    pub(super) fn rests(&self) -> bool {
        self.is_much
    }

    /// A read has brought so many bytes.
    pub(super) fn note(&mut self, now: Instant, bytes: usize) {
        self.bytes += bytes;
        let span = now.duration_since(self.since);
        if span >= SPAN {
            self.is_much = self.bytes as f64 >= BYTES_PER_SECOND * span.as_secs_f64();
            self.since = now;
            self.bytes = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn only_where_much_comes_is_the_socket_left_to_fill() {
        let begun = Instant::now();
        let mut gather = Gather::new(begun);
        gather.note(begun + MS, 1_000_000);
        assert!(!gather.rests(), "a burst of a moment");
        gather.note(begun + 10 * MS, 1_000_000);
        assert!(gather.rests(), "200 MB a second");
        gather.note(begun + 20 * MS, 10_000);
        assert!(!gather.rests(), "1 MB a second");
        gather.note(begun + 30 * MS, 1_000_000);
        gather.note(begun + 1030 * MS, 1_000);
        assert!(!gather.rests(), "a pause ends it");
    }
}
