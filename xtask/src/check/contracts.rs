//! The `.proto` files against the contract that they made, and buf's standard rules over them.

use anyhow::{Result, ensure};

use super::Outcome;
use crate::{contract, shell};

/// Pinned, so that a new rule does not fail an old tree.
const BUF: &str = "@bufbuild/buf@1.75.0";

pub(crate) fn run() -> Result<Outcome> {
    contract::check()?;
    let Ok(found) = shell::capture(shell::command("npm").arg("--version")) else {
        return Ok(Outcome::Skipped(
            "of it, buf lint: npm is not installed, which brings buf. The contract is kept"
                .to_owned(),
        ));
    };
    ensure!(found.status.success(), "npm is installed, but does not run");
    let buf = |arguments: &[&str]| {
        let mut command = shell::command("npm");
        command
            .args(["exec", "--yes", "--package", BUF, "--", "buf"])
            .args(arguments);
        command
    };
    let version = shell::capture(&mut buf(&["--version"]))?;
    if !version.status.success() {
        let said = String::from_utf8_lossy(&version.stderr);
        let last = said.trim().lines().last().unwrap_or_default().to_owned();
        return Ok(Outcome::Skipped(format!(
            "of it, buf lint: npm cannot bring {BUF}: {last}. The contract is kept"
        )));
    }
    shell::run(&mut buf(&["lint", "proto"]))?;
    Ok(Outcome::Fine)
}
