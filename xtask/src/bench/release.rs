//! Figures are of release builds: a command that measures builds them, and becomes the one that it was built as.

use std::env;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};

use crate::shell;

/// Builds what is measured, and what measures, for release; and becomes that, with the same
/// arguments; `depth` words are the subcommand.
pub(crate) fn build_and_run(depth: usize, measured: &[&str]) -> Result<()> {
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
    // Behind the subcommand and before its options, of which the last may be passed on to others.
    let mut arguments: Vec<_> = env::args_os().skip(1).collect();
    arguments.insert(depth.min(arguments.len()), "--no-build".into());
    command.args(arguments);
    Err(command.exec()).with_context(|| format!("cannot run {}", built.display()))
}
