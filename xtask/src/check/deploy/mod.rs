//! The manifests under `deploy/`: that every overlay builds, that an old and a current Kubernetes take all
//! its objects, and what schemas do not see (`rules/`). No cluster is needed, and none is asked.

mod declarations;
mod facts;
mod kubernetes;
mod object;
mod rules;
mod schema;
mod yaml;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use self::facts::Facts;
use self::kubernetes::{VERSIONS, Version};
use self::object::Overlay;
use super::Outcome;
use crate::shell;

const OVERLAYS: &str = "deploy/overlays";

pub(crate) fn run() -> Result<Outcome> {
    let Some(kubectl) = harness::tools::kubectl()? else {
        return skipped("kubectl", "KUBECTL names one; so does an installation");
    };
    let overlays = built(&kubectl)?;
    let facts = Facts::read()?;
    let mut found = rules::of_the_tree(&facts)?;
    for overlay in &overlays {
        let broken = rules::broken(overlay, &facts).into_iter();
        found.extend(broken.map(|what| format!("{}: {what}", overlay.name)));
    }
    let unseen = match (
        harness::tools::kubernetes_schemas()?,
        harness::tools::custom_resources()?,
    ) {
        (Some(schemas), Some(packages)) => {
            let custom = kubernetes::custom(&packages)?;
            for version in VERSIONS {
                let version = Version::read(version, &schemas, custom.clone())?;
                for overlay in &overlays {
                    let broken = version.broken(overlay).into_iter();
                    found.extend(broken.map(|what| format!("{}: {what}", overlay.name)));
                }
            }
            false
        }
        _ => true,
    };
    if !found.is_empty() {
        bail!("{}", found.join("\n"));
    }
    let objects: usize = overlays.iter().map(|overlay| overlay.objects.len()).sum();
    println!(
        "{objects} objects of {} overlays, against Kubernetes {}",
        overlays.len(),
        VERSIONS.join(" and ")
    );
    if unseen {
        return skipped(
            "of it, the schemas",
            "Python's and Node's package clients bring them",
        );
    }
    Ok(Outcome::Fine)
}

fn skipped(what: &str, how: &str) -> Result<Outcome> {
    Ok(Outcome::Skipped(format!(
        "{what}: not to be had here; {how}"
    )))
}

/// Every overlay, built by kustomize.
fn built(kubectl: &Path) -> Result<Vec<Overlay>> {
    let mut names: Vec<String> = fs::read_dir(shell::root().join(OVERLAYS))
        .context(OVERLAYS)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    names.sort_unstable();
    ensure!(!names.is_empty(), "{OVERLAYS} holds no overlay");
    names.iter().map(|name| build(kubectl, name)).collect()
}

fn build(kubectl: &Path, name: &str) -> Result<Overlay> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifests_of_this_tree_are_fine() {
        run().unwrap();
    }
}
