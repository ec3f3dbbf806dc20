//! Credit is never reserved past its limit (I7).

use std::time::Duration;

use futures_util::future::try_join_all;
use harness::{Side, System, books};
use tokio_postgres::error::DbError;

use crate::client::{Client, Transport, euros};

/// Each a chance for two replicas to find the last of the credit at once.
const CUSTOMERS: usize = 4;
/// Orders of each customer, all at once.
const ORDERS: usize = 64;
/// How many of them fit the limit, exactly.
const FITTING: usize = 10;
const TOTAL: i64 = 70;
const LIMIT: i64 = 700;

/// The CHECK stands behind the row lock. A batch that it refuses has failed: so the lock did not hold.
#[tokio::test(flavor = "multi_thread")]
async fn of_64_concurrent_orders_exactly_the_10_that_fit_are_approved() {
    let mut system = System::builder()
        // Small transactions, so that both replicas are at work on a customer all the time.
        .env("customer-service", "CONSUMER_BATCH_MAX", "2")
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
    let orders = (0..ORDERS)
        .flat_map(|_| &customers)
        .map(|customer_id| client.create_order(customer_id, euros(TOTAL)));
    try_join_all(orders).await.unwrap();

    let books = books::settled(&system, Duration::from_secs(120)).await;
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
    for name in [Side::Customers.service(), &replica] {
        let process = system.process(name);
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
