//! What a binary is made of, as a CycloneDX document: every crate that is linked into it, from cargo's own
//! resolution of the lock file.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::shell;

/// The document for the workspace's package `name`, on the platform `target`.
pub(super) fn of(name: &str, target: &str) -> Result<Value> {
    let mut command = shell::cargo();
    command.args(["metadata", "--format-version", "1", "--locked"]);
    command.args(["--filter-platform", target]);
    let output = shell::capture(&mut command)?;
    ensure!(
        output.status.success(),
        "cargo metadata ended with {}",
        output.status
    );
    document(name, &serde_json::from_slice(&output.stdout)?)
}

fn document(name: &str, metadata: &Value) -> Result<Value> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let packages: BTreeMap<String, Value> = list(&metadata["packages"])
        .into_iter()
        .map(|package| (text(&package["id"]), package))
        .collect();
    let nodes: BTreeMap<String, Value> = list(&metadata["resolve"]["nodes"])
        .into_iter()
        .map(|node| (text(&node["id"]), node))
        .collect();
    let root = packages
        .iter()
        .find(|(_, package)| package["name"] == name)
        .map(|(id, _)| id.clone())
        .with_context(|| format!("the workspace has no package {name}"))?;
    let (mut seen, mut left) = (BTreeSet::new(), vec![root.clone()]);
    let mut depends = Vec::new();
    while let Some(id) = left.pop() {
        if !seen.insert(id.clone()) {
            continue;
        }
        // What is needed to build or to test is not in the binary.
        let linked = |dependency: &Value| {
            list(&dependency["dep_kinds"])
                .iter()
                .any(|kind| kind["kind"].is_null())
        };
        let on: Vec<String> = nodes
            .get(&id)
            .map(|node| list(&node["deps"]))
            .into_iter()
            .flatten()
            .filter(linked)
            .map(|dependency| text(&dependency["pkg"]))
            .collect();
        let on_names: Vec<_> = on
            .iter()
            .filter_map(|id| packages.get(id))
            .map(purl)
            .collect();
        depends.push(json!({ "ref": purl(&packages[&id]), "dependsOn": on_names }));
        left.extend(on);
    }
    let components: Vec<_> = seen
        .iter()
        .filter(|id| **id != root)
        .map(|id| component("library", &packages[id]))
        .collect();
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "component": component("application", &packages[&root]) },
        "components": components,
        "dependencies": depends,
    }))
}

fn component(kind: &str, package: &Value) -> Value {
    json!({
        "type": kind,
        "bom-ref": purl(package),
        "purl": purl(package),
        "name": package["name"],
        "version": package["version"],
        "licenses": [{ "expression": package["license"] }],
    })
}

fn purl(package: &Value) -> String {
    format!(
        "pkg:cargo/{}@{}",
        text(&package["name"]),
        text(&package["version"])
    )
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_linked_is_listed_and_what_only_builds_is_not() {
        let package =
            |name: &str| json!({ "id": name, "name": name, "version": "1.0.0", "license": "MIT" });
        let dependency =
            |name: &str, kind: Value| json!({ "pkg": name, "dep_kinds": [{ "kind": kind }] });
        let metadata = json!({
            "packages": [package("service"), package("linked"), package("deep"), package("build"), package("other")],
            "resolve": { "nodes": [
                { "id": "service", "deps": [dependency("linked", Value::Null), dependency("build", json!("build"))] },
                { "id": "linked", "deps": [dependency("deep", Value::Null)] },
                { "id": "build", "deps": [dependency("other", Value::Null)] },
            ] },
        });
        let document = document("service", &metadata).unwrap();
        let names = |list: &Value| -> Vec<String> {
            list.as_array()
                .unwrap()
                .iter()
                .map(|one| text(&one["name"]))
                .collect()
        };
        assert_eq!(names(&document["components"]), ["deep", "linked"]);
        assert_eq!(document["metadata"]["component"]["name"], "service");
        assert!(super::document("nobody", &metadata).is_err());
    }
}
