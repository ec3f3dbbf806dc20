//! The named tasks of a process and its end: SIGTERM, SIGINT or the first failing task cancels the
//! token; then all get until the deadline; a second signal ends the process at once.

use std::{collections::HashMap, future::Future, time::Duration};

use anyhow::Context as _;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::{Id, JoinError, JoinSet},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::config;

/// The tasks of a process. Each should end soon after the token is cancelled, having finished
/// what it had in hand.
#[derive(Debug)]
pub struct Tasks {
    token: CancellationToken,
    deadline: Duration,
    running: JoinSet<anyhow::Result<()>>,
    names: HashMap<Id, &'static str>,
}

impl Tasks {
    pub fn new(config: &config::Shutdown) -> Self {
        Self {
            token: CancellationToken::new(),
            deadline: Duration::from_secs(config.deadline_seconds),
            running: JoinSet::new(),
            names: HashMap::new(),
        }
    }

    /// Cancelled when the process is to end.
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// Starts a task. Its error, or its panic, ends the process; its `Ok` does not.
    pub fn spawn(
        &mut self,
        name: &'static str,
        task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        let handle = self.running.spawn(task);
        self.names.insert(handle.id(), name);
    }

    /// Waits for the end of the process.
    ///
    /// `Ok` when a signal came and every task finished in time, or every task finished by itself.
    /// Otherwise the first failure with its task's name, or the names of the tasks that did not
    /// finish before the deadline.
    pub async fn run(mut self) -> anyhow::Result<()> {
        let mut signals = Signals::new()?;
        let failure = tokio::select! {
            name = signals.next() => {
                tracing::info!(signal = name, "ending");
                None
            }
            failure = self.first_failure() => failure,
        };
        self.token.cancel();
        let drained = tokio::select! {
            name = signals.next() => {
                anyhow::bail!("a second signal ({name}): ended with {} unfinished", self.unfinished());
            }
            drained = timeout(self.deadline, self.drain()) => drained,
        };
        match (failure, drained) {
            (Some(failure), _) => Err(failure),
            (None, Ok(late)) => late.map_or(Ok(()), Err),
            (None, Err(_)) => anyhow::bail!(
                "not finished within {} s of the signal: {}",
                self.deadline.as_secs(),
                self.unfinished()
            ),
        }
    }

    /// Ends with the first failure, or with `None` when no task is left.
    async fn first_failure(&mut self) -> Option<anyhow::Error> {
        while let Some(joined) = self.running.join_next_with_id().await {
            if let Err(error) = self.ended(joined) {
                return Some(error);
            }
        }
        None
    }

    /// Waits for all; the first failure, if any.
    async fn drain(&mut self) -> Option<anyhow::Error> {
        let mut first = None;
        while let Some(joined) = self.running.join_next_with_id().await {
            if let Err(error) = self.ended(joined) {
                first.get_or_insert(error);
            }
        }
        first
    }

    fn ended(&mut self, joined: Result<(Id, anyhow::Result<()>), JoinError>) -> anyhow::Result<()> {
        let (id, result) = match joined {
            Ok((id, result)) => (id, result),
            Err(error) => (error.id(), Err(anyhow::Error::new(error))),
        };
        let name = self.names.remove(&id).unwrap_or("?");
        if let Err(error) = &result {
            tracing::error!(task = name, error = format!("{error:#}"), "task failed");
        } else {
            tracing::debug!(task = name, "task finished");
        }
        result.with_context(|| format!("task {name}"))
    }

    fn unfinished(&self) -> String {
        let mut names: Vec<_> = self.names.values().copied().collect();
        names.sort_unstable();
        names.join(", ")
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
