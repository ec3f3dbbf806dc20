//! The orders that somebody waits for, when each is to be looked at next, and what was seen.
//!
//! It holds watched orders only, and each once, however many signals there were (I12).

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::domain::{Order, OrderId};

/// An order that changed just before its watcher came may have been signalled to nobody, and not have been
/// seen by the watcher's own look. So it is looked at once more, soon after.
const LOOK_AFTER: Duration = Duration::from_millis(100);

/// After a signal that came before its transaction could be seen. Doubled each time.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// That is about two seconds; then the look at all of them by the clock has to do. A standby that holds
/// commits back must not make every signal a row of queries.
const LOOKS_MAX: u32 = 10;

/// So many watch already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0} clients watch or wait for orders at this replica already: try again later, or ask without \
     waiting; the operator raises the limit by WATCHERS_MAX"
)]
pub struct Full(pub usize);

/// All who wait for orders at this replica. Clones share it.
#[derive(Clone, Debug)]
pub struct Hub {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    max: usize,
    closing: CancellationToken,
    state: Mutex<State>,
    /// Something is to be looked at sooner than it was.
    due: Notify,
    /// How many wait.
    watchers: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct State {
    watched: HashMap<OrderId, Watched>,
    /// When to look next: an order stands here at most once, at its `look_at`.
    looks: BTreeSet<(Instant, OrderId)>,
}

/// Why a watcher waits no longer, without an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoOutcome {
    #[error("the service is ending: watch again, at another replica")]
    Ending,
    /// A newer one, which may be there in an upgrade, can.
    #[error("this version cannot read the order any more: watch again, at another replica")]
    Unreadable,
}

/// What ends the wait for an order.
type Seen = Result<Order, NoOutcome>;

#[derive(Debug)]
struct Watched {
    outcome: watch::Sender<Option<Seen>>,
    watchers: usize,
    look_at: Option<Instant>,
    /// Looks that are left of those that a signal is worth.
    looks_left: u32,
}

impl Hub {
    /// For `max` watchers at a time. All of them end when `closing` is cancelled.
    pub fn new(max: usize, closing: CancellationToken) -> Self {
        metrics::describe_gauge!(
            "order_watchers",
            "clients that watch an order or wait for one"
        );
        metrics::describe_counter!(
            "order_watch_signals_total",
            "events of orders that somebody watches"
        );
        metrics::gauge!("order_watchers").set(0.0);
        metrics::counter!("order_watch_signals_total").increment(0);
        Self {
            shared: Arc::new(Shared {
                max,
                closing,
                state: Mutex::default(),
                due: Notify::new(),
                watchers: watch::Sender::new(0),
            }),
        }
    }

    /// Registers somebody who waits for the order. To be called before looking how the order stands.
    ///
    /// # Errors
    /// [`Full`].
    pub fn watch(&self, order_id: OrderId) -> Result<Watcher, Full> {
        let mut state = self.state();
        let count = *self.shared.watchers.borrow() + 1;
        if count > self.shared.max {
            return Err(Full(self.shared.max));
        }
        let watched = state.watched.entry(order_id).or_insert_with(|| Watched {
            outcome: watch::Sender::new(None),
            watchers: 0,
            look_at: None,
            looks_left: 0,
        });
        watched.watchers += 1;
        let outcome = watched.outcome.subscribe();
        state.look(order_id, Instant::now() + LOOK_AFTER);
        self.count(count);
        drop(state);
        self.shared.due.notify_one();
        Ok(Watcher {
            hub: self.clone(),
            order_id,
            outcome,
        })
    }

    /// An event of the order has come.
    pub fn signal(&self, order_id: OrderId) {
        let mut state = self.state();
        let Some(watched) = state.watched.get_mut(&order_id) else {
            return;
        };
        watched.looks_left = LOOKS_MAX;
        state.look(order_id, Instant::now());
        drop(state);
        metrics::counter!("order_watch_signals_total").increment(1);
        self.shared.due.notify_one();
    }

    /// Nobody knows what was missed.
    pub fn look_at_all(&self) {
        let mut state = self.state();
        let now = Instant::now();
        let orders: Vec<OrderId> = state.watched.keys().copied().collect();
        for order_id in orders {
            state.look(order_id, now);
        }
        drop(state);
        self.shared.due.notify_one();
    }

    /// How many wait.
    pub fn watchers(&self) -> usize {
        *self.shared.watchers.borrow()
    }

    /// Completes when somebody waits.
    pub(super) async fn watched(&self) {
        let mut watchers = self.shared.watchers.subscribe();
        // The sender is ours: it does not end.
        let _ = watchers.wait_for(|count| *count > 0).await;
    }

    /// Completes when something is to be looked at.
    pub(super) async fn due(&self) {
        loop {
            let woken = self.shared.due.notified();
            let next = self.state().looks.first().map(|(at, _)| *at);
            match next {
                None => woken.await,
                Some(at) if at <= Instant::now() => return,
                Some(at) => tokio::select! {
                    () = woken => {}
                    () = tokio::time::sleep_until(at.into()) => {}
                },
            }
        }
    }

    /// At most `limit` orders that are to be looked at now.
    pub(super) fn take_due(&self, limit: usize) -> Vec<OrderId> {
        let mut state = self.state();
        let now = Instant::now();
        let mut taken = Vec::new();
        while taken.len() < limit
            && let Some((at, order_id)) = state.looks.first().copied()
            && at <= now
        {
            state.looks.pop_first();
            if let Some(watched) = state.watched.get_mut(&order_id) {
                watched.look_at = None;
                taken.push(order_id);
            }
        }
        taken
    }

    /// Of the orders that were taken, those that have their outcome, and those that could not be read; the
    /// others are pending still.
    pub(super) fn seen(&self, taken: &[OrderId], settled: &[Order], unreadable: &[OrderId]) {
        let mut state = self.state();
        for order in settled {
            if let Some(watched) = state.watched.get_mut(&order.order_id) {
                watched.outcome.send_replace(Some(Ok(*order)));
            }
        }
        // No look makes them readable, and who watches them should know.
        for order_id in unreadable {
            if let Some(watched) = state.watched.get_mut(order_id) {
                let unreadable = Err(NoOutcome::Unreadable);
                watched.outcome.send_replace(Some(unreadable));
            }
        }
        let now = Instant::now();
        for order_id in taken {
            let Some(watched) = state.watched.get_mut(order_id) else {
                continue;
            };
            if watched.outcome.borrow().is_none() && watched.looks_left > 0 {
                let wait = LOOK_AGAIN * 2_u32.pow(LOOKS_MAX - watched.looks_left);
                watched.looks_left -= 1;
                state.look(*order_id, now + wait);
            }
        }
    }

    /// They could not be looked at.
    pub(super) fn put_back(&self, taken: &[OrderId], wait: Duration) {
        let mut state = self.state();
        let at = Instant::now() + wait;
        for order_id in taken {
            state.look(*order_id, at);
        }
    }

    fn count(&self, watchers: usize) {
        self.shared.watchers.send_replace(watchers);
        metrics::gauge!("order_watchers").set(watchers as f64);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        let state = self.shared.state.lock();
        state.unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Looks at the order at that time, or sooner if it was to be sooner. Not if there is nothing to see
    /// any more.
    fn look(&mut self, order_id: OrderId, at: Instant) {
        let Some(watched) = self.watched.get_mut(&order_id) else {
            return;
        };
        if watched.outcome.borrow().is_some() || watched.look_at.is_some_and(|before| before <= at)
        {
            return;
        }
        if let Some(before) = watched.look_at.replace(at) {
            self.looks.remove(&(before, order_id));
        }
        self.looks.insert((at, order_id));
    }
}

/// Somebody who waits for one order, until this is dropped.
#[derive(Debug)]
pub struct Watcher {
    hub: Hub,
    order_id: OrderId,
    outcome: watch::Receiver<Option<Seen>>,
}

impl Watcher {
    /// The order with its outcome, as soon as there is one.
    ///
    /// # Errors
    /// [`NoOutcome`]: there will be none here.
    pub async fn outcome(&mut self) -> Result<Order, NoOutcome> {
        let closing = &self.hub.shared.closing;
        let outcome = self.outcome.wait_for(Option::is_some);
        // It cannot fail: the sender lives as long as this is registered.
        let seen = closing.run_until_cancelled(outcome).await;
        let seen = seen.and_then(|seen| seen.ok().and_then(|seen| *seen));
        seen.unwrap_or(Err(NoOutcome::Ending))
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let mut state = self.hub.state();
        if let Some(watched) = state.watched.get_mut(&self.order_id) {
            watched.watchers -= 1;
            if watched.watchers == 0 {
                let look_at = watched.look_at;
                state.watched.remove(&self.order_id);
                if let Some(at) = look_at {
                    state.looks.remove(&(at, self.order_id));
                }
            }
        }
        let count = self.hub.watchers() - 1;
        self.hub.count(count);
    }
}

#[cfg(test)]
mod tests;
