//! What the manifests have to agree with: the variables of the binaries, as `docs/configuration.md` has them
//! (another check holds it against `--help`), the version, the metrics, and what the README names.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::shell;

const EVERY_PROCESS: &str = "## Every process";
/// Of the variables of every process it reads those of NATS.
const CALLER: &str = "loadgen";
/// The sections of the document and the binaries that they are about.
const SECTIONS: [(&str, &[&str]); 4] = [
    (
        EVERY_PROCESS,
        &["order-service", "customer-service", "cdc-relay"],
    ),
    (
        "## The services, besides",
        &["order-service", "customer-service"],
    ),
    ("## The relay, besides", &["cdc-relay"]),
    ("## The load, `loadgen`", &["loadgen"]),
];
/// Where metrics are made.
const SOURCES: [&str; 5] = [
    "chassis/src",
    "mailbox/src",
    "order-service/src",
    "customer-service/src",
    "cdc-relay/src",
];

#[derive(Debug, Default)]
pub(super) struct Facts {
    /// The variables of each binary, and their defaults.
    pub(super) variables: BTreeMap<String, BTreeMap<String, String>>,
    pub(super) version: String,
    /// Whatever stands in quotes in the sources, metrics among it.
    pub(super) quoted: BTreeSet<String>,
    pub(super) readme: String,
}

impl Facts {
    pub(super) fn read() -> Result<Self> {
        let read = |name: &str| {
            fs::read_to_string(shell::root().join(name))
                .with_context(|| format!("cannot read {name}"))
        };
        let manifest = read("Cargo.toml")?;
        let version = manifest
            .split("[workspace.package]")
            .nth(1)
            .and_then(|rest| rest.split("version = \"").nth(1)?.split('"').next());
        let mut quoted = BTreeSet::new();
        for source in SOURCES {
            gather(&shell::root().join(source), &mut quoted)?;
        }
        Ok(Self {
            variables: variables(&read("docs/configuration.md")?)?,
            version: version.context("Cargo.toml without a version")?.to_owned(),
            quoted,
            readme: read("deploy/README.md")?,
        })
    }
}

fn variables(document: &str) -> Result<BTreeMap<String, BTreeMap<String, String>>> {
    let mut known: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for (title, binaries) in SECTIONS {
        let section = document
            .split(&format!("{title}\n"))
            .nth(1)
            .and_then(|rest| rest.split("\n## ").next())
            .with_context(|| format!("docs/configuration.md has no section {title:?}"))?;
        let rows: Vec<_> = section.lines().filter_map(row).collect();
        ensure!(!rows.is_empty(), "{title:?} has no variable");
        for binary in binaries {
            let of_binary = known.entry((*binary).to_owned()).or_default();
            of_binary.extend(rows.iter().cloned());
        }
        if title == EVERY_PROCESS {
            let of_nats = rows.iter().filter(|(name, _)| name.starts_with("NATS_"));
            let of_caller = known.entry(CALLER.to_owned()).or_default();
            of_caller.extend(of_nats.cloned());
        }
    }
    Ok(known)
}

/// `` | `NAME` | `default` | … ``
fn row(line: &str) -> Option<(String, String)> {
    let mut cells = line.strip_prefix("| `")?.split(" | ");
    let name = cells.next()?.trim_end_matches('`').to_owned();
    Some((name, cells.next()?.trim_matches('`').to_owned()))
}

fn gather(folder: &Path, quoted: &mut BTreeSet<String>) -> Result<()> {
    for entry in
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?
    {
        let path = entry?.path();
        if path.is_dir() {
            gather(&path, quoted)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path)?;
            quoted.extend(text.split('"').map(str::to_owned));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_binary_has_the_variables_of_its_sections() {
        let document = "## Every process\n\n| variable | default |\n| --- | --- |\n| `A` | `1` | x |\n| `NATS_URL` | `n` | x |\n\n\
                        ## The services, besides\n\n| `B` | required | x |\n\n## The relay, besides\n\n| `C` | none | x |\n\n\
                        ## The load, `loadgen`\n\n| `D` | `d` | x |\n";
        let known = variables(document).unwrap();
        assert_eq!(known["cdc-relay"]["A"], "1");
        assert_eq!(known["order-service"]["B"], "required");
        assert!(!known["cdc-relay"].contains_key("B") && !known["order-service"].contains_key("C"));
        let of_loadgen: Vec<_> = known["loadgen"].keys().collect();
        assert_eq!(of_loadgen, ["D", "NATS_URL"]);
        assert!(variables("## Every process\n").is_err());
    }
}
