//! Applies batches: in one transaction, or in parts; and alone, what is suspected.
//!
//! Two kinds of waiting. An event that fails by itself goes back to JetStream with a delay, which lets
//! the others pass. When Postgres does not answer, no event can be applied: the batch is kept in hand
//! and its leases are renewed, since handing it back would only fetch the next one into the same wall.

use std::time::Duration;

use deadpool_postgres::Pool;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use uuid::Uuid;

use async_nats::jetstream::Message;

use super::attempt::{Setback, attempt};
use super::batch::{Batch, Item, Lease, Parts, release};
use super::config::Config;
use super::faults::Faults;
use super::marks::{self, DEATHS_MAX, Left};
use super::{Handler, RECONNECT_LONGEST};
use crate::backoff::Backoff;
use crate::dead_letter::{DIED, DeadLetters};
use crate::meters;

/// How often a part is tried that met another transaction's locks. That has ended by then, and the part
/// is not worth halving for it; if not, another such part can go ahead meanwhile.
const CONFLICTS_MAX: u32 = 4;

/// How often a part may lose its connection, with outages between or without, before it is taken for the cause:
/// it is halved then, or, alone, handed back. A server that fails loses a connection once or twice, and lets nobody
/// in after that.
const BREAKS_MAX: u32 = 3;

/// Applies what one consumer fetches.
pub(super) struct Worker<H> {
    pool: Pool,
    pub(super) config: Config,
    handler: H,
    pub(super) dead_letters: DeadLetters,
    pub(super) token: CancellationToken,
    pub(super) faults: Faults,
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
        let mut batch = Batch::of(messages);
        let stored_at = batch.items.iter().map(|item| item.received.stored_at);
        let Some(oldest) = stored_at.min() else {
            return;
        };
        let _in_hand = meters::in_hand(&self.config.durable, oldest);
        meters::batch_size(batch.items.len());
        let mut lease = Lease::new(self.config.step_max());
        let (fresh, events) = (batch.fresh, batch.events);
        if self
            .apply_fresh(&batch.items, fresh, &mut lease)
            .await
            .is_none()
        {
            return;
        }
        let suspects = &mut batch.items[fresh..];
        if self
            .apply_suspects(suspects, events - fresh, &mut lease)
            .await
            .is_some()
        {
            self.bury_malformed(&batch.items[events..], &mut lease)
                .await;
        }
    }

    /// Applies the first `fresh` of `items`. None if cancelled, and the rest handed back.
    async fn apply_fresh(&self, items: &[Item], fresh: usize, lease: &mut Lease) -> Option<()> {
        let mut parts = Parts::whole(fresh);
        let mut held = items;
        while let Some(size) = parts.next() {
            let part = &held[..size];
            // What was fetched is tried once, also by a replica that stops.
            if size < fresh && self.token.is_cancelled() {
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
                    if fresh == 1 {
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

    /// Applies the first `suspects` of `items`, each alone and marked, those first that have taken no
    /// process down yet. None if cancelled, and the rest handed back.
    async fn apply_suspects(
        &self,
        items: &mut [Item],
        suspects: usize,
        lease: &mut Lease,
    ) -> Option<()> {
        if suspects == 0 {
            return Some(());
        }
        let left = self.left(items, suspects, lease).await?;
        items[..suspects].sort_by_key(|item| marks::deaths(&left, &item.received));
        for index in 0..suspects {
            let held = &items[index..];
            if self.token.is_cancelled() {
                release(held).await;
                return None;
            }
            lease.renew(held).await;
            let (one, received) = (&held[..1], &held[0].received);
            let deaths = marks::deaths(&left, received);
            if deaths >= DEATHS_MAX {
                let reason = format!(
                    "{DIED} {deaths} times in a row, alone, and never ended: each time the process died"
                );
                if !self.bury(received, &reason).await {
                    continue;
                }
                if let Err(setback) = marks::end(&self.pool, &self.config, received).await {
                    warn!(sequence = received.sequence, reason = %setback, "the marks of a dead letter are left behind");
                }
            } else {
                match self.attempt_marked(held, deaths, lease).await? {
                    Ok(first) => self.acknowledge(one, &first).await,
                    Err(setback) => self.settle_failed(received, setback).await,
                }
            }
        }
        Some(())
    }

    /// What the first `suspects` of `held` have left behind. None if cancelled, and `held` handed back.
    async fn left(&self, held: &[Item], suspects: usize, lease: &mut Lease) -> Option<Left> {
        let mut backoff = self.patience();
        loop {
            match marks::left(&self.pool, &self.config, &held[..suspects]).await {
                Ok(left) => return Some(left),
                Err(setback) => self.outlast(&setback, held, lease, &mut backoff).await?,
            }
        }
    }

    /// Marks the first of `held`. None if cancelled, and `held` handed back.
    async fn mark(&self, held: &[Item], deaths: i32, lease: &mut Lease) -> Option<()> {
        let mut backoff = self.patience();
        loop {
            match marks::begin(&self.pool, &self.config, &held[0].received, deaths).await {
                Ok(()) => return Some(()),
                Err(setback) => self.outlast(&setback, held, lease, &mut backoff).await?,
            }
        }
    }

    /// Tries the first of `held` under its mark, which is gone before the event can be delivered again, here
    /// or to another replica: that would take it for a death. None if cancelled, and `held` handed back.
    async fn attempt_marked(
        &self,
        held: &[Item],
        deaths: i32,
        lease: &mut Lease,
    ) -> Option<Result<Vec<Uuid>, Setback>> {
        let outcome = match self.mark(held, deaths, lease).await {
            Some(()) => {
                lease.renew(held).await;
                self.attempt(&held[..1], held, lease).await
            }
            None => None,
        };
        let received = &held[0].received;
        let mut backoff = self.patience();
        while let Err(setback) = marks::end(&self.pool, &self.config, received).await {
            if outcome.is_none() {
                // Stopping, and Postgres does not answer either: there is no more to be done.
                warn!(sequence = received.sequence, reason = %setback, "an event's mark is left behind, as if its process had died");
                return None;
            }
            self.outlast(&setback, held, lease, &mut backoff).await?;
        }
        if outcome.is_some() {
            lease.renew(held).await;
        }
        outcome
    }

    fn patience(&self) -> Backoff {
        Backoff::up_to(RECONNECT_LONGEST.min(self.config.step_max()))
    }

    /// A pause until Postgres is tried again.
    async fn outlast(
        &self,
        setback: &Setback,
        held: &[Item],
        lease: &mut Lease,
        backoff: &mut Backoff,
    ) -> Option<()> {
        warn!(events = held.len(), reason = %setback, "keeping a batch in hand until Postgres answers");
        self.pause(held, lease, backoff.next()).await
    }

    /// Waits while the leases of `held` are renewed. None if cancelled: `held` is handed back then.
    async fn pause(&self, held: &[Item], lease: &mut Lease, wait: Duration) -> Option<()> {
        lease.renew(held).await;
        tokio::select! {
            () = self.token.cancelled() => {
                release(held).await;
                return None;
            }
            () = tokio::time::sleep(wait) => {}
        }
        lease.renew(held).await;
        Some(())
    }

    /// Tries to apply `part` until Postgres answers, one way or the other, while the leases of `held`
    /// are renewed. None if cancelled before: `held` is handed back then.
    async fn attempt(
        &self,
        part: &[Item],
        held: &[Item],
        lease: &mut Lease,
    ) -> Option<Result<Vec<Uuid>, Setback>> {
        let mut backoff = self.patience();
        let (mut conflicts, mut breaks) = (0, 0);
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
                Setback::Unavailable(_) => self.outlast(setback, held, lease, &mut backoff).await?,
                Setback::Broken(_) if breaks + 1 < BREAKS_MAX => {
                    breaks += 1;
                    self.outlast(setback, held, lease, &mut backoff).await?;
                }
                _ if setback.is_conflict() && conflicts + 1 < CONFLICTS_MAX => {
                    conflicts += 1;
                    debug!(events = part.len(), reason = %setback, "a batch met another transaction; trying it again");
                    self.pause(held, lease, backoff.next()).await?;
                }
                _ => return Some(outcome),
            }
        }
    }
}
