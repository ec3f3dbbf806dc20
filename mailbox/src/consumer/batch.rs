//! The messages in hand, in the order in which they are settled, and the leases that they are held by.

use std::time::Duration;

use async_nats::jetstream::Message;
use tokio::time::Instant;

use super::marks::SUSPECT_FROM;
use super::received::Received;
use crate::envelope::Malformed;
use crate::inbox::Delivery;

/// What a stopping replica hands back is not for itself again, in its last milliseconds.
const RELEASE_DELAY: Duration = Duration::from_millis(200);

/// A message in hand, decoded.
pub(super) struct Item {
    pub(super) received: Received,
    pub(super) event: Result<Delivery, Malformed>,
}

/// The messages in hand, by how they are settled, each kind in the order of delivery.
pub(super) struct Batch {
    pub(super) items: Vec<Item>,
    /// So many of them, the first, are events that may be applied together.
    pub(super) fresh: usize,
    /// So many, with those before, are events; behind the fresh ones stand those that were delivered so
    /// often that they are applied alone. The rest are no events: storing them as dead letters may take
    /// its time.
    pub(super) events: usize,
}

impl Batch {
    pub(super) fn of(messages: Vec<Message>) -> Self {
        let received = messages.into_iter().filter_map(Received::new);
        let mut items: Vec<Item> = received
            .map(|received| Item {
                event: received.decode(),
                received,
            })
            .collect();
        // Stable.
        items.sort_by_key(Item::kind);
        Self {
            fresh: items.partition_point(|item| item.kind() < Kind::Suspect),
            events: items.partition_point(|item| item.kind() < Kind::Malformed),
            items,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Fresh,
    Suspect,
    Malformed,
}

impl Item {
    fn kind(&self) -> Kind {
        match &self.event {
            Err(_) => Kind::Malformed,
            Ok(_) if self.received.attempts >= SUSPECT_FROM => Kind::Suspect,
            Ok(_) => Kind::Fresh,
        }
    }
}

/// Hands them back: another replica may have them.
pub(super) async fn release(items: &[Item]) {
    for item in items {
        item.received.deliver_again(RELEASE_DELAY).await;
    }
}

/// Sizes of the parts of a batch that are still to be tried, the next one last. A part that failed is
/// halved until what fails stands alone: of n events one bad one costs about 2·log2 n transactions, and
/// the others keep being applied together, in their order.
#[derive(Debug)]
pub(super) struct Parts(Vec<usize>);

impl Parts {
    /// All of it at once.
    pub(super) fn whole(size: usize) -> Self {
        Self(if size == 0 { Vec::new() } else { vec![size] })
    }

    pub(super) fn next(&mut self) -> Option<usize> {
        self.0.pop()
    }

    /// A part of `size` (two or more) failed.
    pub(super) fn halve(&mut self, size: usize) {
        let first = size / 2;
        self.0.extend([size - first, first]);
    }

    /// A part of `size` failed so slowly that each half with the culprit in it would cost too much.
    pub(super) fn take_apart(&mut self, size: usize) {
        self.0.extend(std::iter::repeat_n(1, size));
    }
}

/// When the messages in hand have to be renewed, lest JetStream deliver them again.
pub(super) struct Lease {
    every: Duration,
    renewed: Instant,
}

impl Lease {
    pub(super) fn new(every: Duration) -> Self {
        Self {
            every,
            renewed: Instant::now(),
        }
    }

    pub(super) async fn renew(&mut self, held: &[Item]) {
        if self.renewed.elapsed() < self.every {
            return;
        }
        for item in held {
            item.received.renew().await;
        }
        self.renewed = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tries `size` events of which those at `bad` fail; returns the number of tries, and what was alone.
    fn played(size: usize, bad: &[usize]) -> (usize, Vec<usize>) {
        let mut parts = Parts::whole(size);
        let (mut tries, mut settled, mut alone) = (0, 0, Vec::new());
        while let Some(part) = parts.next() {
            tries += 1;
            let fails = bad.iter().any(|at| (settled..settled + part).contains(at));
            match (fails, part) {
                (true, 1) => alone.push(settled),
                (true, _) => {
                    parts.halve(part);
                    continue;
                }
                (false, _) => {}
            }
            settled += part;
        }
        assert_eq!(settled, size, "not all were settled");
        (tries, alone)
    }

    #[test]
    fn one_bad_event_costs_two_tries_for_each_halving() {
        for size in [1_usize, 2, 3, 7, 100, 256, 4096] {
            let bound = 1 + 2 * usize::try_from(size.next_power_of_two().ilog2()).unwrap();
            for bad in [0, size / 3, size - 1] {
                let (tries, alone) = played(size, &[bad]);
                assert!(tries <= bound, "{size}, {bad}: {tries} of {bound}");
                assert_eq!(alone, [bad]);
            }
        }
        assert_eq!(played(256, &[]).0, 1);
        assert_eq!(played(0, &[]).0, 0);
        assert_eq!(played(8, &[1, 2, 7]).1, [1, 2, 7]);
    }

    #[test]
    fn what_failed_slowly_is_tried_one_by_one() {
        let mut parts = Parts::whole(3);
        let size = parts.next().unwrap();
        parts.take_apart(size);
        assert_eq!(
            std::iter::from_fn(|| parts.next()).collect::<Vec<_>>(),
            [1, 1, 1]
        );
    }
}
