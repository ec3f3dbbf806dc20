//! The customers of a run, created for it alone, and what it knows of their orders: what was acknowledged, and
//! how many creates have had no answer.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use proto::customers::v1::{CreateCustomerRequest, CreateCustomerResponse};
use proto::money::v1::Money;
use proto::orders::v1::{CreateOrderRequest, CreateOrderResponse};
use tokio::time::Instant;
use uuid::Uuid;

use crate::cli::Load;
use crate::reach::Services;

const CURRENCY: &str = "EUR";
/// Requests at a time, before the load and after it.
pub(crate) const AT_ONCE: usize = 32;
/// For what is created before the load, each.
const PATIENCE: Duration = Duration::from_secs(30);
/// The latest orders, which are read, cancelled and watched (I12).
const LATEST: usize = 1024;
/// Placed before the load, so that its first reads find something.
const FIRST_ORDERS: usize = 16;

#[derive(Debug)]
pub(crate) struct Customer {
    pub(crate) id: String,
    known: Mutex<Known>,
}

/// What a run knows of a customer's orders.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    pub(crate) acknowledged: HashSet<Uuid>,
    /// Creates without an answer: they may have taken effect or not.
    pub(crate) in_doubt: u64,
}

impl Customer {
    pub(crate) fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
pub(crate) struct Shop {
    pub(crate) customers: Vec<Customer>,
    pub(crate) amount: i64,
    /// Whether an order can be placed again as the same one.
    request_ids: bool,
    latest: Mutex<Vec<String>>,
    placed: AtomicUsize,
}

impl Shop {
    /// Creates the customers and a few orders.
    pub(crate) async fn open(services: &Services, load: &Load) -> Result<Self> {
        let create = (0..load.customers).map(|number| async move {
            let request = CreateCustomerRequest {
                name: format!("Load {number}"),
                credit_limit: euros(load.credit_limit),
                request_id: Uuid::now_v7().to_string(),
            };
            let until = Instant::now() + PATIENCE;
            let subject = "customers.v1.CreateCustomer";
            let created: CreateCustomerResponse = services.insist(subject, &request, until).await?;
            let customer = created.customer.context("an answer without a customer")?;
            anyhow::Ok(Customer {
                id: customer.customer_id,
                known: Mutex::default(),
            })
        });
        let customers: Vec<Customer> = stream::iter(create)
            .buffered(AT_ONCE)
            .try_collect()
            .await
            .context("the load's customers cannot be created")?;
        let shop = Self {
            customers,
            amount: load.amount,
            request_ids: !load.without_request_ids,
            latest: Mutex::default(),
            placed: AtomicUsize::new(0),
        };
        for number in 0..FIRST_ORDERS {
            let customer = number % shop.customers.len();
            let request = shop.order(customer);
            let until = Instant::now() + PATIENCE;
            let created: CreateOrderResponse = services
                .insist("orders.v1.CreateOrder", &request, until)
                .await
                .context("the first orders cannot be created")?;
            shop.acknowledged(customer, &created)?;
        }
        Ok(shop)
    }

    /// An order that is to be placed.
    pub(crate) fn order(&self, customer: usize) -> CreateOrderRequest {
        let request_id = self.request_ids.then(|| Uuid::now_v7().to_string());
        CreateOrderRequest {
            customer_id: self.customers[customer].id.clone(),
            total: euros(self.amount),
            request_id: request_id.unwrap_or_default(),
            wait: None,
        }
    }

    /// Keeps an order that was acknowledged; its id.
    pub(crate) fn acknowledged(
        &self,
        customer: usize,
        created: &CreateOrderResponse,
    ) -> Result<String> {
        let order = created
            .order
            .as_ref()
            .context("an answer without an order")?;
        let id = Uuid::try_parse(&order.order_id)?;
        self.customers[customer].known().acknowledged.insert(id);
        let place = self.placed.fetch_add(1, Ordering::Relaxed) % LATEST;
        let mut latest = self.latest();
        match latest.get_mut(place) {
            Some(old) => old.clone_from(&order.order_id),
            None => latest.push(order.order_id.clone()),
        }
        Ok(order.order_id.clone())
    }

    pub(crate) fn in_doubt(&self, customer: usize) {
        self.customers[customer].known().in_doubt += 1;
    }

    /// One of the latest orders.
    pub(crate) fn some_order(&self, luck: u64) -> String {
        let latest = self.latest();
        latest[luck as usize % latest.len()].clone()
    }

    /// The latest order, or nearly.
    pub(crate) fn last_order(&self) -> String {
        let latest = self.latest();
        let last = self.placed.load(Ordering::Relaxed).max(1) - 1;
        latest[(last % LATEST).min(latest.len() - 1)].clone()
    }

    fn latest(&self) -> MutexGuard<'_, Vec<String>> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn euros(minor_units: i64) -> Option<Money> {
    Some(Money {
        minor_units,
        currency: CURRENCY.to_owned(),
    })
}
