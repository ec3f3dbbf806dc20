//! Applies batches, and settles each message: acknowledged, dead-lettered, or to be delivered again.
//!
//! Two kinds of waiting. An event that fails by itself goes back to JetStream with a delay, which lets
//! the others pass. When Postgres does not answer, no event can be applied: the batch is kept in hand
//! and its leases are renewed, since handing it back would only fetch the next one into the same wall.

use std::slice;
use std::time::Duration;

use deadpool_postgres::Pool;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};
use uuid::Uuid;

use async_nats::jetstream::Message;

use super::attempt::{Setback, attempt};
use super::config::Config;
use super::faults::Faults;
use super::received::Received;
use super::{Handler, RECONNECT_LONGEST};
use crate::backoff::{self, Backoff};
use crate::dead_letter::DeadLetters;
use crate::envelope::Malformed;
use crate::inbox::Delivery;
use crate::meters;

/// After this many faults in a row the event is to blame: one may come from a passing state of the
/// process, but an event that makes the handler panic each time must go.
const FAULTS_MAX: u32 = 5;

/// What a stopping replica hands back is not for itself again, in its last milliseconds.
const RELEASE_DELAY: Duration = Duration::from_millis(200);

/// A message in hand, decoded.
struct Item {
    received: Received,
    event: Result<Delivery, Malformed>,
}

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

    /// Applies a batch in one transaction, or, where that fails, message by message. Afterwards each
    /// message is settled.
    pub(super) async fn apply(&self, messages: Vec<Message>) {
        let items = decode(messages);
        if items.is_empty() {
            return;
        }
        meters::batch_size(items.len());
        let mut lease = Lease::new(self.config.step_max());
        if let Some(settled) = self.apply_together(&items, &mut lease).await {
            self.apply_one_by_one(&items[settled..], &mut lease).await;
        }
    }

    /// Applies those of `items` that are events. Returns how many are settled, from the first on; None
    /// if cancelled, and all handed back.
    async fn apply_together(&self, items: &[Item], lease: &mut Lease) -> Option<usize> {
        let batch = &items[..items.partition_point(|item| item.event.is_ok())];
        if batch.is_empty() {
            return Some(0);
        }
        match self.attempt(batch, items, lease).await? {
            Ok(first) => self.acknowledge(batch, &first).await,
            Err(setback) => {
                meters::batch_failed(setback.kind());
                let [item] = batch else {
                    warn!(events = batch.len(), reason = %setback, "a batch failed; applying its events one by one");
                    return Some(0);
                };
                lease.renew(items).await;
                self.settle_failed(&item.received, setback).await;
            }
        }
        Some(batch.len())
    }

    async fn apply_one_by_one(&self, items: &[Item], lease: &mut Lease) {
        for (index, item) in items.iter().enumerate() {
            let rest = &items[index..];
            if self.token.is_cancelled() {
                return release(rest).await;
            }
            lease.renew(rest).await;
            let setback = match &item.event {
                Err(malformed) => Setback::Definite(format!("malformed envelope: {malformed}")),
                Ok(_) => {
                    let one = slice::from_ref(item);
                    match self.attempt(one, rest, lease).await {
                        None => return,
                        Some(Ok(first)) => {
                            self.acknowledge(one, &first).await;
                            continue;
                        }
                        Some(Err(setback)) => setback,
                    }
                }
            };
            lease.renew(rest).await;
            self.settle_failed(&item.received, setback).await;
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
            let Err(setback @ Setback::Unavailable(_)) = outcome else {
                return Some(outcome);
            };
            warn!(events = held.len(), reason = %setback, "keeping a batch in hand until Postgres answers");
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

/// The events, in the order of delivery, and behind them the messages that are none: storing those as
/// dead letters may take its time.
fn decode(messages: Vec<Message>) -> Vec<Item> {
    let received = messages.into_iter().filter_map(Received::new);
    let (mut items, malformed): (Vec<Item>, Vec<Item>) = received
        .map(|received| Item {
            event: received.decode(),
            received,
        })
        .partition(|item| item.event.is_ok());
    items.extend(malformed);
    items
}

async fn release(items: &[Item]) {
    for item in items {
        item.received.deliver_again(RELEASE_DELAY).await;
    }
}

/// When the messages in hand have to be renewed, lest JetStream deliver them again.
struct Lease {
    every: Duration,
    renewed: Instant,
}

impl Lease {
    fn new(every: Duration) -> Self {
        Self {
            every,
            renewed: Instant::now(),
        }
    }

    async fn renew(&mut self, held: &[Item]) {
        if self.renewed.elapsed() < self.every {
            return;
        }
        for item in held {
            item.received.renew().await;
        }
        self.renewed = Instant::now();
    }
}
