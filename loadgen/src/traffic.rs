//! The load itself: a thread that keeps the clock, requests that go out when they are due, and those who wait
//! for outcomes.
//!
//! The clock's thread does nothing but wait and hand on, so that neither answers nor this program's own work
//! move what is due. Between it and the requests stands a queue: what finds no room on its way waits there, and
//! is late; what finds the queue full, or waits for as long as a request may take, is unsent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use proto::Duration as WireDuration;
use proto::orders::v1::{
    CancelOrderRequest, CancelOrderResponse, CreateOrderResponse, GetOrderRequest,
    GetOrderResponse, OrderState, WatchOrderRequest,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{sleep, timeout, timeout_at};
use tonic::{Code, Status};
use uuid::Uuid;

use crate::mix::Operation;
use crate::reach::{Lane, Services, passes};
use crate::record::Record;
use crate::schedule::{Arrival, Arrivals};
use crate::shop::Shop;

/// Requests that wait for room (I12): a hundred bytes each.
const QUEUE_MAX: usize = 100_000;
/// Orders whose outcome is awaited at once (I12); those beyond it are not tracked, which the report says.
const TRACKED_MAX: usize = 4096;
/// What one question for an outcome waits: the most that the service allows is 20 s.
const OUTCOME_WAIT: Duration = Duration::from_secs(15);
/// The answer's way, besides.
const OUTCOME_MARGIN: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(100);

/// What all requests share.
#[derive(Debug)]
pub(crate) struct Traffic {
    pub(crate) services: Services,
    pub(crate) shop: Shop,
    pub(crate) record: Record,
    pub(crate) request_timeout: Duration,
    pub(crate) settle_timeout: Duration,
    /// The share of the orders that are tracked.
    pub(crate) track: f64,
}

/// Sends everything, and returns when each request has ended and each tracked order is settled or given up: until
/// when requests were due, which is before the end where it was stopped.
pub(crate) async fn run(
    traffic: &Arc<Traffic>,
    arrivals: Arrivals,
    in_flight: usize,
    stop: &Arc<AtomicBool>,
) -> Result<Option<Duration>> {
    let (queue, mut due) = mpsc::channel(QUEUE_MAX);
    let clock = {
        let (traffic, stop) = (traffic.clone(), stop.clone());
        thread::Builder::new()
            .name("clock".to_owned())
            .spawn(move || keep_time(&traffic, arrivals, &queue, &stop))
            .context("cannot start a thread")?
    };
    let room = Arc::new(Semaphore::new(in_flight));
    let trackers = Arc::new(Semaphore::new(TRACKED_MAX));
    while let Some(arrival) = due.recv().await {
        let arrival: Arrival = arrival;
        let at = traffic.record.start() + arrival.due;
        let give_up = at + traffic.request_timeout;
        let Ok(permit) = timeout_at(give_up.into(), room.clone().acquire_owned()).await else {
            traffic.record.unsent(arrival.operation, at);
            continue;
        };
        let (traffic, trackers) = (traffic.clone(), trackers.clone());
        tokio::spawn(async move { traffic.send(arrival, at, permit?, trackers).await });
    }
    let all = u32::try_from(in_flight).context("too many requests at once")?;
    drop(room.acquire_many(all).await?);
    drop(trackers.acquire_many(u32::try_from(TRACKED_MAX)?).await?);
    clock
        .join()
        .map_err(|_| anyhow::anyhow!("the clock's thread panicked"))
}

fn keep_time(
    traffic: &Traffic,
    arrivals: Arrivals,
    queue: &mpsc::Sender<Arrival>,
    stop: &AtomicBool,
) -> Option<Duration> {
    for arrival in arrivals {
        let at = traffic.record.start() + arrival.due;
        loop {
            if stop.load(Ordering::Relaxed) {
                return Some(traffic.record.start().elapsed().min(arrival.due));
            }
            let left = at.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            thread::park_timeout(left.min(PAUSE));
        }
        traffic.record.offered(arrival.operation, at);
        if queue.try_send(arrival).is_err() {
            traffic.record.unsent(arrival.operation, at);
        }
    }
    None
}

impl Traffic {
    async fn send(
        self: Arc<Self>,
        arrival: Arrival,
        due: Instant,
        permit: OwnedSemaphorePermit,
        trackers: Arc<Semaphore>,
    ) -> Result<()> {
        let operation = arrival.operation;
        self.record.sent(operation, due, Instant::now());
        let until = due + self.request_timeout;
        let within = until.saturating_duration_since(Instant::now());
        let answer = match operation {
            Operation::Create => self.create(&arrival, (due, within), trackers).await,
            Operation::Get => {
                self.get(self.shop.some_order(arrival.luck), None, within)
                    .await
            }
            Operation::Cancel => {
                self.cancel(self.shop.some_order(arrival.luck), within)
                    .await
            }
            Operation::Watch => self.watch(self.shop.last_order(), within).await,
        };
        let code = answer.err().map_or(Code::Ok, |status| status.code());
        self.record.answered(operation, due, Instant::now(), code);
        drop(permit);
        Ok(())
    }

    async fn create(
        self: &Arc<Self>,
        arrival: &Arrival,
        (due, within): (Instant, Duration),
        trackers: Arc<Semaphore>,
    ) -> Result<(), Status> {
        let request = self.shop.order(arrival.customer);
        let subject = "orders.v1.CreateOrder";
        let created: CreateOrderResponse = match self
            .services
            .ask(Lane::Load, subject, request, within)
            .await
        {
            Ok(created) => created,
            Err(status) => {
                // Whether it took effect is not known.
                if passes(&status) || status.code() == Code::Internal {
                    self.shop.in_doubt(arrival.customer);
                }
                return Err(status);
            }
        };
        let id = self.shop.acknowledged(arrival.customer, &created);
        let id = id.map_err(|error| Status::internal(error.to_string()))?;
        let wanted = (arrival.luck as f64 / u64::MAX as f64) < self.track;
        let place = wanted.then(|| trackers.try_acquire_owned().ok()).flatten();
        self.record.created(place.is_some());
        if let Some(place) = place {
            let traffic = self.clone();
            tokio::spawn(async move { traffic.track(id, due, place).await });
        }
        Ok(())
    }

    async fn get(
        &self,
        order_id: String,
        wait: Option<WireDuration>,
        within: Duration,
    ) -> Result<(), Status> {
        let request = GetOrderRequest { order_id, wait };
        let subject = "orders.v1.GetOrder";
        let _: GetOrderResponse = self
            .services
            .ask(Lane::Load, subject, request, within)
            .await?;
        Ok(())
    }

    async fn cancel(&self, order_id: String, within: Duration) -> Result<(), Status> {
        let request = CancelOrderRequest {
            order_id,
            request_id: Uuid::now_v7().to_string(),
        };
        let subject = "orders.v1.CancelOrder";
        let _: CancelOrderResponse = self
            .services
            .ask(Lane::Load, subject, request, within)
            .await?;
        Ok(())
    }

    async fn watch(&self, order_id: String, within: Duration) -> Result<(), Status> {
        let request = WatchOrderRequest {
            order_id: order_id.clone(),
        };
        let watched = async {
            let Some(stream) = self.services.watch(request).await else {
                let wait = within.min(OUTCOME_WAIT);
                return self.get(order_id, Some(wire(wait)), within).await;
            };
            let mut stream = stream?;
            while stream.message().await?.is_some() {}
            Ok(())
        };
        match timeout(within, watched).await {
            Ok(ended) => ended,
            Err(_) => Err(Status::deadline_exceeded("no outcome in time")),
        }
    }

    /// Awaits the outcome of an order, however often the service has to be asked.
    async fn track(&self, order_id: String, due: Instant, place: OwnedSemaphorePermit) {
        let until = due + self.settle_timeout;
        let state = loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break None;
            }
            let wait = left.min(OUTCOME_WAIT);
            let request = GetOrderRequest {
                order_id: order_id.clone(),
                wait: Some(wire(wait)),
            };
            let answer: Result<GetOrderResponse, Status> = self
                .services
                .ask(
                    Lane::Tracking,
                    "orders.v1.GetOrder",
                    request,
                    wait + OUTCOME_MARGIN,
                )
                .await;
            let state = answer.ok().and_then(|answer| answer.order);
            match state.map(|order| order.state()) {
                Some(state @ (OrderState::Approved | OrderState::Cancelled)) => break Some(state),
                Some(_) => {}
                None => sleep(PAUSE).await,
            }
        };
        self.record.settled(due, Instant::now(), state);
        drop(place);
    }
}

fn wire(wait: Duration) -> WireDuration {
    WireDuration {
        seconds: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(wait.subsec_nanos()).unwrap_or_default(),
    }
}
