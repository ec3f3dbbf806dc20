//! One of this tree's own binaries, as a process that can be killed and started again.

use std::collections::BTreeMap;
use std::env;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::child::{Running, ready};
use crate::guard::Guard;
use crate::http;
use crate::log::Log;
use crate::metrics;
use crate::port::Port;

/// Migrations and the catching up of a relay are part of getting ready.
const READY_DEADLINE: Duration = Duration::from_secs(60);
/// More than the shutdown deadline of the binaries, 25 s.
const STOP_DEADLINE: Duration = Duration::from_secs(40);
/// What a process keeps of the caller's environment. The rest must not decide what a test finds.
const KEPT: [&str; 4] = ["PATH", "HOME", "TMPDIR", "LLVM_PROFILE_FILE"];

/// A binary of this tree with its environment, its ports, which stay, and its log, in JSON. It ends
/// when this value is dropped, or when the test process dies.
#[derive(Debug)]
pub struct Process {
    running: Mutex<Option<Running>>,
    name: String,
    program: PathBuf,
    environment: BTreeMap<String, String>,
    log: Log,
    admin: Port,
    guard: Guard,
}

impl Process {
    /// Starts a binary, called `name` in messages and for its log, with this environment besides
    /// `ADMIN_LISTEN` and `LOG_FORMAT`, which the harness needs. Does not wait until it is ready.
    ///
    /// # Errors
    /// When the binary has not been built, or cannot be started.
    pub fn start(
        guard: &Guard,
        name: &str,
        binary_name: &str,
        environment: &[(&str, &str)],
    ) -> Result<Self> {
        let admin = Port::free()?;
        let mut all = BTreeMap::from([
            (
                "ADMIN_LISTEN".to_owned(),
                format!("127.0.0.1:{}", admin.number()),
            ),
            ("LOG_FORMAT".to_owned(), "json".to_owned()),
            ("RUST_BACKTRACE".to_owned(), "1".to_owned()),
        ]);
        for (key, value) in environment {
            all.insert((*key).to_owned(), (*value).to_owned());
        }
        let process = Self {
            running: Mutex::new(None),
            name: name.to_owned(),
            program: binary(binary_name)?,
            environment: all,
            log: Log::new(name, guard.directory().join(format!("{name}.log"))),
            admin,
            guard: guard.clone(),
        };
        process.start_again()?;
        Ok(process)
    }

    /// What it was called at its start.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its id, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.slot().as_ref().map(Running::pid)
    }

    /// Its log.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The port of `/livez`, `/readyz` and `/metrics` on 127.0.0.1.
    #[must_use]
    pub fn admin_port(&self) -> u16 {
        self.admin.number()
    }

    /// The program and the environment that it was given, for a person to start it by hand.
    #[must_use]
    pub fn recipe(&self) -> (&std::path::Path, &BTreeMap<String, String>) {
        (&self.program, &self.environment)
    }

    /// Starts it again after its end: same environment, same ports. Does not wait until it is ready.
    ///
    /// # Errors
    /// When it runs already, or cannot be started.
    pub fn start_again(&self) -> Result<()> {
        let mut slot = self.slot();
        if let Some(running) = slot.as_mut() {
            let pid = running.pid();
            ensure!(
                running.exited()?.is_some(),
                "{} runs already, as {pid}",
                self.name
            );
        }
        self.log.turn()?;
        let mut command = Command::new(&self.program);
        command.env_clear().current_dir(self.guard.directory());
        for key in KEPT {
            if let Some(value) = env::var_os(key) {
                command.env(key, value);
            }
        }
        command.envs(&self.environment);
        *slot = Some(Running::start(
            &self.name,
            command,
            &self.log,
            "KILL",
            &self.guard,
        )?);
        Ok(())
    }

    /// Kills it, starts it again and waits until it is ready.
    ///
    /// # Errors
    /// When it did not run, or does not get ready.
    pub async fn restart(&self) -> Result<()> {
        self.kill().await?;
        self.start_again()?;
        self.wait_ready().await
    }

    /// Kills it (SIGKILL).
    ///
    /// # Errors
    /// When it does not run.
    pub async fn kill(&self) -> Result<()> {
        self.end("KILL").await?;
        Ok(())
    }

    /// Asks it to end (SIGTERM) and returns how it did.
    ///
    /// # Errors
    /// When it does not run, or does not end in time.
    pub async fn terminate(&self) -> Result<ExitStatus> {
        self.end("TERM").await
    }

    /// Stops it in its tracks (SIGSTOP): it keeps its connections and answers nothing.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pause(&self) -> Result<()> {
        self.running()?
            .as_ref()
            .context("does not run")?
            .send("STOP")
    }

    /// Lets it go on after [`Process::pause`].
    ///
    /// # Errors
    /// When it does not run.
    pub fn resume(&self) -> Result<()> {
        self.running()?
            .as_ref()
            .context("does not run")?
            .send("CONT")
    }

    /// Waits until it ends by itself and returns how it did.
    ///
    /// # Errors
    /// When it goes on past the deadline.
    pub async fn wait_ended(&self, deadline: Duration) -> Result<ExitStatus> {
        let what = format!("{} to end", self.name);
        crate::eventually(&what, deadline, async || {
            self.running()?.as_mut().context("does not run")?.exited()
        })
        .await
    }

    /// Fails, with the end of its log, when it has ended by itself.
    ///
    /// # Errors
    /// As said.
    pub fn ensure_alive(&self) -> Result<()> {
        self.running()?
            .as_mut()
            .context("does not run")?
            .ensure_alive(&self.log)
    }

    /// Waits until it says on `/readyz` that it is ready.
    ///
    /// # Errors
    /// When it ends or takes too long; with the end of its log.
    pub async fn wait_ready(&self) -> Result<()> {
        let what = format!("{} to be ready", self.name);
        let alive = || self.ensure_alive();
        ready(&what, READY_DEADLINE, &self.log, alive, async || {
            let (status, body) = http::get(self.admin_port(), "/readyz").await?;
            ensure!(status == 200, "/readyz says {status}: {body}");
            Ok(())
        })
        .await
    }

    /// The value of a metric: the sum over its series, or over those with the labels of
    /// `name{label="value"}`. None when there is no such series, as before a counter's first count.
    ///
    /// # Errors
    /// When the process does not answer.
    pub async fn metric(&self, series: &str) -> Result<Option<f64>> {
        let (status, page) = http::get(self.admin_port(), "/metrics").await?;
        ensure!(status == 200, "/metrics of {} says {status}", self.name);
        Ok(metrics::value(&page, series))
    }

    async fn end(&self, signal: &str) -> Result<ExitStatus> {
        let running = self.slot().take();
        running
            .with_context(|| format!("{} does not run", self.name))?
            .end(signal, STOP_DEADLINE)
            .await
            .with_context(|| self.log.tail())
    }

    /// The slot, of a process that was started and not ended by us.
    fn running(&self) -> Result<MutexGuard<'_, Option<Running>>> {
        let slot = self.slot();
        if slot.is_none() {
            bail!("{} does not run", self.name);
        }
        Ok(slot)
    }

    fn slot(&self) -> MutexGuard<'_, Option<Running>> {
        self.running
            .lock()
            .expect("a user of this process panicked")
    }
}

/// The path of a binary that this tree builds, in the profile that the caller was built in.
///
/// # Errors
/// When it has not been built; says how to.
pub fn binary(name: &str) -> Result<PathBuf> {
    let own = env::current_exe().context("cannot tell where this program is")?;
    // A test is in target/debug/deps, xtask in target/debug.
    let mut folder = own.parent().context("a program without a folder")?;
    if folder.ends_with("deps") || folder.ends_with("examples") {
        folder = folder.parent().context("a deps folder without a parent")?;
    }
    let path = folder.join(name).with_extension(env::consts::EXE_EXTENSION);
    ensure!(
        path.is_file(),
        "{} has not been built: run `cargo xtask test`, or `cargo build --workspace` first",
        path.display()
    );
    Ok(path)
}
