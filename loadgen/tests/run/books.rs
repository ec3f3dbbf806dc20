//! Books that do not balance: whoever tampers with a database, the run says with which order and customer.

use std::time::Duration;

use harness::{Side, System, eventually};

use crate::start;

const OPTIONS: [&str; 14] = [
    "--rate",
    "60",
    "--warm-up",
    "0s",
    "--duration",
    "5s",
    "--customers",
    "5",
    "--zipf",
    "0",
    "--mix",
    "create=100",
    "--settle-timeout",
    "3s",
];

#[tokio::test(flavor = "multi_thread")]
async fn books_that_were_tampered_with_fail_the_run_by_name() {
    let system = System::start().await.expect("the system starts");
    let running = start(&system, "tampered", &OPTIONS);
    let orders = system.database(Side::Orders).await.expect("a database");
    let customers = system.database(Side::Customers).await.expect("a database");
    let three =
        "SELECT order_id::text FROM orders WHERE state = 'approved' ORDER BY order_id LIMIT 3";
    let ids = eventually("approved orders", Duration::from_secs(30), async || {
        let rows = orders.query(three, &[]).await?;
        let ids: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        Ok((ids.len() == 3).then_some(ids))
    });
    let ids = ids.await.expect("the load has begun");
    let [lost, cancelled, changed] = &ids[..] else {
        panic!("three orders")
    };
    let execute = async |statement: String| {
        let done = orders.batch_execute(&statement).await;
        done.unwrap_or_else(|error| panic!("{statement}: {error}"));
    };
    execute(format!("DELETE FROM orders WHERE order_id = '{lost}'")).await;
    execute(format!(
        "UPDATE orders SET state = 'cancelled', cancellation_reason = 'timed_out' WHERE order_id = '{cancelled}'"
    ))
    .await;
    execute(format!(
        "UPDATE orders SET total_minor_units = 101 WHERE order_id = '{changed}'"
    ))
    .await;
    let row = customers
        .query_one(
            "UPDATE customers SET reserved_minor_units = reserved_minor_units + 7
             WHERE customer_id = (SELECT max(customer_id::text)::uuid FROM customers)
             RETURNING customer_id::text",
            &[],
        )
        .await
        .expect("a customer is changed");
    let customer: String = row.get(0);

    let ran = running.ended().await;
    assert_eq!(ran.status, Some(4), "{}", ran.said);
    assert_eq!(ran.report["verdict"], "books_unbalanced");
    for (whose, what) in [
        (
            format!("order {lost} "),
            "was acknowledged, and is not there",
        ),
        (
            format!("order {cancelled} "),
            "is cancelled, and 100 are still reserved",
        ),
        (
            format!("order {changed} "),
            "is approved for 101, and 100 are reserved",
        ),
        (
            format!("customer {customer} "),
            "reserved, and approved orders of",
        ),
    ] {
        let mut lines = ran.said.lines();
        let named = lines.any(|line| line.contains(&whose) && line.contains(what));
        assert!(named, "{whose}{what}: {}", ran.said);
        assert!(ran.page.contains(&whose) && ran.page.contains(what));
    }
}
