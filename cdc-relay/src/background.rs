//! What goes on beside a session, and ends with it: the verification of the stream, the watch over the
//! slot, the retention of the table. None of it appends to the stream, which the session alone may do.

use std::{sync::atomic::Ordering, time::Duration};

use async_nats::{Client as Nats, connection::State};
use metrics::gauge;
use tokio::{sync::oneshot, task::JoinSet, time::sleep};

use crate::{
    config::{Config, Policy},
    heal::{Cause, verify, verify::Verdict},
    retention::Retention,
    slot::watch,
};

/// How often the connection to NATS is looked at.
const CONNECTION_CHECK: Duration = Duration::from_millis(500);

/// The tasks of one session; they end when it is dropped.
#[derive(Debug)]
pub struct Background {
    tasks: JoinSet<()>,
    verdict: oneshot::Receiver<Verdict>,
    /// What waits until it is known that the stream has lost nothing that the table still has.
    retention: Option<Retention>,
}

impl Background {
    /// For a session over this connection to NATS. `verifies` unless this process has done so; `retires`
    /// what is old, if that is configured.
    pub fn start(
        config: &Config,
        (nats, connection): (&Nats, u64),
        verifies: bool,
        retires: bool,
    ) -> Self {
        let mut tasks = JoinSet::new();
        let (told, verdict) = oneshot::channel();
        let source = config.source.clone();
        tasks.spawn(async move { watch::watch(&source).await });
        let retention = config.retention.seconds.filter(|_| retires);
        let mut retention = retention.map(|seconds| Retention {
            config: config.clone(),
            seconds,
            nats: nats.clone(),
            connection,
        });
        if verifies && config.healing.verify {
            let (config, nats) = (config.clone(), nats.clone());
            tasks.spawn(async move {
                // Nobody listens any more: the session has ended.
                let _ = told.send(verify::verify(&config, &nats).await);
            });
        } else if let Some(retention) = retention.take() {
            tasks.spawn(retention.run());
        }
        Self {
            tasks,
            verdict,
            retention,
        }
    }

    /// What the verification found, to be healed. Never returns where there is nothing to be done.
    /// Cancel-safe.
    pub async fn wrong(&mut self, config: &Config, verified: &mut bool) -> Cause {
        if let Ok(verdict) = (&mut self.verdict).await {
            let is_missing = matches!(verdict, Verdict::Missing { .. });
            // Missing rows are looked for again, until somebody has had them published.
            *verified = !is_missing;
            if let Some(cause) = judge(&verdict, config) {
                return cause;
            }
            if let Some(retention) = self.retention.take_if(|_| !is_missing) {
                self.tasks.spawn(retention.run());
            }
        }
        std::future::pending().await
    }
}

/// Which of its connections to NATS the client has: they are counted.
pub fn connection(nats: &Nats) -> u64 {
    nats.statistics().connects.load(Ordering::Relaxed)
}

/// Returns when the connection to NATS is another one than `this`: the server may have been restarted,
/// and have lost what it had acknowledged. An idle session would not notice.
pub async fn reconnected(nats: &Nats, this: u64) {
    while connection(nats) == this || nats.connection_state() != State::Connected {
        sleep(CONNECTION_CHECK).await;
    }
}

/// Whether the client still has `this` connection to NATS: over it the stream was seen to hold what it should.
pub fn is_connected(nats: &Nats, this: u64) -> bool {
    connection(nats) == this && nats.connection_state() == State::Connected
}

fn judge(verdict: &Verdict, config: &Config) -> Option<Cause> {
    let stream = &config.stream.name;
    let missing = gauge!("cdc_relay_verification_missing");
    let cause = verdict.cause(stream);
    match verdict {
        Verdict::Complete => {
            missing.set(0.0);
            tracing::info!(stream, "verified: the stream holds all that the table does");
        }
        Verdict::Missing { count, .. } => missing.set(*count as f64),
        Verdict::Unclear(why) => {
            missing.set(f64::NAN);
            tracing::warn!(
                stream,
                why,
                "whether the stream has lost events cannot be told"
            );
        }
    }
    if let (Some(cause), Policy::Refuse) = (&cause, config.healing.policy) {
        tracing::error!(%cause, "CDC_HEAL=refuse forbids the relay to mend that by itself: `cdc-relay reconcile --publish` does; no row is removed from the table until then");
        return None;
    }
    cause
}
