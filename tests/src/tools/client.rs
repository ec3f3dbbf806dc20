//! The package clients that fetch: Python's and Node's, each with the machine's own settings for where
//! packages come from. Both check the hashes that are pinned here, and run nothing of what they fetch.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// How a package is fetched, with its version and its hashes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Client {
    /// A requirements file.
    Pip { requirements: &'static str },
    /// A lock file of one package.
    Npm { lock: &'static str },
}

/// The folder in a package of `@embedded-postgres` that lists the links which its archive cannot hold.
const LINKS: &str = "native/pg-symlinks.json";

impl Client {
    /// Whether the client is there.
    pub(super) fn is_here(self) -> bool {
        match self {
            Self::Pip { .. } => pip(&["--version"]).is_ok(),
            Self::Npm { .. } => npm(&["--version"], Path::new("/")).is_ok(),
        }
    }

    /// Installs into the empty folder `target`.
    pub(super) fn install(self, target: &Path) -> Result<()> {
        match self {
            Self::Pip { requirements } => install_by_pip(requirements, target)?,
            Self::Npm { lock } => install_by_npm(lock, target)?,
        }
        // Whatever the umask of the caller: the server's user must be able to read and run it.
        let target = target.to_string_lossy();
        let status = Command::new("chmod").args(["-R", "a+rX", &target]).status();
        ensure!(status?.success(), "cannot make {target} readable");
        Ok(())
    }
}

fn install_by_pip(requirements: &str, target: &Path) -> Result<()> {
    let list = target.join("requirements.txt");
    fs::write(&list, requirements)?;
    pip(&["--version"]).context("Python's package client (python3 with pip) is missing")?;
    pip(&[
        "install",
        "--quiet",
        "--no-input",
        "--require-hashes",
        "--only-binary=:all:",
        "--no-deps",
        "--target",
        &target.to_string_lossy(),
        "--requirement",
        &list.to_string_lossy(),
    ])
}

fn install_by_npm(lock: &str, target: &Path) -> Result<()> {
    let parsed: serde_json::Value = serde_json::from_str(lock).context("a lock file of ours")?;
    let root = &parsed["packages"][""];
    fs::write(target.join("package.json"), root.to_string())?;
    fs::write(target.join("package-lock.json"), lock)?;
    npm(&["--version"], target).context("Node's package client (npm) is missing")?;
    let install = [
        "ci",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        "--loglevel=error",
    ];
    npm(&install, target)?;
    let names = root["dependencies"].as_object();
    for name in names.into_iter().flatten().map(|(name, _)| name) {
        link(&target.join("node_modules").join(name))?;
    }
    Ok(())
}

/// Makes the links that the package's own script would make, if it has such. Each stands beside what it
/// points to.
fn link(package: &Path) -> Result<()> {
    let list = package.join(LINKS);
    if !list.exists() {
        return Ok(());
    }
    let text = fs::read(&list).with_context(|| format!("cannot read {}", list.display()))?;
    let links: serde_json::Value = serde_json::from_slice(&text)?;
    for entry in links.as_array().into_iter().flatten() {
        let path = |end: &str| entry[end].as_str().map(Path::new).context("a link's end");
        let (source, target) = (path("source")?, path("target")?);
        let beside = source.file_name().context("a link to no file")?;
        ensure!(
            source.parent() == target.parent(),
            "the link {} leaves its folder",
            target.display()
        );
        std::os::unix::fs::symlink(beside, package.join(target))?;
    }
    Ok(())
}

fn pip(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("python3");
    command
        .args(["-m", "pip"])
        .args(arguments)
        // A user's default of installing to the home contradicts --target.
        .env("PIP_USER", "0")
        .env("PIP_ROOT_USER_ACTION", "ignore");
    run(command, "python3 -m pip", arguments)
}

fn npm(arguments: &[&str], folder: &Path) -> Result<()> {
    let mut command = Command::new("npm");
    command.args(arguments).current_dir(folder);
    run(command, "npm", arguments)
}

fn run(mut command: Command, name: &str, arguments: &[&str]) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = stderr.trim().lines().collect();
    bail!(
        "{name} {} failed: {}",
        arguments.first().unwrap_or(&""),
        lines[lines.len().saturating_sub(5)..].join("\n")
    );
}
