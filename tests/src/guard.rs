//! A scratch directory, and the promise that whatever is started for it dies with it.
//!
//! ```text
//! test process ──pipe──▶ sh (guard.sh): end of file → ends the processes, removes the directory
//! ```
//!
//! The pipe closes however the test process ends, SIGKILL included. The danger: a child that
//! inherits the pipe keeps it open. std opens pipes close-on-exec, so none does.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};

/// Set (to anything) to keep scratch directories for a look at the logs.
const KEEP: &str = "HARNESS_KEEP";

/// A scratch directory with a guard process. Clones share both; the last one to go ends what still
/// runs and removes the directory. With `HARNESS_KEEP` set the directory stays.
#[derive(Clone, Debug)]
pub struct Guard {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    directory: PathBuf,
    guard: Mutex<Child>,
    pipe: Mutex<Option<ChildStdin>>,
}

impl Guard {
    /// Makes a scratch directory and starts its guard.
    ///
    /// # Errors
    /// When the directory cannot be made or `sh` cannot be started.
    pub fn start() -> Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("harness-")
            .permissions(fs::Permissions::from_mode(0o755)) // Postgres may run as another user.
            .tempdir()
            .context("cannot make a scratch directory")?
            .keep()
            .canonicalize()?;
        let kept = std::env::var_os(KEEP).is_some();
        let removed = if kept { Path::new("") } else { &directory };
        let mut guard = Command::new("sh")
            .args(["-c", include_str!("guard.sh"), "harness-guard"])
            .arg(removed)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0) // Ctrl-C at a terminal must reach us, not it.
            .spawn()
            .context("cannot start sh, which guards what a test starts")?;
        let pipe = guard.stdin.take();
        Ok(Self {
            shared: Arc::new(Shared {
                directory,
                guard: Mutex::new(guard),
                pipe: Mutex::new(pipe),
            }),
        })
    }

    /// The scratch directory: absolute, readable by all.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.shared.directory
    }

    /// Makes a directory in the scratch directory.
    ///
    /// # Errors
    /// When it exists or cannot be made.
    pub fn make_directory(&self, name: &str) -> Result<PathBuf> {
        let path = self.directory().join(name);
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(path)
    }

    /// From now on the process ends, by `signal`, when this guard does.
    pub(crate) fn started(&self, pid: u32, signal: &str) -> Result<()> {
        self.tell(&format!("started {pid} {signal}\n"))
    }

    /// The process has ended and been waited for: its id may come to belong to another.
    pub(crate) fn ended(&self, pid: u32) -> Result<()> {
        self.tell(&format!("ended {pid}\n"))
    }

    /// Sends a signal, named without SIG. The process must not have been waited for.
    pub(crate) fn send(&self, signal: &str, pid: u32) -> Result<()> {
        self.tell(&format!("send {signal} {pid}\n"))
    }

    fn tell(&self, line: &str) -> Result<()> {
        let mut pipe = self.shared.pipe.lock().expect("a guard's user panicked");
        pipe.as_mut()
            .context("the guard has no pipe")?
            .write_all(line.as_bytes())
            .context("the guard process is gone; was it killed?")
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Ok(mut pipe) = self.pipe.lock() {
            drop(pipe.take());
        }
        if let Ok(mut guard) = self.guard.lock() {
            // A failure leaves a directory behind; there is nobody to tell.
            let _ = guard.wait();
        }
    }
}
