//! Whether the books balance after the load, as any client can find out: each customer's orders, reservations
//! and credit, read through the API and compared with each other and with what the run was told.
//!
//! Orders settle and credit is released a moment after the load, so what does not balance yet is read again
//! until the time is up.

mod check;

use std::time::Duration;

use anyhow::{Context as _, Result};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use proto::customers::v1::{
    Customer, GetCustomerRequest, GetCustomerResponse, ListReservationsRequest,
    ListReservationsResponse, Reservation,
};
use proto::orders::v1::{ListOrdersRequest, ListOrdersResponse, Order};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::reach::Services;
use crate::shop::{self, Shop};

/// The most that a page may have.
const PAGE: i32 = 1000;
const AGAIN: Duration = Duration::from_millis(250);
/// For who reads a report: what is wrong with so many customers is wrong with more.
const FINDINGS_MAX: usize = 100;

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Books {
    pub(crate) balanced: bool,
    pub(crate) customers: u64,
    pub(crate) orders: u64,
    pub(crate) approved: u64,
    pub(crate) cancelled: u64,
    pub(crate) pending: u64,
    /// Orders of creates that had no answer.
    pub(crate) unacknowledged: u64,
    /// Each names its customer or order; the first hundred.
    pub(crate) findings: Vec<String>,
}

/// Everything that the services know of one customer.
#[derive(Debug)]
struct Account {
    customer: Customer,
    orders: Vec<Order>,
    reservations: Vec<Reservation>,
}

/// Reads all books until they balance, or `patience` is over.
pub(crate) async fn audit(services: &Services, shop: &Shop, patience: Duration) -> Result<Books> {
    let until = Instant::now() + patience;
    let audits = shop
        .customers
        .iter()
        .map(|customer| audit_one(services, shop, customer, until));
    let mut audits = stream::iter(audits).buffer_unordered(shop::AT_ONCE);
    let mut books = Books {
        balanced: true,
        customers: 0,
        orders: 0,
        approved: 0,
        cancelled: 0,
        pending: 0,
        unacknowledged: 0,
        findings: Vec::new(),
    };
    while let Some(found) = audits.try_next().await? {
        books.customers += 1;
        books.orders += found.orders;
        books.approved += found.approved;
        books.cancelled += found.cancelled;
        books.pending += found.pending;
        books.unacknowledged += found.unacknowledged;
        books.balanced &= found.findings.is_empty();
        let room = FINDINGS_MAX - books.findings.len();
        books.findings.extend(found.findings.into_iter().take(room));
    }
    Ok(books)
}

async fn audit_one(
    services: &Services,
    shop: &Shop,
    customer: &shop::Customer,
    until: Instant,
) -> Result<check::Found> {
    loop {
        let account = read(services, &customer.id)
            .await
            .with_context(|| format!("the books of customer {} cannot be read", customer.id))?;
        let found = check::check(&account, &customer.known(), shop.amount);
        if found.findings.is_empty() || Instant::now() + AGAIN > until {
            return Ok(found);
        }
        sleep(AGAIN).await;
    }
}

/// A page is asked for until this much later.
const PAGE_PATIENCE: Duration = Duration::from_secs(30);

async fn read(services: &Services, customer_id: &str) -> Result<Account> {
    let (mut orders, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListOrdersRequest {
            customer_id: customer_id.to_owned(),
            page_size: PAGE,
            page_token,
        };
        let until = Instant::now() + PAGE_PATIENCE;
        let page: ListOrdersResponse = services
            .insist("orders.v1.ListOrders", &request, until)
            .await?;
        orders.extend(page.orders);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let mut reservations = Vec::new();
    loop {
        let request = ListReservationsRequest {
            customer_id: customer_id.to_owned(),
            page_size: PAGE,
            page_token,
        };
        let until = Instant::now() + PAGE_PATIENCE;
        let page: ListReservationsResponse = services
            .insist("customers.v1.ListReservations", &request, until)
            .await?;
        reservations.extend(page.reservations);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let request = GetCustomerRequest {
        customer_id: customer_id.to_owned(),
    };
    let until = Instant::now() + PAGE_PATIENCE;
    let customer: GetCustomerResponse = services
        .insist("customers.v1.GetCustomer", &request, until)
        .await?;
    Ok(Account {
        customer: customer.customer.context("an answer without a customer")?,
        orders,
        reservations,
    })
}
