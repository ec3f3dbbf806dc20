//! Waiting for an order's outcome: the first state that is not pending.

use std::process::ExitCode;
use std::time::Duration;

use proto::orders::v1::{
    GetOrderRequest, GetOrderResponse, Order, OrderState, WatchOrderRequest, WatchOrderResponse,
};
use tokio::time::{Instant, sleep};

use crate::failure::Failure;
use crate::order::found;
use crate::reach::{Operation, Services};
use crate::show::Out;

/// The services wait for no longer in one request.
const WAIT_MAX: Duration = Duration::from_secs(20);
/// Before a stream that was cut is asked for again.
const PAUSE: Duration = Duration::from_millis(500);

/// The exit statuses that tell an outcome.
const CANCELLED: u8 = 1;
const PENDING: u8 = 3;

/// Until when somebody waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience(Instant);

impl Patience {
    /// From now on, for as long.
    pub(crate) fn new(wait: Option<Duration>) -> Self {
        Self(Instant::now() + wait.unwrap_or_default())
    }

    /// For how long the next request may ask to wait.
    pub(crate) fn next_wait(self) -> Duration {
        let left = self.0.saturating_duration_since(Instant::now());
        left.min(WAIT_MAX)
    }
}

/// The field `wait`.
pub(crate) fn asked(wait: Duration) -> Option<proto::Duration> {
    let seconds = i64::try_from(wait.as_secs()).unwrap_or(i64::MAX);
    let nanos = i32::try_from(wait.subsec_nanos()).unwrap_or_default();
    (!wait.is_zero()).then_some(proto::Duration { seconds, nanos })
}

/// How the order stands, or its outcome if there is one within `wait`.
pub(crate) async fn get(services: &Services, id: &str, wait: Duration) -> Result<Order, Failure> {
    let request = GetOrderRequest {
        order_id: id.to_owned(),
        wait: asked(wait),
    };
    let operation = Operation::read("orders.v1.GetOrder").waiting(wait);
    let answer: GetOrderResponse = services.call(operation, &request).await?;
    found(answer.order)
}

/// The order with its outcome, or still pending when the patience is at its end.
pub(crate) async fn within(
    services: &Services,
    mut order: Order,
    patience: Patience,
) -> Result<Order, Failure> {
    while is_pending(&order) && !patience.next_wait().is_zero() {
        order = get(services, &order.order_id, patience.next_wait()).await?;
    }
    Ok(order)
}

/// Prints each state, up to the outcome. It comes by the order's deadline, so this ends.
pub(crate) async fn watch(services: &Services, id: &str, out: &mut Out) -> Result<Order, Failure> {
    let mut told = None;
    let mut tell = |order: &Order| {
        let is_new = told.replace(order.state) != Some(order.state);
        if is_new { out.change(order) } else { Ok(()) }
    };
    let request = WatchOrderRequest {
        order_id: id.to_owned(),
    };
    let operation = Operation::read("orders.v1.WatchOrder");
    while let Some(mut changes) = services.stream(operation, &request).await? {
        while let Some(change) = changes.next().await? {
            let WatchOrderResponse { order } = change;
            let order = found(order)?;
            tell(&order)?;
            if !is_pending(&order) {
                return Ok(order);
            }
        }
        sleep(PAUSE).await;
    }
    // Over NATS, a request has one answer.
    let mut order = get(services, id, Duration::ZERO).await?;
    loop {
        tell(&order)?;
        if !is_pending(&order) {
            return Ok(order);
        }
        order = get(services, id, WAIT_MAX).await?;
    }
}

/// What the exit status tells of the order that was waited for, if one was.
pub(crate) fn status(order: Option<&Order>) -> ExitCode {
    match order.map(Order::state) {
        None | Some(OrderState::Approved) => ExitCode::SUCCESS,
        Some(OrderState::Cancelled) => ExitCode::from(CANCELLED),
        Some(OrderState::Pending | OrderState::Unspecified) => ExitCode::from(PENDING),
    }
}

fn is_pending(order: &Order) -> bool {
    order.state() == OrderState::Pending
}
