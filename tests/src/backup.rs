//! Cold copies of a server's files: what an operator restores after a loss, and what a power failure
//! leaves behind.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Makes `to` a copy of the directory `from`, owners and times included; what stood there is gone.
/// The server must not run.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        std::fs::remove_dir_all(to).with_context(|| format!("cannot remove {}", to.display()))?;
    }
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status();
    ensure!(
        status.context("cannot run cp")?.success(),
        "cannot copy {} to {}",
        from.display(),
        to.display()
    );
    Ok(())
}
