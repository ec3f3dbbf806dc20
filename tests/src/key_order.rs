//! In which order a transaction locks the rows of a table. Two that share rows, and lock them in different orders,
//! wait for each other until Postgres ends one of them.

use std::time::Duration;

use anyhow::{Result, ensure};
use futures_util::future::try_join;
use tokio_postgres::{Client, Transaction};
use uuid::Uuid;

use crate::{Postgres, eventually};

/// A table, and its key: a UUID.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    pub database: &'a str,
    pub table: &'a str,
    pub key: &'a str,
}

/// By the first one rows are found in the order of their keys, by the others as they lie in the table.
const PLANS: [&str; 3] = [
    "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off",
    "SET LOCAL enable_seqscan = off; SET LOCAL enable_indexscan = off",
    "SET LOCAL enable_indexscan = off; SET LOCAL enable_bitmapscan = off",
];

const SOON: Duration = Duration::from_secs(10);

impl Rows<'_> {
    /// Lets `batch`, which locks all the rows that there are, come upon one that somebody else holds, by each of the
    /// plans that Postgres may choose. The rows are written anew for that, the greatest key first, and what `batch`
    /// does is rolled back each time.
    ///
    /// # Errors
    /// When it waits for that one, it does not hold those with smaller keys, or holds others.
    pub async fn are_locked_in_key_order(
        self,
        postgres: &Postgres,
        batch: impl AsyncFn(&Transaction<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut other = postgres.connect(self.database).await?;
        let mut worker = postgres.connect(self.database).await?;
        let beside = postgres.connect(self.database).await?;
        let keys = self.reverse(&beside).await?;
        let (middle, greater) = (keys[keys.len() / 2], &keys[keys.len() / 2 + 1..]);
        let pid = worker.query_one("SELECT pg_backend_pid()", &[]).await?;
        let pid: i32 = pid.get(0);
        let Self { table, key, .. } = self;
        let hold = format!("SELECT FROM {table} WHERE {key} = $1 FOR UPDATE");
        let free = format!("SELECT {key} FROM {table} ORDER BY 1 FOR UPDATE SKIP LOCKED");
        for plan in PLANS {
            let held = other.transaction().await?;
            held.execute(&hold, &[&middle]).await?;
            let tx = worker.transaction().await?;
            tx.batch_execute(plan).await?;
            let look = async {
                waits(&beside, pid).await?;
                let free = uuids(&beside, &free).await?;
                held.rollback().await?;
                Ok(free)
            };
            let (free, ()) = try_join(look, batch(&tx)).await?;
            ensure!(free == greater, "{plan}: of {keys:?} it left {free:?}");
            tx.rollback().await?;
        }
        Ok(())
    }

    /// Writes the rows anew, the greatest key first; returns the keys in their order.
    async fn reverse(self, client: &Client) -> Result<Vec<Uuid>> {
        let Self { table, key, .. } = self;
        let reverse = format!(
            "CREATE TEMPORARY TABLE kept AS SELECT * FROM {table};
            DELETE FROM {table};
            INSERT INTO {table} SELECT * FROM kept ORDER BY {key} DESC;"
        );
        client.batch_execute(&reverse).await?;
        let keys = uuids(client, &format!("SELECT {key} FROM {table} ORDER BY 1")).await?;
        let as_they_lie = format!("SELECT {key} FROM {table} ORDER BY ctid DESC");
        ensure!(uuids(client, &as_they_lie).await? == keys && keys.len() > 2);
        Ok(keys)
    }
}

async fn uuids(client: &Client, query: &str) -> Result<Vec<Uuid>> {
    let rows = client.query(query, &[]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Until that session waits for a lock.
async fn waits(client: &Client, pid: i32) -> Result<()> {
    let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND pid = $1";
    eventually("the batch to wait for a row", SOON, async || {
        let waiting: i64 = client.query_one(waiting, &[&pid]).await?.get(0);
        Ok((waiting > 0).then_some(()))
    })
    .await
}
