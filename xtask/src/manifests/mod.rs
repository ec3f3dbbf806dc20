//! The manifests under `deploy/`, as kustomize builds them: what the checks look at, and what runs from images.

pub(crate) mod object;
pub(crate) mod yaml;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use self::object::Overlay;
use crate::shell;

const OVERLAYS: &str = "deploy/overlays";

/// Every overlay, built by kustomize.
pub(crate) fn built(kubectl: &Path) -> Result<Vec<Overlay>> {
    let mut names: Vec<String> = fs::read_dir(shell::root().join(OVERLAYS))
        .context(OVERLAYS)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    names.sort_unstable();
    ensure!(!names.is_empty(), "{OVERLAYS} holds no overlay");
    names.iter().map(|name| build(kubectl, name)).collect()
}

/// The overlay of that name.
pub(crate) fn build(kubectl: &Path, name: &str) -> Result<Overlay> {
    let path = format!("{OVERLAYS}/{name}");
    let output = shell::capture(shell::command(kubectl).args(["kustomize", &path]))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{path} does not build: {}",
        said.trim()
    );
    // Such as a field that is going away.
    ensure!(
        said.trim().is_empty(),
        "{path}: kustomize warns: {}",
        said.trim()
    );
    let text = String::from_utf8(output.stdout).context("kustomize's output")?;
    Overlay::read(name, &text).with_context(|| format!("what {path} builds"))
}
