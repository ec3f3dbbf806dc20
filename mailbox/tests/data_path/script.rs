//! A handler that does what its events' payloads tell it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use mailbox::consumer::{Failure, Handler};
use mailbox::inbox::Claimed;
use tokio_postgres::Transaction;
use uuid::Uuid;

/// Does what payloads say: `refuse`, `panic`, `swallow an error`, `cost -1`, `once x`, `fail n`
/// (transiently, n times), `conflict n` (as two transactions that wait for each other), `unknown`,
/// `abort` (ends the process), `stumble n` (as `fail`, then one panic), `panic n`, `hang n`, `break n` (the connection to Postgres, n times or
/// for ever); anything else is applied.
#[derive(Clone, Default)]
pub(crate) struct Script {
    tries: Arc<Mutex<HashMap<Uuid, u32>>>,
    calls: Arc<AtomicUsize>,
    before_commit: Option<Arc<dyn Fn() -> BoxFuture + Send + Sync>>,
    link: Option<Arc<harness::Link>>,
}

type BoxFuture = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

impl Script {
    /// Awaits `action` each time before the handler returns.
    pub(crate) fn with<F: Future<Output = ()> + Send + 'static>(
        action: impl Fn() -> F + Send + Sync + 'static,
    ) -> Self {
        Self {
            before_commit: Some(Arc::new(move || Box::pin(action()))),
            ..Self::default()
        }
    }

    /// Whose connections to Postgres go by this link.
    pub(crate) fn by(link: &Arc<harness::Link>) -> Self {
        Self {
            link: Some(link.clone()),
            ..Self::default()
        }
    }

    /// How often the handler has been given the event.
    pub(crate) fn tries(&self, id: Uuid) -> u32 {
        self.tries.lock().unwrap().get(&id).copied().unwrap_or(0)
    }

    /// How often the handler was called, for however many events.
    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    async fn apply(&self, tx: &Transaction<'_>, event: &Claimed) -> Result<(), Failure> {
        let payload =
            std::str::from_utf8(&event.payload).map_err(|e| Failure::Definite(e.to_string()))?;
        let try_number = {
            let mut tries = self.tries.lock().unwrap();
            let tries = tries.entry(event.id).or_default();
            *tries += 1;
            *tries
        };
        let mut cost = 0;
        match payload.split_once(' ').unwrap_or((payload, "")) {
            ("refuse", _) => return Err(Failure::Definite("refused\nby the handler".into())),
            ("fail", n) if try_number <= n.parse().unwrap() => {
                return Err(Failure::Transient("not yet".into()));
            }
            ("conflict", n) if try_number <= n.parse().unwrap() => {
                let deadlock =
                    "DO $$ BEGIN RAISE 'as by two that wait' USING ERRCODE = '40P01'; END $$";
                tx.batch_execute(deadlock)
                    .await
                    .map_err(Failure::from_postgres)?;
            }
            ("abort", _) => std::process::abort(),
            ("unknown", _) => return Err(Failure::Unknown("of a later version".into())),
            ("stumble", n) if try_number <= n.parse().unwrap() => {
                return Err(Failure::Transient("not yet".into()));
            }
            ("stumble", n) if try_number == n.parse::<u32>().unwrap() + 1 => panic!("once"),
            ("panic", n) if n.is_empty() || try_number <= n.parse().unwrap() => {
                panic!("at the sight of {}", event.aggregate_id)
            }
            ("lose", _) => {
                let connection = "SELECT pg_terminate_backend(pg_backend_pid())";
                let lost = tx.batch_execute(connection).await;
                return lost.map_err(Failure::from_postgres);
            }
            ("break", n) if n.is_empty() || try_number <= n.parse().unwrap() => {
                let link = self.link.as_ref().expect("a link to break");
                link.close_connections();
                let asked = tx.batch_execute("SELECT pg_sleep(60)").await;
                return asked.map_err(Failure::from_postgres);
            }
            ("hang", n) if try_number <= n.parse().unwrap() => std::future::pending().await,
            ("swallow", _) => {
                let _ = tx.batch_execute("SELECT 1 / 0").await;
                return Ok(());
            }
            ("cost", n) => cost = n.parse::<i32>().unwrap(),
            ("once", x) => {
                tx.execute("INSERT INTO once VALUES ($1)", &[&x])
                    .await
                    .map_err(Failure::from_postgres)?;
            }
            _ => {}
        }
        let insert = "INSERT INTO applied (event_id, payload, cost) VALUES ($1, $2, $3)";
        tx.execute(insert, &[&event.id, &payload, &cost])
            .await
            .map_err(Failure::from_postgres)?;
        Ok(())
    }
}

impl Handler for Script {
    async fn handle(&self, tx: &Transaction<'_>, events: &[Claimed]) -> Result<(), Failure> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        for event in events {
            self.apply(tx, event).await?;
        }
        if let Some(action) = &self.before_commit {
            action().await;
        }
        Ok(())
    }
}
