//! A program's log file.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// How much is shown when something went wrong, in lines.
const TAIL_LINES: usize = 30;

/// A program's output, in a file. Dropped by a panic, which is how a test fails, it shows its end.
#[derive(Debug)]
pub struct Log {
    name: String,
    path: PathBuf,
}

impl Log {
    pub(crate) fn new(name: &str, path: PathBuf) -> Self {
        let name = name.to_owned();
        Self { name, path }
    }

    /// The file of the current run. That of the run before has `.before` at its end.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All that the current run has written.
    #[must_use]
    pub fn text(&self) -> String {
        // No file yet is an empty log.
        String::from_utf8_lossy(&fs::read(&self.path).unwrap_or_default()).into_owned()
    }

    /// The last lines, headed by where they come from.
    #[must_use]
    pub fn tail(&self) -> String {
        let text = self.text();
        let lines: Vec<&str> = text.lines().collect();
        let last = &lines[lines.len().saturating_sub(TAIL_LINES)..];
        let path = self.path.display();
        format!(
            "the log of {} ({path}) ends:\n{}",
            self.name,
            last.join("\n")
        )
    }

    /// Begins a new file: what an earlier run wrote must not explain the next.
    pub(crate) fn turn(&self) -> Result<()> {
        match fs::rename(&self.path, self.path.with_extension("before")) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot move {}", self.path.display()))
            }
            _ => Ok(()),
        }
    }
}

impl Drop for Log {
    #[expect(
        clippy::print_stderr,
        reason = "the test harness shows it with the failure"
    )]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}\n", self.tail());
        }
    }
}
