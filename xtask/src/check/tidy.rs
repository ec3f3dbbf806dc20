//! The tree's own rules, which no lint knows.

mod rules;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};

use super::Outcome;
use crate::shell;

pub(crate) fn run() -> Result<Outcome> {
    let mut found = Vec::new();
    for path in tracked()? {
        let Ok(bytes) = fs::read(shell::root().join(&path)) else {
            continue; // Removed, and not yet committed.
        };
        // What is not text has no lines to look at.
        let Ok(text) = String::from_utf8(bytes) else {
            continue;
        };
        let name = path.to_string_lossy();
        for (line, rule) in rules::broken(&name, &text) {
            found.push(format!("{name}:{line}: {rule}"));
        }
    }
    if !found.is_empty() {
        bail!("{}", found.join("\n"));
    }
    Ok(Outcome::Fine)
}

/// The files that git has or would take.
fn tracked() -> Result<Vec<PathBuf>> {
    let output = shell::capture(shell::command("git").args([
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]))
    .context("git tells which files there are")?;
    ensure!(
        output.status.success(),
        "git ls-files failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let names = String::from_utf8(output.stdout).context("a file's name is not UTF-8")?;
    Ok(names
        .split('\0')
        .filter(|name| !name.is_empty())
        .map(PathBuf::from)
        .collect())
}
