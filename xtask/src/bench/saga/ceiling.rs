//! What Postgres does alone with the SQL of the same transactions, a message a transaction: `pgbench`
//! on one database that has the tables of both services, and nobody who reads its WAL.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use harness::{Guard, Postgres};

use super::{CUSTOMERS, SETTINGS};
use crate::shell;

const DATABASE: &str = "both";
const SCRIPT: &str = "xtask/src/bench/saga/ceiling.pgbench";
/// Applied in this order, each folder's files by their version.
const MIGRATIONS: [&str; 3] = [
    "mailbox/migrations",
    "order-service/migrations",
    "customer-service/migrations",
];
/// As many as hide each other's commits; more of them are slower on two processors.
const CLIENTS: u32 = 16;
/// Bytes of an event, about those of `OrderCreated`.
const PAYLOAD_BYTES: usize = 100;

/// Sagas a second.
pub(super) async fn measure(seconds: u64) -> Result<f64> {
    let postgres = Postgres::start_with(&Guard::start()?, &SETTINGS).await?;
    postgres.create_database(DATABASE).await?;
    let database = postgres.connect(DATABASE).await?;
    for folder in MIGRATIONS {
        let entries = fs::read_dir(shell::root().join(folder))?;
        let mut files: Vec<_> = entries
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<_>>()?;
        files.sort();
        for file in files {
            let sql = fs::read_to_string(&file)?;
            let done = database.batch_execute(&sql).await;
            done.with_context(|| format!("{}", file.display()))?;
        }
    }
    let fill = format!(
        "INSERT INTO customers SELECT lpad(n::text, 32, '0')::uuid, 'Ada', 'EUR', 1000000000000, 0, now() \
         FROM generate_series(1, {CUSTOMERS}) n"
    );
    database.batch_execute(&fill).await?;
    // The beginning of an UUIDv7 of today: the rows go to today's partitions, as the services' do.
    let sql = "SELECT left(mailbox_uuidv7_floor(now())::text, 8) \
               || substr(mailbox_uuidv7_floor(now())::text, 10, 4) || '7'";
    let prefix: String = database.query_one(sql, &[]).await?.get(0);

    let program = postgres.bin().join("pgbench");
    let mut command = Command::new(&program);
    command
        .args(["--no-vacuum", "--protocol=prepared", "--jobs=2"])
        .arg(format!("--client={CLIENTS}"))
        .arg(format!("--time={seconds}"))
        .arg("--file")
        .arg(shell::root().join(SCRIPT))
        .arg(format!("--define=prefix={prefix}"))
        .arg(format!("--define=payload={}", "ab".repeat(PAYLOAD_BYTES)))
        .arg(format!("--define=customers={CUSTOMERS}"))
        .arg("--define=i=0")
        .arg(postgres.url(DATABASE));
    let output = tokio::task::spawn_blocking(move || command.output()).await?;
    let output = output.with_context(|| {
        let program = program.display();
        format!(
            "cannot run {program}: the ceiling needs a Postgres that was installed with pgbench"
        )
    })?;
    let (says, complains) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    ensure!(
        output.status.success(),
        "pgbench ended with {}: {complains}",
        output.status
    );
    rate(&says).with_context(|| format!("pgbench says no rate: {says}"))
}

/// Of `tps = 1700.12 (without initial connection time)`.
fn rate(says: &str) -> Option<f64> {
    let (_, rest) = says.split_once("tps = ")?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_read() {
        let says = "latency average = 9.1 ms\ntps = 1700.125 (without initial connection time)\n";
        assert_eq!(rate(says), Some(1700.125));
        assert_eq!(rate("pgbench: error"), None);
    }
}
