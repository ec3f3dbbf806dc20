//! What becomes of a message in hand: acknowledged, dead-lettered, or delivered again.

use tokio::time::timeout;
use tracing::{debug, error, warn};
use uuid::Uuid;

use super::Handler;
use super::attempt::Setback;
use super::batch::{Item, Lease, release};
use super::marks::SUSPECT_FROM;
use super::received::Received;
use super::worker::Worker;
use crate::backoff;
use crate::meters;

/// After this many faults in a row the event is to blame: one may come from a passing state of the
/// process, but an event that makes the handler panic each time must go. So must one that loses its connection
/// to Postgres each time, alone and marked: its mark was committed there a moment before.
const FAULTS_MAX: u32 = 5;

impl<H: Handler> Worker<H> {
    /// The commit is done: now, and not before, the acknowledgements (I4). Repeats get theirs too.
    pub(super) async fn acknowledge(&self, items: &[Item], first: &[Uuid]) {
        let mut applied = first.iter().peekable();
        for Item { received, event } in items {
            let Ok(event) = event else { continue };
            let repeat = applied.next_if(|id| **id == event.id).is_none();
            debug!(
                event_id = %event.id,
                event_type = %event.event_type,
                sequence = received.sequence,
                repeat,
                "event applied"
            );
            self.faults.forget(received);
            received.acknowledge().await;
        }
        meters::applied(first.len());
        meters::duplicate(items.len() - first.len());
    }

    pub(super) async fn settle_failed(&self, received: &Received, setback: Setback) {
        let faults = match setback {
            Setback::Fault(_) => self.faults.count(received),
            Setback::Broken(_) if received.attempts >= SUSPECT_FROM => self.faults.count(received),
            _ => {
                self.faults.forget(received);
                0
            }
        };
        match setback {
            Setback::Definite(reason) => {
                self.bury(received, &reason).await;
            }
            Setback::Unknown(reason) if received.attempts >= self.config.unknown_deliveries_max => {
                self.bury(received, &reason).await;
            }
            Setback::Fault(reason) if faults >= FAULTS_MAX => {
                self.bury(received, &reason).await;
            }
            setback @ Setback::Broken(_) if faults >= FAULTS_MAX => {
                self.bury(received, &setback.to_string()).await;
            }
            setback => {
                let delay = backoff::after(received.attempts);
                let event_id = received.event_id();
                warn!(event_id, sequence = received.sequence, attempts = received.attempts, ?delay, reason = %setback, "an event failed; trying again later");
                meters::retried();
                received.deliver_again(delay).await;
            }
        }
    }

    /// Dead letter first, termination after (I10). Takes a step at most, for the rest of the batch is
    /// in hand meanwhile; what is stored later than that is stored again as the same dead letter. False if
    /// it was not stored, and is delivered again.
    pub(super) async fn bury(&self, received: &Received, reason: &str) -> bool {
        let event_id = received.event_id();
        let sequence = received.sequence;
        let within = self.config.step_max();
        let stored = timeout(within, self.dead_letters.store(received, reason)).await;
        match stored.unwrap_or_else(|_| Err(format!("not stored within {within:?}").into())) {
            Ok(()) => {
                error!(
                    event_id,
                    sequence, reason, "an event cannot be applied; it is a dead letter now"
                );
                meters::dead_letter();
                self.faults.forget(received);
                received.terminate().await;
                true
            }
            Err(error) => {
                error!(event_id, sequence, reason, %error, "an event cannot be applied, and its dead letter not be stored; trying again later");
                meters::retried();
                received
                    .deliver_again(backoff::after(received.attempts))
                    .await;
                false
            }
        }
    }

    pub(super) async fn bury_malformed(&self, items: &[Item], lease: &mut Lease) {
        for (index, item) in items.iter().enumerate() {
            let Err(malformed) = &item.event else {
                continue;
            };
            let held = &items[index..];
            if self.token.is_cancelled() {
                return release(held).await;
            }
            lease.renew(held).await;
            let reason = format!("malformed envelope: {malformed}");
            self.bury(&item.received, &reason).await;
        }
    }
}
