//! A private nats-server with JetStream for a test, on ports and in a directory of its own.

mod cluster;

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
pub use cluster::NatsCluster;
use uuid::Uuid;

use crate::child::{Running, ready};
use crate::guard::Guard;
use crate::http;
use crate::log::Log;
use crate::port::Port;
use crate::tools;

/// Recovering a store after a kill is part of a start.
const START_DEADLINE: Duration = Duration::from_secs(30);
const STOP_DEADLINE: Duration = Duration::from_secs(30);
/// How many times a port that was taken in between is replaced.
const PORT_TRIES: usize = 5;

/// A running nats-server; it ends when this value is dropped, or when the test process dies.
#[derive(Debug)]
pub struct Nats {
    running: Mutex<Option<Running>>,
    program: PathBuf,
    directory: PathBuf,
    log: Log,
    extra: String,
    port: Port,
    monitoring: Port,
    guard: Guard,
}

impl Nats {
    /// Starts a server of its own.
    ///
    /// # Errors
    /// When no nats-server is found or can be fetched, or it does not start: with the end of its log.
    pub async fn start() -> Result<Self> {
        Self::start_with(&Guard::start()?, "").await
    }

    /// Starts a server in the guard's directory, with lines of nats-server's configuration besides
    /// the harness's own. A block such as `jetstream: { sync_interval: always }` takes the place of the
    /// harness's, which is empty: where the store is stands outside of it.
    ///
    /// # Errors
    /// As [`Nats::start`].
    pub async fn start_with(guard: &Guard, extra: &str) -> Result<Self> {
        let mut nats = Self::prepare(guard, extra).await?;
        for _ in 1..PORT_TRIES {
            match nats.start_again().await {
                Err(_) if nats.port_was_taken() => {
                    nats.port = Port::free()?;
                    nats.monitoring = Port::free()?;
                }
                started => return started.map(|()| nats),
            }
        }
        nats.start_again().await?;
        Ok(nats)
    }

    /// All that a server needs but its start.
    async fn prepare(guard: &Guard, extra: &str) -> Result<Self> {
        let program = tokio::task::spawn_blocking(tools::nats_server).await??;
        let directory = guard.make_directory(&format!("nats-{}", Uuid::now_v7().simple()))?;
        Ok(Self {
            running: Mutex::new(None),
            program,
            log: Log::new("nats-server", directory.join("log")),
            directory,
            extra: extra.to_owned(),
            port: Port::free()?,
            monitoring: Port::free()?,
            guard: guard.clone(),
        })
    }

    /// The URL for clients. It stays the same over [`Nats::start_again`].
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port.number())
    }

    /// The port for clients on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// The port of the HTTP monitoring pages (`/varz`, `/jsz`, …).
    #[must_use]
    pub fn monitoring_port(&self) -> u16 {
        self.monitoring.number()
    }

    /// The server's log.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The id of the server's first process, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.slot().as_ref().map(Running::pid)
    }

    /// A new client. It reconnects by itself when the server comes back.
    ///
    /// # Errors
    /// When the server cannot be reached.
    pub async fn client(&self) -> Result<async_nats::Client> {
        async_nats::connect(self.url())
            .await
            .context("cannot connect to the test's nats-server")
    }

    /// Stops it as an operator would.
    ///
    /// # Errors
    /// When it does not run, or does not end in time.
    pub async fn stop(&self) -> Result<()> {
        self.end("TERM").await
    }

    /// Kills it (SIGKILL).
    ///
    /// # Errors
    /// When it does not run.
    pub async fn kill(&self) -> Result<()> {
        self.end("KILL").await
    }

    /// Stops it in its tracks (SIGSTOP): it keeps its connections and answers nothing.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pause(&self) -> Result<()> {
        self.signal("STOP")
    }

    /// Lets it go on after [`Nats::pause`].
    ///
    /// # Errors
    /// When it does not run.
    pub fn resume(&self) -> Result<()> {
        self.signal("CONT")
    }

    fn signal(&self, name: &str) -> Result<()> {
        let slot = self.slot();
        let running = slot.as_ref().context("nats-server does not run")?;
        running.send(name)
    }

    /// Starts it again after [`Nats::stop`] or [`Nats::kill`]: same ports, same store. Returns when
    /// JetStream is ready.
    ///
    /// # Errors
    /// When it runs already or does not start: with the end of its log.
    pub async fn start_again(&self) -> Result<()> {
        self.launch()?;
        let ready = self.wait_ready(START_DEADLINE).await;
        if ready.is_err() {
            self.slot().take();
        }
        ready
    }

    /// Starts it again, and does not wait: one of a cluster is not ready before others are.
    ///
    /// # Errors
    /// When it runs already or cannot be started.
    pub fn launch(&self) -> Result<()> {
        let mut slot = self.slot();
        ensure!(slot.is_none(), "this nats-server runs already");
        self.log.turn()?;
        let configuration = self.directory.join("nats.conf");
        fs::write(&configuration, self.configuration())?;
        let mut command = Command::new(&self.program);
        command
            .arg("--config")
            .arg(&configuration)
            .current_dir(&self.directory);
        let running = Running::start("nats-server", command, &self.log, "KILL", &self.guard)?;
        *slot = Some(running);
        Ok(())
    }

    /// Waits until it says that it is healthy.
    ///
    /// # Errors
    /// When it ends or takes too long: with the end of its log.
    pub async fn wait_ready(&self, deadline: Duration) -> Result<()> {
        let alive = || {
            let mut slot = self.slot();
            let running = slot.as_mut().context("the server does not run")?;
            running.ensure_alive(&self.log)
        };
        ready("nats-server", deadline, &self.log, alive, async || {
            let (status, body) = http::get(self.monitoring_port(), "/healthz").await?;
            ensure!(status == 200, "/healthz says {status}: {body}");
            Ok(())
        })
        .await
    }

    /// Copies its store, while it is stopped, under a name.
    ///
    /// # Errors
    /// When it runs, or the store cannot be copied.
    pub fn back_up(&self, name: &str) -> Result<()> {
        ensure!(self.slot().is_none(), "this nats-server runs");
        crate::backup::copy(&self.directory.join("store"), &self.directory.join(name))
    }

    /// Puts the store of [`Nats::back_up`] in the place of its own.
    ///
    /// # Errors
    /// As [`Nats::back_up`].
    pub fn restore(&self, name: &str) -> Result<()> {
        ensure!(self.slot().is_none(), "this nats-server runs");
        crate::backup::copy(&self.directory.join(name), &self.directory.join("store"))
    }

    fn configuration(&self) -> String {
        format!(
            "listen: \"127.0.0.1:{}\"\nhttp: \"127.0.0.1:{}\"\nstore_dir: {:?}\njetstream {{}}\n{}\n",
            self.port.number(),
            self.monitoring_port(),
            self.directory.join("store"),
            self.extra
        )
    }

    fn port_was_taken(&self) -> bool {
        self.log.tail().contains("address already in use")
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<Running>> {
        self.running
            .lock()
            .expect("a user of this nats-server panicked")
    }

    async fn end(&self, signal: &str) -> Result<()> {
        let running = self.slot().take().context("the server does not run")?;
        let ended = running.end(signal, STOP_DEADLINE).await;
        ended.map(drop).with_context(|| self.log.tail())
    }
}
