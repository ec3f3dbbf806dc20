//! The user that Postgres runs as: it refuses root.

use std::fs::File;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Who runs a server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Server {
    /// User and group id; none is the caller's own.
    ids: Option<(u32, u32)>,
}

impl Server {
    /// The caller.
    pub(crate) fn caller() -> Self {
        Self { ids: None }
    }

    /// The caller, or for root the user `postgres` or else `nobody`.
    pub(crate) fn user() -> Result<Self> {
        if !is_root()? {
            return Ok(Self::caller());
        }
        for name in ["postgres", "nobody"] {
            if let (Some(user), Some(group)) = (id("-u", name), id("-g", name)) {
                return Ok(Self {
                    ids: Some((user, group)),
                });
            }
        }
        bail!("Postgres refuses to run as root, and there is no user postgres or nobody here")
    }

    pub(crate) fn run_as(&self, command: &mut Command) {
        if let Some((user, group)) = self.ids {
            command.uid(user).gid(group);
        }
    }

    /// Makes the user the owner of `path`.
    pub(crate) fn own(&self, path: &Path) -> Result<()> {
        if let Some((user, group)) = self.ids {
            chown(path, Some(user), Some(group))
                .with_context(|| format!("cannot give {} to the server's user", path.display()))?;
        }
        Ok(())
    }
}

/// Whether this process runs as root: whoever creates a file owns it.
pub(crate) fn is_root() -> Result<bool> {
    let probe: File = tempfile::tempfile().context("cannot create a temporary file")?;
    Ok(probe.metadata()?.uid() == 0)
}

fn id(option: &str, name: &str) -> Option<u32> {
    let output = Command::new("id").args([option, name]).output().ok()?;
    String::from_utf8_lossy(&output.stdout).trim().parse().ok()
}
