//! Figures are of release builds: the benchmark builds them, and becomes the one that it was built as.

use std::env;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};

use crate::shell;

/// Builds what is measured, and what measures, for release; and becomes that, with the same arguments.
pub(super) fn build_and_run(measured: &[&str]) -> Result<()> {
    let mut build = shell::cargo();
    build.args(["build", "--release", "-p", "xtask"]);
    for package in measured {
        build.args(["-p", package]);
    }
    shell::run(&mut build)?;
    let own = env::current_exe()?;
    let target = own.parent().and_then(|folder| folder.parent());
    let built = target
        .context("a program without a target folder")?
        .join("release/xtask");
    let mut command = Command::new(&built);
    command.args(env::args_os().skip(1)).arg("--no-build");
    Err(command.exec()).with_context(|| format!("cannot run {}", built.display()))
}
