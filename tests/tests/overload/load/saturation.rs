//! How many orders a second the system settles when there are always enough of them: a closed load, in which each
//! order that settles makes room for another.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use harness::System;
use proto::customers::v1::CreateCustomerRequest;
use proto::money::v1::Money;
use proto::orders::v1::order_service_client::OrderServiceClient;
use proto::orders::v1::{CreateOrderRequest, OrderState};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tonic::transport::Channel;

/// Enough to fill the batches that orders travel in, and far fewer than may be pending.
const UNDER_WAY: usize = 200;
const CONNECTIONS: usize = 4;
const CUSTOMERS: usize = 100;
const WARM_UP: Duration = Duration::from_secs(2);
/// The best of so many counts: what else runs on the machine takes from it, and nothing adds to it.
const WINDOWS: u32 = 3;
const WINDOW: Duration = Duration::from_secs(2);

pub(super) async fn find(system: &System) -> Result<f64> {
    let mut customers = Vec::new();
    for _ in 0..CUSTOMERS {
        customers.push(customer(system).await?);
    }
    let clients = (0..CONNECTIONS).map(|_| system.orders());
    let clients = clients.collect::<Result<Vec<_>>>()?;
    let begin = Instant::now() + WARM_UP;
    let end = begin + WINDOW * WINDOWS;
    let settled = Arc::new(AtomicUsize::new(0));
    let mut load = JoinSet::new();
    for number in 0..UNDER_WAY {
        let client = clients[number % CONNECTIONS].clone();
        let customer_id = customers[number % CUSTOMERS].clone();
        load.spawn(one_after_another(client, customer_id, end, settled.clone()));
    }
    sleep_until(begin).await;
    let mut best = 0;
    for window in 1..=WINDOWS {
        let before = settled.load(Ordering::Relaxed);
        sleep_until(begin + WINDOW * window).await;
        best = best.max(settled.load(Ordering::Relaxed) - before);
    }
    while let Some(ended) = load.join_next().await {
        ended??;
    }
    Ok(best as f64 / WINDOW.as_secs_f64())
}

async fn one_after_another(
    mut client: OrderServiceClient<Channel>,
    customer_id: String,
    end: Instant,
    settled: Arc<AtomicUsize>,
) -> Result<()> {
    while Instant::now() < end {
        let request = CreateOrderRequest {
            customer_id: customer_id.clone(),
            total: euros(100),
            wait: Some(proto::Duration {
                seconds: 20,
                nanos: 0,
            }),
            ..CreateOrderRequest::default()
        };
        let order = client.create_order(request).await?.into_inner().order;
        anyhow::ensure!(
            order.context("an order")?.state() == OrderState::Approved,
            "it is not settled within 20 s"
        );
        settled.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

async fn customer(system: &System) -> Result<String> {
    let request = CreateCustomerRequest {
        name: "Ada".to_owned(),
        credit_limit: euros(1_000_000_000_000),
        ..CreateCustomerRequest::default()
    };
    let created = system.customers()?.create_customer(request).await?;
    let customer = created.into_inner().customer.context("a customer")?;
    Ok(customer.customer_id)
}

fn euros(minor_units: i64) -> Option<Money> {
    Some(Money {
        minor_units,
        currency: "EUR".to_owned(),
    })
}
