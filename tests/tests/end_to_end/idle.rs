//! An idle service pins no WAL (I3), however much the other databases of its cluster write.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use harness::{Side, System, eventually};
use tokio_postgres::Client;

use crate::client::{self, Transport, euros};

const IDLE_FOR: Duration = Duration::from_secs(60);
/// How far the slot may be behind, in time: some times what the relay and the walsender need by their
/// clocks, on a busy machine.
const BEHIND_MAX: Duration = Duration::from_secs(20);
/// restart_lsn moves when Postgres has noted its running transactions, every 15 s if it has written.
const RESTART_DEADLINE: Duration = Duration::from_secs(90);

#[tokio::test(flavor = "multi_thread")]
async fn the_slot_of_an_idle_database_follows_while_another_database_writes() {
    let system = System::start().await.unwrap();
    let client = client::Client::new(&system, Transport::Grpc).await.unwrap();
    let database = system.database(Side::Orders).await.unwrap();
    let began = Instant::now();
    let first = current_lsn(&database).await.unwrap();
    let mut longest = Duration::ZERO;
    let mut customers = 0;
    while began.elapsed() < IDLE_FOR {
        // Each is WAL of the customer database alone: a row, and its event.
        client.create_customer("Ada", euros(1)).await.unwrap();
        customers += 1;
        let asked = Instant::now();
        let written = current_lsn(&database).await.unwrap();
        passes(&database, "confirmed_flush_lsn", &written, BEHIND_MAX).await;
        longest = longest.max(asked.elapsed());
    }
    println!("{customers} customers; the slot was behind for {longest:?} at most");
    // What Postgres keeps WAL from.
    passes(&database, "restart_lsn", &first, RESTART_DEADLINE).await;

    let orders = "SELECT (SELECT count(*) FROM orders) + (SELECT count(*) FROM outbox)";
    let orders = database.query_one(orders, &[]).await.unwrap();
    assert_eq!(
        orders.get::<_, i64>(0),
        0,
        "the order database was not idle"
    );
}

/// How far the WAL of the cluster is written.
async fn current_lsn(database: &Client) -> Result<String> {
    let row = database
        .query_one("SELECT pg_current_wal_lsn()::text", &[])
        .await?;
    Ok(row.get(0))
}

/// Awaits that a position of the order database's slot is at `lsn` or past it.
async fn passes(database: &Client, column: &str, lsn: &str, deadline: Duration) {
    let statement = format!(
        "SELECT {column} >= $1::text::pg_lsn, {column}::text FROM pg_replication_slots \
         WHERE slot_name = $2"
    );
    let what = format!("{column} to pass {lsn}");
    let passed = eventually(&what, deadline, async || {
        let slot = database
            .query_one(&statement, &[&lsn, &Side::Orders.slot()])
            .await?;
        let (passed, stands): (bool, String) = (slot.get(0), slot.get(1));
        ensure!(passed, "it stands at {stands}");
        Ok(Some(()))
    });
    passed.await.expect("the slot follows");
}
