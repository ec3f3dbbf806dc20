//! Clients that go on ordering whatever happens to the servers, and what must be true afterwards.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use harness::{Side, System, books, eventually};
use proto::money::v1::Money;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::client::{Client, Failure, Transport, euros, money};

/// Clients of a burst. Each has a customer of its own.
const CLIENTS: usize = 9;
/// What a customer may have reserved: three of its orders.
const LIMIT: i64 = 300;
/// Each customer's orders: more than fit, and some that cannot be approved at all.
const ORDERS: [&str; 7] = ["EUR", "USD", "EUR", "EUR", "nobody", "EUR", "EUR"];

/// Time for all of a burst, over the restart of whatever is restarted.
const BURST_DEADLINE: Duration = Duration::from_secs(120);
/// A killed service holds its batch for `ack_wait`, 60 s.
const SETTLE_DEADLINE: Duration = Duration::from_secs(180);
/// Shorter than the client's default of 10 s: an answer that was lost never comes.
const NATS_REQUEST_TIMEOUT: Duration = Duration::from_secs(3);
/// Between tries at a server that is down.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// What the services have accepted, over all bursts: they may not lose any of it.
#[derive(Debug, Default)]
struct Accepted {
    customers: Vec<String>,
    orders: Vec<String>,
    /// Tries that were not answered, or refused for the time being.
    failed_tries: usize,
}

/// Bursts of orders against one system.
#[derive(Debug, Default)]
pub(crate) struct Load {
    accepted: Arc<Mutex<Accepted>>,
}

/// A burst that is under way.
#[derive(Debug)]
pub(crate) struct Burst {
    accepted: Arc<Mutex<Accepted>>,
    orders_before: usize,
    clients: Vec<JoinHandle<Result<()>>>,
}

impl Load {
    /// Starts clients of every transport, which place a burst's orders and then end.
    pub(crate) async fn burst(&self, system: &System) -> Result<Burst> {
        let orders_before = lock(&self.accepted).orders.len();
        let mut clients = Vec::new();
        for transport in Transport::ALL.into_iter().cycle().take(CLIENTS) {
            let mut client = Client::new(system, transport).await?;
            client.nats = async_nats::ConnectOptions::new()
                .request_timeout(Some(NATS_REQUEST_TIMEOUT))
                .connect(system.nats().url())
                .await?;
            clients.push(tokio::spawn(order(client, self.accepted.clone())));
        }
        Ok(Burst {
            accepted: self.accepted.clone(),
            orders_before,
            clients,
        })
    }

    /// Awaits that all is settled, and compares the books with what the clients were told.
    pub(crate) async fn assert_settled(&self, system: &System) {
        let books = books::settled(system, SETTLE_DEADLINE)
            .await
            .expect("everything settles");
        books.assert_clean();
        assert_eq!(books.dead_letters, 0);
        assert_eq!(books.orders("pending"), 0);
        let database = system.database(Side::Orders).await.expect("a database");
        let rows = database.query("SELECT order_id::text FROM orders", &[]);
        let rows = rows.await.expect("the orders are read");
        let stored: HashSet<&str> = rows.iter().map(|row| row.get(0)).collect();
        let accepted = lock(&self.accepted);
        println!(
            "{} orders accepted, {} tries failed\n{books}",
            accepted.orders.len(),
            accepted.failed_tries
        );
        for order_id in &accepted.orders {
            assert!(stored.contains(order_id.as_str()), "{order_id} is lost");
        }
        for customer_id in &accepted.customers {
            let mut accounts = books.customers.iter();
            let account = accounts.find(|one| one.customer_id == *customer_id);
            let account = account.unwrap_or_else(|| panic!("customer {customer_id} is lost"));
            // Of orders for more than the limit in all, as many as fit.
            assert_eq!(account.reserved, LIMIT, "{account:?}");
        }
    }
}

impl Burst {
    /// The share of its orders that a burst is to have placed when something happens to it.
    pub(crate) async fn placed(&self, share: usize, of: usize) {
        let wanted = CLIENTS * ORDERS.len() * share / of;
        let what = format!("{wanted} orders of the burst to be accepted");
        let placed = eventually(&what, BURST_DEADLINE, async || {
            let placed = lock(&self.accepted).orders.len() - self.orders_before;
            ensure!(placed >= wanted, "so far {placed}");
            Ok(Some(()))
        });
        placed.await.expect("the burst goes on");
    }

    /// Awaits that each client has placed all its orders.
    pub(crate) async fn finished(self) {
        let all = tokio::time::timeout(BURST_DEADLINE, try_join_all(self.clients)).await;
        let ended = all.expect("the burst ends in time").expect("no panic");
        for client in ended {
            client.expect("the services refuse nothing for good");
        }
    }
}

async fn order(client: Client, accepted: Arc<Mutex<Accepted>>) -> Result<()> {
    let create = || client.create_customer("under load", euros(LIMIT));
    let customer = again_and_again(&accepted, create).await?;
    lock(&accepted).customers.push(customer.customer_id.clone());
    for kind in ORDERS {
        let nobody = Uuid::now_v7().to_string();
        let (customer_id, total): (&str, Money) = match kind {
            "nobody" => (&nobody, euros(100)),
            currency => (&customer.customer_id, money(100, currency)),
        };
        let create = || client.create_order(customer_id, total.clone());
        let order = again_and_again(&accepted, create).await?;
        lock(&accepted).orders.push(order.order_id);
    }
    Ok(())
}

/// Tries until the service accepts. A try whose answer was lost may have had its effect: that makes
/// orders more than were asked for, and no order less.
async fn again_and_again<T, F: Future<Output = Result<T, Failure>> + Send>(
    accepted: &Mutex<Accepted>,
    mut attempt: impl FnMut() -> F + Send,
) -> Result<T> {
    loop {
        match attempt().await {
            Ok(answer) => return Ok(answer),
            Err(Failure::Refused(refusal)) => {
                let passes = ["UNAVAILABLE", "CANCELLED", "DEADLINE_EXCEEDED", "UNKNOWN"];
                ensure!(passes.contains(&refusal.code.as_str()), "{refusal}");
            }
            Err(Failure::NoAnswer(_)) => {}
        }
        lock(accepted).failed_tries += 1;
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

fn lock(accepted: &Mutex<Accepted>) -> std::sync::MutexGuard<'_, Accepted> {
    accepted.lock().expect("a client panicked")
}
