//! Answers that wait for an order's outcome. Nothing is held meanwhile: no connection, no row lock, and no
//! place among the requests that are handled at once. The hub bounds how many wait (I12).

use std::time::{Duration, Instant};

use chassis::admission::Admission;
use chassis::auth::Caller;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use mailbox::requests::Key;
use proto::orders::v1::{CreateOrderResponse, WatchOrderResponse};
use tonic::{Request, Status};

use super::{Orders, repeats};
use crate::domain::{Order, OrderId, State};
use crate::watch::{Full, Watcher};
use crate::wire;

/// An answer that is ready has to get to its caller within the caller's deadline.
const MARGIN: Duration = Duration::from_millis(50);

/// What one request may wait.
#[derive(Debug)]
pub(super) struct Patience {
    until: Instant,
    admission: Admission,
}

impl Patience {
    /// From now on, for `wait`, or until a little before the call's own deadline. None if not at all.
    pub(super) fn of<T>(request: &Request<T>, wait: Duration) -> Option<Self> {
        if wait.is_zero() {
            return None;
        }
        let admission = Admission::of(request);
        let now = Instant::now();
        let left = admission.answer_by().saturating_duration_since(now);
        let until = now + wait.min(left - MARGIN.min(left / 4));
        Some(Self { until, admission })
    }

    /// The pending order with its outcome; still pending when the time is up, or there will be none here.
    pub(super) async fn outcome(&self, pending: Order, watcher: &mut Watcher) -> Order {
        self.admission.give_up_place();
        let until = self.until.into();
        let outcome = tokio::time::timeout_at(until, watcher.outcome()).await;
        outcome.ok().and_then(Result::ok).unwrap_or(pending)
    }
}

impl Orders {
    /// Reads one order, and waits for its outcome.
    pub(super) async fn outcome(
        &self,
        order_id: OrderId,
        caller: Caller,
        patience: &Patience,
    ) -> Result<Order, Status> {
        let watcher = self.hub.watch(order_id).map_err(full)?;
        self.awaited(watcher, (order_id, caller), patience).await
    }

    async fn awaited(
        &self,
        mut watcher: Watcher,
        (order_id, caller): (OrderId, Caller),
        patience: &Patience,
    ) -> Result<Order, Status> {
        let order = self.find(order_id, caller).await?;
        match order.state {
            State::Pending => Ok(patience.outcome(order, &mut watcher).await),
            State::Approved | State::Cancelled(_) => Ok(order),
        }
    }

    /// Places an order, and waits for its outcome; of an order that a first try placed, if there was one.
    pub(super) async fn place_and_wait(
        &self,
        order: Order,
        (request, caller): (Option<&Key>, Caller),
        patience: &Patience,
    ) -> Result<CreateOrderResponse, Status> {
        // Before anything is done: refused afterwards, it would have been placed all the same.
        let mut watcher = match self.hub.watch(order.order_id) {
            Ok(watcher) => watcher,
            Err(none) => {
                let first = self.repeats.answer(request, full(none)).await?;
                return self.repeated(first, caller, patience).await;
            }
        };
        let mut answer = self.place(&order, request).await?;
        if !repeats::is_of(&order, &answer) {
            drop(watcher);
            return self.repeated(answer, caller, patience).await;
        }
        let outcome = patience.outcome(order, &mut watcher).await;
        answer.order = Some(wire::order(&outcome));
        Ok(answer)
    }

    /// The first answer, with its order as it stands when the wait is over: at once where nobody more can wait.
    async fn repeated(
        &self,
        mut first: CreateOrderResponse,
        caller: Caller,
        patience: &Patience,
    ) -> Result<CreateOrderResponse, Status> {
        if let Some(order) = &first.order {
            let order_id = wire::order_id(order).map_err(super::invalid)?;
            let order = match self.hub.watch(order_id) {
                Ok(watcher) => self.awaited(watcher, (order_id, caller), patience).await?,
                Err(_) => self.find(order_id, caller).await?,
            };
            first.order = Some(wire::order(&order));
        }
        Ok(first)
    }
}

/// How the order stands, and then its outcome.
pub(super) fn changes(
    order: Order,
    mut watcher: Watcher,
) -> BoxStream<'static, Result<WatchOrderResponse, Status>> {
    let now = stream::once(async move { Ok(response(&order)) });
    if order.state != State::Pending {
        return now.boxed();
    }
    let then = stream::once(async move {
        let outcome = watcher.outcome().await;
        let outcome = outcome.map_err(|none| Status::unavailable(none.to_string()))?;
        Ok(response(&outcome))
    });
    now.chain(then).boxed()
}

fn response(order: &Order) -> WatchOrderResponse {
    WatchOrderResponse {
        order: Some(wire::order(order)),
    }
}

/// Nobody more can wait here.
pub(super) fn full(full: Full) -> Status {
    Status::resource_exhausted(full.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_leaves_its_answer_time_for_the_way() {
        let request = Request::new(());
        let patience = Patience::of(&request, Duration::from_secs(3600)).unwrap();
        let answer_by = patience.admission.answer_by();
        assert_eq!(answer_by - patience.until, Duration::from_millis(50));
        assert!(Patience::of(&request, Duration::ZERO).is_none());
    }
}
