//! The load: one-row transactions, each due by the clock.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::sync::mpsc;
use tokio_postgres::{Client, NoTls, Statement};

/// Enough that a transaction hardly ever waits for another's commit before it is sent.
const CONNECTIONS: usize = 16;

/// Time for the connections before the first transaction is due.
const LEAD: Duration = Duration::from_millis(200);

/// Autocommitted, so that it is one message to the server and one answer.
const INSERT: &str = "INSERT INTO outbox SELECT e.* FROM event($1, $2) e";

/// One transaction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    /// From 1.
    pub(super) number: u64,
    pub(super) intended: Instant,
    pub(super) sent: Instant,
    pub(super) committed: Instant,
}

/// Sends `count` transactions at `rate` a second, from a thread that does nothing else.
pub(super) async fn run(url: String, rate: f64, count: u64, bytes: u32) -> Result<Vec<Sent>> {
    tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let clients = runtime.block_on(connect(&url))?;
        let (report, mut reports) = mpsc::unbounded_channel();
        let begin = Instant::now() + LEAD;
        for number in 1..=count {
            let intended = begin + Duration::from_secs_f64(number as f64 / rate);
            wait_until(intended);
            let (client, insert) = &clients[usize::try_from(number)? % CONNECTIONS];
            let (client, insert, report) = (client.clone(), insert.clone(), report.clone());
            let sent = Instant::now();
            runtime.spawn(async move {
                let (id, bytes) = (number.cast_signed(), bytes.cast_signed());
                let done = client.execute(&insert, &[&id, &bytes]).await;
                let committed = Instant::now();
                let entry = Sent {
                    number,
                    intended,
                    sent,
                    committed,
                };
                // The receiver outlives the last of them, unless it has failed already.
                let _ = report.send(done.map(|_| entry));
            });
        }
        drop(report);
        let mut all = Vec::new();
        while let Some(entry) = reports.blocking_recv() {
            all.push(entry.context("a transaction of the load failed")?);
        }
        Ok(all)
    })
    .await?
}

async fn connect(url: &str) -> Result<Vec<(std::sync::Arc<Client>, Statement)>> {
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
        tokio::spawn(connection);
        let insert = client.prepare(INSERT).await?;
        clients.push((std::sync::Arc::new(client), insert));
    }
    Ok(clients)
}

#[expect(
    clippy::disallowed_methods,
    reason = "a load by the clock awaits the clock"
)]
fn wait_until(due: Instant) {
    let left = due.saturating_duration_since(Instant::now());
    if !left.is_zero() {
        thread::sleep(left);
    }
}
