//! The named tasks of a process and its end: SIGTERM, SIGINT or the first failing task cancels the
//! token; then all get until the deadline; a second signal ends the process at once.
//!
//! Danger: in a container the process is PID 1, to which the kernel delivers no signal that it
//! does not handle. So signals are handled from [`Tasks::new`] on, and before [`Tasks::run`] they
//! end the process, which may still be waiting for a peer.

use std::{
    collections::HashMap,
    future::Future,
    io, process,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use tokio::{
    runtime::Builder,
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    task::{Id, JoinError, JoinSet},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::config;

/// The exit status of a process that a second signal ended.
const EXIT_IMPATIENT: i32 = 1;
/// Shells and orchestrators read a death by signal `n` as the exit status `128 + n`.
const EXIT_BY_SIGNAL: i32 = 128;

/// Runs `main` on such a runtime, and ends when it does.
///
/// A name that is being looked up holds a thread that cannot be told to stop. A runtime that is dropped waits for
/// it, as long as the resolver tries: longer than the deadline, and than the grace period of a container.
///
/// # Errors
/// When there is no runtime to be had.
pub fn block_on<T>(mut runtime: Builder, main: impl Future<Output = T>) -> io::Result<T> {
    let runtime = runtime.enable_all().build()?;
    let outcome = runtime.block_on(main);
    runtime.shutdown_background();
    Ok(outcome)
}

/// The tasks of a process. Each should end soon after the token is cancelled, having finished
/// what it had in hand.
#[derive(Debug)]
pub struct Tasks {
    token: CancellationToken,
    deadline: Duration,
    running: JoinSet<anyhow::Result<()>>,
    names: HashMap<Id, &'static str>,
    signals: mpsc::UnboundedReceiver<&'static str>,
    started: Arc<AtomicBool>,
}

impl Tasks {
    /// Handles signals from here on. Call it within a tokio runtime.
    pub fn new(config: &config::Shutdown) -> Self {
        let started = Arc::new(AtomicBool::new(false));
        Self {
            token: CancellationToken::new(),
            deadline: Duration::from_secs(config.deadline_seconds),
            running: JoinSet::new(),
            names: HashMap::new(),
            signals: handle_signals(&started),
            started,
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

    /// Starts what runs until the token is cancelled, and mends its own failures.
    pub fn background<F>(&mut self, name: &'static str, task: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let task = task(self.token());
        self.spawn(name, async move {
            task.await;
            Ok(())
        });
    }

    /// Waits for the end of the process.
    ///
    /// `Ok` when a signal came and every task finished in time, or every task finished by itself.
    /// Otherwise the first failure with its task's name, or the names of the tasks that did not
    /// finish before the deadline.
    pub async fn run(mut self) -> anyhow::Result<()> {
        self.started.store(true, Ordering::Release);
        let failure = self.until_the_end().await;
        self.token.cancel();
        let deadline = self.deadline;
        let drained = timeout(deadline, self.drain()).await;
        match (failure, drained) {
            (Some(failure), Ok(_)) => Err(failure),
            (None, Ok(late)) => late.map_or(Ok(()), Err),
            (failure, Err(_)) => {
                let (seconds, names) = (deadline.as_secs(), self.unfinished());
                let overdue = format!("not finished within {seconds} s, cut off: {names}");
                match failure {
                    Some(failure) => Err(failure.context(overdue)),
                    None => Err(anyhow::anyhow!(overdue)),
                }
            }
        }
    }

    /// Ends with a signal, or with a failure, or when no task is left.
    async fn until_the_end(&mut self) -> Option<anyhow::Error> {
        loop {
            tokio::select! {
                Some(signal) = self.signals.recv() => {
                    tracing::info!(signal, "ending");
                    return None;
                }
                joined = self.running.join_next_with_id() => match joined {
                    None => return None,
                    Some(joined) => if let Err(error) = self.ended(joined) {
                        return Some(error);
                    }
                },
            }
        }
    }

    /// Waits for all tasks; the first failure, if any. A second signal ends the process.
    async fn drain(&mut self) -> Option<anyhow::Error> {
        let mut first = None;
        loop {
            tokio::select! {
                Some(signal) = self.signals.recv() => {
                    let unfinished = self.unfinished();
                    tracing::error!(signal, unfinished, "a second signal: ending at once");
                    process::exit(EXIT_IMPATIENT);
                }
                joined = self.running.join_next_with_id() => match joined {
                    None => return first,
                    Some(joined) => if let Err(error) = self.ended(joined) {
                        first.get_or_insert(error);
                    }
                },
            }
        }
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

/// Passes signals on once `started`; before, they end the process as if nothing handled them.
fn handle_signals(started: &Arc<AtomicBool>) -> mpsc::UnboundedReceiver<&'static str> {
    // Unbounded, but what fills it is a person or an orchestrator, and the second ends it all.
    let (sender, receiver) = mpsc::unbounded_channel();
    for (kind, name) in [
        (SignalKind::terminate(), "SIGTERM"),
        (SignalKind::interrupt(), "SIGINT"),
    ] {
        let (sender, started) = (sender.clone(), Arc::clone(started));
        let mut signals = match signal(kind) {
            Ok(signals) => signals,
            Err(error) => {
                tracing::error!(signal = name, %error, "cannot be handled");
                continue;
            }
        };
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                if !started.load(Ordering::Acquire) || sender.send(name).is_err() {
                    tracing::info!(signal = name, "ending");
                    process::exit(EXIT_BY_SIGNAL + kind.as_raw_value());
                }
            }
        });
    }
    receiver
}
