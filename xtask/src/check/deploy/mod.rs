//! The manifests under `deploy/`: that every overlay builds, that an old and a current Kubernetes take all
//! its objects, and what schemas do not see (`rules/`). No cluster is needed, and none is asked.

mod declarations;
mod facts;
mod kubernetes;
mod rules;
mod schema;

use anyhow::{Result, bail};

use self::facts::Facts;
use self::kubernetes::{VERSIONS, Version};
use super::Outcome;
use crate::manifests;

pub(crate) fn run() -> Result<Outcome> {
    let Some(kubectl) = harness::tools::kubectl()? else {
        return skipped("kubectl", "KUBECTL names one; so does an installation");
    };
    let overlays = manifests::built(&kubectl)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifests_of_this_tree_are_fine() {
        run().unwrap();
    }
}
