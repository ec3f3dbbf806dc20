//! Orders that are placed over gRPC, and when each was settled: seen as a subscriber of the stream's
//! subjects sees it, so the relay's part is in it.
//!
//! Closed: so many orders are under way, and each that settles makes room for another; what comes of it is
//! how much the system settles without a queue that grows. Open: orders are due by the clock, however long
//! those before take, and what an order is late by counts (no coordinated omission).

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use async_nats::Subscriber;
use futures_util::{StreamExt, TryStreamExt, stream};
use harness::System;
use hdrhistogram::Histogram;
use prost::Message;
use proto::customers::v1::CreateCustomerRequest;
use proto::money::v1::Money;
use proto::orders::v1::{CreateOrderRequest, OrderApproved};
use tokio::sync::Semaphore;
use tokio::task::LocalSet;
use tokio::time::timeout_at;

use super::CUSTOMERS;

const APPROVED: &str = "events.orders.v1.OrderApproved";
/// Nothing is refused, so that all sagas are the same.
const LIMIT: i64 = 1_000_000_000_000;
/// Each has a connection of its own.
const CHANNELS: usize = 4;
/// Calls that a closed load has on their way: more would only wait for the service's connections.
const CALLS: usize = 64;
/// After the last order was placed.
const SETTLE: Duration = Duration::from_secs(60);

/// When orders are placed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Model {
    /// So many are under way.
    Closed(usize),
    /// So many are due each second.
    Open(f64),
}

/// What was settled after the warm-up.
#[derive(Debug)]
pub(super) struct Settled {
    pub(super) per_second: f64,
    /// From when an order was due to its approval, in microseconds.
    pub(super) latency: Histogram<u64>,
}

/// An order of which one end is known. Either may be seen first.
#[derive(Clone, Copy, Debug)]
enum Half {
    Due(Instant),
    Approved(Instant),
}

#[derive(Debug)]
struct Book {
    halves: HashMap<String, Half>,
    /// Due and approved.
    settled: Vec<(Instant, Instant)>,
    room: Rc<Semaphore>,
}

impl Book {
    fn note(&mut self, order_id: String, half: Half) {
        match (self.halves.remove(&order_id), half) {
            (Some(Half::Due(due)), Half::Approved(at))
            | (Some(Half::Approved(at)), Half::Due(due)) => {
                self.settled.push((due, at));
                self.room.add_permits(1);
            }
            _ => {
                self.halves.insert(order_id, half);
            }
        }
    }
}

/// Customers that nothing is refused to.
pub(super) async fn customers(system: &System) -> Result<Vec<String>> {
    let client = system.customers()?;
    let create = (0..CUSTOMERS).map(|_| {
        let mut client = client.clone();
        async move {
            let request = CreateCustomerRequest {
                name: "Ada".to_owned(),
                credit_limit: euros(LIMIT),
                ..CreateCustomerRequest::default()
            };
            let created = client.create_customer(request).await?.into_inner();
            created
                .customer
                .map(|customer| customer.customer_id)
                .context("no customer")
        }
    });
    stream::iter(create).buffered(CALLS).try_collect().await
}

fn euros(minor_units: i64) -> Option<Money> {
    Some(Money {
        minor_units,
        currency: "EUR".to_owned(),
    })
}

/// Places orders for `warm_up` and then `counted`; waits until all are settled.
pub(super) async fn run(
    system: &System,
    customers: &[String],
    model: Model,
    (warm_up, counted): (Duration, Duration),
) -> Result<Settled> {
    let approved = system.nats().client().await?.subscribe(APPROVED).await?;
    let room = match model {
        Model::Closed(orders) => orders,
        Model::Open(_) => 0,
    };
    let room = Rc::new(Semaphore::new(room));
    let book = Rc::new(RefCell::new(Book {
        halves: HashMap::new(),
        settled: Vec::new(),
        room: room.clone(),
    }));
    let local = LocalSet::new();
    local.spawn_local(listen(approved, book.clone()));
    let begin = Instant::now();
    let end = begin + warm_up + counted;
    let placing = place(system, customers, (model, room), (begin, end), &book);
    local.run_until(placing).await?;
    let book = book.borrow();
    let from = begin + warm_up;
    let mut latency = Histogram::new(3)?;
    for (due, at) in &book.settled {
        if *due >= from && *due < end {
            latency.record(u64::try_from((*at - *due).as_micros())?)?;
        }
    }
    let within = book
        .settled
        .iter()
        .filter(|(_, at)| *at >= from && *at < end);
    Ok(Settled {
        per_second: within.count() as f64 / counted.as_secs_f64(),
        latency,
    })
}

async fn listen(mut approved: Subscriber, book: Rc<RefCell<Book>>) {
    while let Some(message) = approved.next().await {
        let at = Instant::now();
        if let Ok(event) = OrderApproved::decode(message.payload) {
            book.borrow_mut().note(event.order_id, Half::Approved(at));
        }
    }
}

async fn place(
    system: &System,
    customers: &[String],
    (model, room): (Model, Rc<Semaphore>),
    (begin, end): (Instant, Instant),
    book: &Rc<RefCell<Book>>,
) -> Result<()> {
    let clients: Vec<_> = (0..CHANNELS)
        .map(|_| system.orders())
        .collect::<Result<_>>()?;
    let calls = Rc::new(Semaphore::new(CALLS));
    let mut placed = Vec::new();
    for number in 0_usize.. {
        let due = match model {
            Model::Closed(_) => {
                let Ok(permit) = timeout_at(end.into(), room.acquire()).await else {
                    break;
                };
                permit?.forget();
                calls.acquire().await?.forget();
                Instant::now()
            }
            Model::Open(rate) => begin + Duration::from_secs_f64(number as f64 / rate),
        };
        if due >= end {
            break;
        }
        // A timer waits for its next millisecond, also for what is due already: a closed load of such waits
        // would be one call a millisecond.
        if due > Instant::now() {
            tokio::time::sleep_until(due.into()).await;
        }
        let mut client = clients[number % CHANNELS].clone();
        let request = CreateOrderRequest {
            // A stride that is prime to their number: all in turn, neighbours far apart.
            customer_id: customers[number * 619 % customers.len()].clone(),
            total: euros(100),
            ..CreateOrderRequest::default()
        };
        let (book, calls) = (book.clone(), calls.clone());
        placed.push(tokio::task::spawn_local(async move {
            let created = client.create_order(request).await?.into_inner();
            calls.add_permits(1);
            let order = created.order.context("no order")?;
            book.borrow_mut().note(order.order_id, Half::Due(due));
            Ok::<_, anyhow::Error>(())
        }));
    }
    let count = placed.len();
    for order in placed {
        order.await??;
    }
    let all = harness::eventually("all orders to be approved", SETTLE, async || {
        let settled = book.borrow().settled.len();
        ensure!(settled == count, "{settled} of {count}");
        Ok(Some(()))
    });
    all.await
}
