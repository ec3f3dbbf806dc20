//! Applies batches, and settles each message: acknowledged, dead-lettered, or to be delivered again.
//!
//! Two kinds of waiting. An event that fails by itself goes back to JetStream with a delay, which lets
//! the others pass. When Postgres does not answer, no event can be applied: the batch is kept in hand
//! and its leases are renewed, since handing it back would only fetch the next one into the same wall.

use deadpool_postgres::Pool;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};
use uuid::Uuid;

use async_nats::jetstream::Message;

use super::attempt::{Setback, attempt};
use super::batch::{Item, Lease, Parts, decode, release};
use super::config::Config;
use super::faults::Faults;
use super::received::Received;
use super::{Handler, RECONNECT_LONGEST};
use crate::backoff::{self, Backoff};
use crate::dead_letter::DeadLetters;
use crate::meters;

/// After this many faults in a row the event is to blame: one may come from a passing state of the
/// process, but an event that makes the handler panic each time must go.
const FAULTS_MAX: u32 = 5;

/// How often a part is tried that met another transaction's locks. That has ended by then, and the part
/// is not worth halving for it; if not, another such part can go ahead meanwhile.
const CONFLICTS_MAX: u32 = 4;

/// Applies what one consumer fetches.
pub(super) struct Worker<H> {
    pool: Pool,
    pub(super) config: Config,
    handler: H,
    pub(super) dead_letters: DeadLetters,
    pub(super) token: CancellationToken,
    faults: Faults,
}

impl<H: Handler> Worker<H> {
    pub(super) fn new(
        pool: Pool,
        config: Config,
        handler: H,
        dead_letters: DeadLetters,
        token: CancellationToken,
    ) -> Self {
        Self {
            pool,
            config,
            handler,
            dead_letters,
            token,
            faults: Faults::default(),
        }
    }

    /// Applies a batch in one transaction, or, where that fails, by halves. Afterwards each message is
    /// settled.
    pub(super) async fn apply(&self, messages: Vec<Message>) {
        let items = decode(messages);
        if items.is_empty() {
            return;
        }
        meters::batch_size(items.len());
        let mut lease = Lease::new(self.config.step_max());
        let events = items.partition_point(|item| item.event.is_ok());
        if self
            .apply_events(&items, events, &mut lease)
            .await
            .is_some()
        {
            self.bury_malformed(&items[events..], &mut lease).await;
        }
    }

    /// Applies the first `events` of `items`. None if cancelled, and the rest handed back.
    async fn apply_events(&self, items: &[Item], events: usize, lease: &mut Lease) -> Option<()> {
        let mut parts = Parts::whole(events);
        let mut held = items;
        while let Some(size) = parts.next() {
            let part = &held[..size];
            // What was fetched is tried once, also by a replica that stops.
            if size < events && self.token.is_cancelled() {
                release(held).await;
                return None;
            }
            lease.renew(held).await;
            match self.attempt(part, held, lease).await? {
                Ok(first) => self.acknowledge(part, &first).await,
                Err(setback) if size > 1 => {
                    meters::batch_failed(setback.kind());
                    warn!(events = size, reason = %setback, "a batch failed; applying it in parts");
                    if setback.is_late() {
                        parts.take_apart(size);
                    } else {
                        parts.halve(size);
                    }
                    continue;
                }
                Err(setback) => {
                    if events == 1 {
                        meters::batch_failed(setback.kind());
                    }
                    lease.renew(held).await;
                    self.settle_failed(&part[0].received, setback).await;
                }
            }
            held = &held[size..];
        }
        Some(())
    }

    async fn bury_malformed(&self, items: &[Item], lease: &mut Lease) {
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

    /// Tries to apply `part` until Postgres answers, one way or the other, while the leases of `held`
    /// are renewed. None if cancelled before: `held` is handed back then.
    async fn attempt(
        &self,
        part: &[Item],
        held: &[Item],
        lease: &mut Lease,
    ) -> Option<Result<Vec<Uuid>, Setback>> {
        let mut backoff = Backoff::up_to(RECONNECT_LONGEST.min(self.config.step_max()));
        let mut conflicts = 0;
        loop {
            let events = part.iter().filter_map(|item| item.event.as_ref().ok());
            let deliveries = events.cloned().collect();
            let outcome = attempt(
                &self.pool,
                &self.config.durable,
                self.config.step_max(),
                &self.handler,
                deliveries,
            )
            .await;
            let Err(setback) = &outcome else {
                return Some(outcome);
            };
            match setback {
                Setback::Unavailable(_) => {
                    warn!(events = held.len(), reason = %setback, "keeping a batch in hand until Postgres answers");
                }
                _ if setback.is_conflict() && conflicts + 1 < CONFLICTS_MAX => {
                    conflicts += 1;
                    debug!(events = part.len(), reason = %setback, "a batch met another transaction; trying it again");
                }
                _ => return Some(outcome),
            }
            lease.renew(held).await;
            tokio::select! {
                () = self.token.cancelled() => {
                    release(held).await;
                    return None;
                }
                () = tokio::time::sleep(backoff.next()) => {}
            }
            lease.renew(held).await;
        }
    }

    /// The commit is done: now, and not before, the acknowledgements (I4). Repeats get theirs too.
    async fn acknowledge(&self, items: &[Item], first: &[Uuid]) {
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

    async fn settle_failed(&self, received: &Received, setback: Setback) {
        let faults = if let Setback::Fault(_) = setback {
            self.faults.count(received)
        } else {
            self.faults.forget(received);
            0
        };
        match setback {
            Setback::Definite(reason) => self.bury(received, &reason).await,
            Setback::Unknown(reason) if received.attempts >= self.config.unknown_deliveries_max => {
                self.bury(received, &reason).await;
            }
            Setback::Fault(reason) if faults >= FAULTS_MAX => self.bury(received, &reason).await,
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
    /// in hand meanwhile; what is stored later than that is stored again as the same dead letter.
    async fn bury(&self, received: &Received, reason: &str) {
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
            }
            Err(error) => {
                error!(event_id, sequence, reason, %error, "an event cannot be applied, and its dead letter not be stored; trying again later");
                meters::retried();
                received
                    .deliver_again(backoff::after(received.attempts))
                    .await;
            }
        }
    }
}
