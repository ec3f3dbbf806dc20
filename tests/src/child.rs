//! A started program: its log file, its signals, its end.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::time::timeout;

use crate::eventually::eventually;
use crate::guard::Guard;
use crate::log::Log;

/// How long a program that is dropped may take to end before it is killed.
const END_WAIT: Duration = Duration::from_secs(5);

/// A running program. Dropped, it is ended by its signal, and by SIGKILL when that takes too long.
#[derive(Debug)]
pub(crate) struct Running {
    name: String,
    child: tokio::process::Child,
    pid: u32,
    signal: &'static str,
    guard: Guard,
}

impl Running {
    /// Starts `command` in a process group of its own, its output appended to `log`; `signal` ends it.
    pub(crate) fn start(
        name: &str,
        mut command: Command,
        log: &Log,
        signal: &'static str,
        guard: &Guard,
    ) -> Result<Self> {
        let out = File::options().create(true).append(true).open(log.path())?;
        let err = out.try_clone()?;
        let program = PathBuf::from(command.get_program());
        // Ctrl-C at a terminal is for the harness, which then ends its programs in order.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.stdin(Stdio::null()).stdout(out).stderr(err);
        let child = tokio::process::Command::from(command)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let pid = child.id().context("a child without an id")?;
        let running = Self {
            name: name.to_owned(),
            child,
            pid,
            signal,
            guard: guard.clone(),
        };
        guard.started(pid, signal)?;
        Ok(running)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends a signal, named without SIG.
    pub(crate) fn send(&self, signal: &str) -> Result<()> {
        self.guard.send(signal, self.pid)
    }

    /// How it ended, if it has.
    pub(crate) fn exited(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Fails, with the end of its log, when the program has ended.
    pub(crate) fn ensure_alive(&mut self, log: &Log) -> Result<()> {
        match self.exited()? {
            None => Ok(()),
            Some(status) => bail!("{} ended by itself ({status}); {}", self.name, log.tail()),
        }
    }

    /// Sends `signal` and waits until the program has ended.
    pub(crate) async fn end(mut self, signal: &str, deadline: Duration) -> Result<ExitStatus> {
        if self.exited()?.is_none() {
            self.send(signal)?;
        }
        let Ok(status) = timeout(deadline, self.child.wait()).await else {
            bail!(
                "{} did not end within {deadline:?} of SIG{signal}",
                self.name
            );
        };
        Ok(status?)
    }
}

impl Drop for Running {
    #[expect(clippy::disallowed_methods, reason = "drop cannot await")]
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // A program that was stopped sees no signal before it goes on.
            let told = self.send(self.signal).and_then(|()| self.send("CONT"));
            let deadline = Instant::now() + END_WAIT;
            while told.is_ok()
                && Instant::now() < deadline
                && matches!(self.child.try_wait(), Ok(None))
            {
                std::thread::sleep(Duration::from_millis(5));
            }
            if matches!(self.child.try_wait(), Ok(None)) {
                let _ = self.child.start_kill();
                while matches!(self.child.try_wait(), Ok(None)) {
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        }
        let _ = self.guard.ended(self.pid);
    }
}

/// Awaits that `probe` succeeds. A program that is found dead by `alive` ends the waiting at once.
pub(crate) async fn ready(
    what: &str,
    deadline: Duration,
    log: &Log,
    mut alive: impl FnMut() -> Result<()>,
    mut probe: impl AsyncFnMut() -> Result<()>,
) -> Result<()> {
    let answer = eventually(what, deadline, async || {
        if let Err(dead) = alive() {
            return Ok(Some(Err(dead)));
        }
        probe().await?;
        Ok(Some(Ok(())))
    });
    match answer.await {
        Ok(outcome) => outcome,
        Err(late) => bail!("{late:#}; {}", log.tail()),
    }
}
