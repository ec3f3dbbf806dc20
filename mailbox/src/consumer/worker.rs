//! Applies batches, and settles each message: acknowledged, dead-lettered, or to be delivered again.
//!
//! Two kinds of waiting. An event that fails by itself goes back to JetStream with a delay, which lets
//! the others pass. When Postgres does not answer, no event can be applied: the batch is kept in hand
//! and its leases are renewed, since handing it back would only fetch the next one into the same wall.

use std::slice;
use std::time::Duration;

use deadpool_postgres::Pool;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};
use uuid::Uuid;

use async_nats::jetstream::Message;

use super::attempt::{Setback, attempt};
use super::config::Config;
use super::received::Received;
use super::{Handler, RECONNECT_LONGEST};
use crate::backoff::{self, Backoff};
use crate::dead_letter::DeadLetters;
use crate::inbox::Delivery;
use crate::meters;

/// An event whose handler panics has this many deliveries before the event is to blame: a panic may
/// come from a passing state of the process, but an event that brings it down each time must go.
const FAULTS_MAX: u32 = 5;

/// What a stopping replica hands back is not for itself again, in its last milliseconds.
const RELEASE_DELAY: Duration = Duration::from_millis(200);

/// A message in hand, decoded.
struct Item {
    received: Received,
    delivery: Delivery,
}

/// Applies what one consumer fetches.
pub(super) struct Worker<H> {
    pool: Pool,
    pub(super) config: Config,
    handler: H,
    pub(super) dead_letters: DeadLetters,
    pub(super) token: CancellationToken,
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
        }
    }

    /// Applies a batch in one transaction, or, where that fails, message by message. Afterwards each
    /// message is settled.
    pub(super) async fn apply(&self, messages: Vec<Message>) {
        if messages.is_empty() {
            return;
        }
        meters::batch_size(messages.len());
        let batch = self.decode(messages).await;
        let mut lease = Lease::new(self.config.step_max());
        match self.attempt(&batch, &batch, &mut lease).await {
            None => {}
            Some(Ok(first)) => self.acknowledge(&batch, &first).await,
            Some(Err(setback)) => {
                meters::batch_failed(setback.kind());
                if let [item] = batch.as_slice() {
                    self.settle_failed(&item.received, setback).await;
                } else {
                    warn!(events = batch.len(), reason = %setback, "a batch failed; applying its events one by one");
                    self.apply_one_by_one(&batch, &mut lease).await;
                }
            }
        }
    }

    async fn apply_one_by_one(&self, batch: &[Item], lease: &mut Lease) {
        for (index, item) in batch.iter().enumerate() {
            let rest = &batch[index..];
            if self.token.is_cancelled() {
                return release(rest).await;
            }
            lease.renew(rest).await;
            let one = slice::from_ref(item);
            match self.attempt(one, rest, lease).await {
                None => return,
                Some(Ok(first)) => self.acknowledge(one, &first).await,
                Some(Err(setback)) => self.settle_failed(&item.received, setback).await,
            }
        }
    }

    /// Decodes the messages; those that are no events are dead-lettered here.
    async fn decode(&self, messages: Vec<Message>) -> Vec<Item> {
        let mut batch = Vec::with_capacity(messages.len());
        for received in messages.into_iter().filter_map(Received::new) {
            match received.decode() {
                Ok(delivery) => batch.push(Item { received, delivery }),
                Err(malformed) => {
                    let reason = format!("malformed envelope: {malformed}");
                    self.bury(&received, &reason).await;
                }
            }
        }
        batch
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
            let deliveries = part.iter().map(|item| item.delivery.clone()).collect();
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
        for Item { received, delivery } in items {
            let repeat = applied.next_if(|id| **id == delivery.id).is_none();
            debug!(
                event_id = %delivery.id,
                event_type = %delivery.event_type,
                sequence = received.sequence,
                repeat,
                "event applied"
            );
            received.acknowledge().await;
        }
        meters::applied(first.len());
        meters::duplicate(items.len() - first.len());
    }

    async fn settle_failed(&self, received: &Received, setback: Setback) {
        match setback {
            Setback::Definite(reason) => self.bury(received, &reason).await,
            Setback::Fault(reason) if received.attempts >= FAULTS_MAX => {
                self.bury(received, &reason).await;
            }
            setback => {
                let delay = backoff::after(received.attempts);
                let event_id = received.event_id();
                warn!(event_id, sequence = received.sequence, attempts = received.attempts, ?delay, reason = %setback, "an event failed; trying again later");
                received.deliver_again(delay).await;
            }
        }
    }

    /// Dead letter first, termination after (I10).
    async fn bury(&self, received: &Received, reason: &str) {
        let event_id = received.event_id();
        let sequence = received.sequence;
        match self.dead_letters.store(received, reason).await {
            Ok(()) => {
                error!(
                    event_id,
                    sequence, reason, "an event cannot be applied; it is a dead letter now"
                );
                meters::dead_letter();
                received.terminate().await;
            }
                meters::retried();
            Err(error) => {
                error!(event_id, sequence, reason, %error, "an event cannot be applied, and its dead letter not be stored; trying again later");
                received
                    .deliver_again(backoff::after(received.attempts))
                    .await;
            }
        }
    }
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
                meters::retried();
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
