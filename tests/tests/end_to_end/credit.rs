//! Credit is never reserved past its limit (I7).

use std::time::Duration;

use anyhow::ensure;
use futures_util::future::try_join_all;
use harness::{Side, System, books, eventually};
use tokio_postgres::error::DbError;

use crate::client::{Client, Transport, euros};
use crate::events;

/// Each a chance for two replicas to find the last of the credit at once.
const CUSTOMERS: usize = 6;
/// Orders of each customer, all at once.
const ORDERS: usize = 64;
/// How many of them fit the limit, exactly.
const FITTING: usize = 10;
const TOTAL: i64 = 70;
const LIMIT: i64 = 700;

const DEADLINE: Duration = Duration::from_secs(60);

/// The CHECK stands behind the row lock. A batch that it refuses has failed: so the lock did not hold.
#[tokio::test(flavor = "multi_thread")]
async fn of_64_concurrent_orders_exactly_the_10_that_fit_are_approved() {
    let mut system = System::builder()
        // An order a transaction, so that the replicas meet at the limit.
        .env("customer-service", "CONSUMER_BATCH_MAX", "1")
        .start()
        .await
        .unwrap();
    let replica = system.add_replica(Side::Customers).await.unwrap();
    let client = Client::new(&system, Transport::Grpc).await.unwrap();
    let mut customers = Vec::new();
    for number in 0..CUSTOMERS {
        let name = format!("customer {number}");
        let customer = client.create_customer(&name, euros(LIMIT)).await.unwrap();
        customers.push(customer.customer_id);
    }
    // A customer's orders lie side by side in the stream, and wait there for both replicas.
    let replicas = [Side::Customers.service(), &replica].map(|name| system.process(name));
    replicas.iter().for_each(|process| process.pause().unwrap());
    for customer_id in &customers {
        let orders = (0..ORDERS).map(|_| client.create_order(customer_id, euros(TOTAL)));
        try_join_all(orders).await.unwrap();
    }
    let published = async || {
        let stored = events::count(&system, Side::Orders).await?;
        ensure!(stored >= CUSTOMERS * ORDERS, "so far {stored}");
        Ok(Some(()))
    };
    let published = eventually("the orders to be published", DEADLINE, published).await;
    published.unwrap();
    replicas
        .iter()
        .for_each(|process| process.resume().unwrap());

    let books = books::settled(&system, DEADLINE).await;
    let books = books.unwrap();
    println!("{books}");
    books.assert_clean();
    assert_eq!(books.orders("approved"), CUSTOMERS * FITTING);
    let refused = CUSTOMERS * (ORDERS - FITTING);
    assert_eq!(books.cancelled("credit_limit_exceeded"), refused);
    for account in &books.customers {
        assert_eq!(account.reserved, LIMIT, "{account:?}");
    }
    assert_eq!(books.dead_letters, 0);
    for process in replicas {
        let name = process.name();
        let applied = process.metric("mailbox_events_applied_total").await;
        assert!(applied.unwrap() > Some(0.0), "{name} had nothing to do");
        let failed = process.metric("mailbox_batches_failed_total").await;
        assert_eq!(failed.unwrap(), Some(0.0), "batches of {name} failed");
    }

    // What the service never does, the database refuses.
    let database = system.database(Side::Customers).await.unwrap();
    for change in [
        "reserved_minor_units = reserved_minor_units + 1",
        "reserved_minor_units = credit_limit_minor_units + 1",
        "credit_limit_minor_units = reserved_minor_units - 1",
    ] {
        let statement = format!("UPDATE customers SET {change}");
        let error = database.batch_execute(&statement).await.unwrap_err();
        let constraint = error.as_db_error().and_then(DbError::constraint);
        assert_eq!(
            constraint,
            Some("customers_reserved_within_limit"),
            "{change}"
        );
    }
}
