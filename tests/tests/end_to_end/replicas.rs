//! Replicas come and go under load, and meet at the same rows (I4, I6, I7, I8).

use std::time::Duration;

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use harness::{Process, Side, System, books, eventually};

use crate::client::{Client, Transport, euros};
use crate::events;
use crate::load::Load;

/// Customers that all replicas want at once.
const HOT_CUSTOMERS: usize = 20;
const REPLICAS: usize = 4;
/// Orders of each hot customer; half of them are cancelled again.
const ORDERS: usize = 60;
const TOTAL: i64 = 10;
/// Of the orders that are left, as many as fit.
const LIMIT: i64 = 250;

const DEADLINE: Duration = Duration::from_secs(120);

/// How many deadlocks Postgres has had to end in a database.
async fn deadlocks(system: &System, side: Side) -> Result<i64> {
    let database = system.database(side).await?;
    let sql = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    Ok(database.query_one(sql, &[]).await?.get(0))
}

async fn total(processes: &[&Process], metric: &str) -> Result<f64> {
    let mut total = 0.0;
    for process in processes {
        total += process.metric(metric).await?.unwrap_or(0.0);
    }
    Ok(total)
}

/// The stream has the customers' orders in turn, so each batch of each replica has them all.
#[tokio::test(flavor = "multi_thread")]
async fn four_replicas_that_want_the_same_20_customers_do_not_deadlock() {
    let mut system = System::builder()
        // Two of each customer in a batch, and many batches for each replica.
        .env("customer-service", "CONSUMER_BATCH_MAX", "40")
        .start()
        .await
        .unwrap();
    let mut names = vec![Side::Customers.service().to_owned()];
    while names.len() < REPLICAS {
        names.push(system.add_replica(Side::Customers).await.unwrap());
    }
    let client = Client::new(&system, Transport::Grpc).await.unwrap();
    let create = (0..HOT_CUSTOMERS).map(|_| client.create_customer("hot", euros(LIMIT)));
    let customers = try_join_all(create).await.unwrap();
    let replicas: Vec<&Process> = names.iter().map(|name| system.process(name)).collect();
    replicas.iter().for_each(|replica| replica.pause().unwrap());
    for number in 0..ORDERS {
        let create = customers
            .iter()
            .map(|customer| client.create_order(&customer.customer_id, euros(TOTAL)));
        let orders = try_join_all(create).await.unwrap();
        if number % 2 == 0 {
            let cancel = orders
                .iter()
                .map(|order| client.cancel_order(&order.order_id));
            try_join_all(cancel).await.unwrap();
        }
    }
    let published = async || {
        let stored = events::count(&system, Side::Orders).await?;
        let wanted = HOT_CUSTOMERS * ORDERS * 3 / 2;
        ensure!(stored >= wanted, "so far {stored} of {wanted}");
        Ok(Some(()))
    };
    let published = eventually("the orders to be published", DEADLINE, published).await;
    published.unwrap();
    replicas
        .iter()
        .for_each(|replica| replica.resume().unwrap());

    let books = books::settled(&system, DEADLINE).await.unwrap();
    println!("{books}");
    books.assert_clean();
    assert_eq!(books.dead_letters, 0);
    for account in &books.customers {
        assert!(account.reserved <= LIMIT, "{account:?}");
    }
    for side in Side::ALL {
        assert_eq!(deadlocks(&system, side).await.unwrap(), 0, "{side:?}");
    }
    let failed = total(&replicas, "mailbox_batches_failed_total")
        .await
        .unwrap();
    assert!(failed == 0.0, "{failed} batches failed");
    for replica in replicas {
        let applied = total(&[replica], "mailbox_events_applied_total")
            .await
            .unwrap();
        assert!(applied > 0.0, "{} had nothing to do", replica.name());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_added_and_killed_under_load_lose_and_double_nothing() {
    let mut system = System::builder()
        .env("order-service", "ORDER_DEADLINE_SECONDS", "3600")
        .env("order-service", "CONSUMER_ACK_WAIT_SECONDS", "10")
        .env("customer-service", "CONSUMER_ACK_WAIT_SECONDS", "10")
        .start()
        .await
        .unwrap();
    let load = Load::default();
    let mut oldest = Side::ALL.map(|side| side.service().to_owned());
    for round in 1..=3 {
        let burst = load.burst(&system).await.unwrap();
        for (at, side) in Side::ALL.into_iter().enumerate() {
            burst.placed(1 + 2 * at, 4).await;
            let added = system.add_replica(side).await.unwrap();
            let killed = system.process(&oldest[at]);
            killed.kill().await.unwrap();
            if round == 1 {
                // It has the address that the clients know. The later ones stay away.
                killed.start_again().unwrap();
            }
            oldest[at] = added;
        }
        burst.finished().await;
    }
    load.assert_settled(&system).await;
}
