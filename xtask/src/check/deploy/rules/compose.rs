//! `deploy/compose.yaml`: known variables, pinned images, and a start that waits for health.

use std::fs;

use anyhow::{Context, Result};
use serde_json::Value;

use super::{binary, images};
use crate::check::deploy::facts::Facts;
use crate::manifests::object::text;
use crate::manifests::yaml;
use crate::shell;

const FILE: &str = "deploy/compose.yaml";

pub(super) fn of_the_tree(facts: &Facts) -> Result<Vec<String>> {
    let read = fs::read_to_string(shell::root().join(FILE))
        .with_context(|| format!("cannot read {FILE}"))?;
    let found = broken(&read, facts)?.into_iter();
    Ok(found.map(|what| format!("{FILE}: {what}")).collect())
}

fn broken(given: &str, facts: &Facts) -> Result<Vec<String>> {
    let documents = yaml::documents(given)?;
    let services = documents
        .first()
        .and_then(|one| one["services"].as_object());
    let services = services.context("a compose file has services")?;
    let mut found = Vec::new();
    for (name, service) in services {
        let image = text(service.get("image"));
        found.extend(images::unpinned(image, facts).map(|what| format!("{name}: {what}")));
        if service.get("healthcheck").is_none() {
            found.push(format!("{name}: has no healthcheck"));
        }
        for (other, how) in service["depends_on"].as_object().into_iter().flatten() {
            if !services.contains_key(other) {
                found.push(format!("{name}: depends on {other}, which there is not"));
            }
            if text(how.get("condition")) != "service_healthy" {
                found.push(format!("{name}: does not wait until {other} is healthy"));
            }
        }
        let Some(binary) = binary(image, facts) else {
            continue;
        };
        let known = &facts.variables[binary];
        let set = service.get("environment").and_then(Value::as_object);
        for variable in set.into_iter().flatten().map(|(variable, _)| variable) {
            if !known.contains_key(variable) {
                found.push(format!("{name}: {binary} knows no {variable}"));
            }
        }
        for (variable, default) in known {
            if default == "required" && !set.is_some_and(|set| set.contains_key(variable)) {
                found.push(format!("{name}: {variable} is required, and not set"));
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINE: &str = "
services:
  nats: {image: 'nats:2.15.1', healthcheck: {}}
  relay:
    image: saga/cdc-relay:0.1.0
    healthcheck: {}
    environment: {DATABASE_URL: a}
    depends_on: {nats: {condition: service_healthy}}
";

    #[test]
    fn what_compose_would_take_is_named() {
        let known = [("DATABASE_URL".to_owned(), "required".to_owned())].into();
        let facts = Facts {
            version: "0.1.0".to_owned(),
            variables: [("cdc-relay".to_owned(), known)].into(),
            ..Facts::default()
        };
        assert_eq!(broken(FINE, &facts).unwrap(), Vec::<String>::new());
        for (from, to, said) in [
            ("nats:2.15.1", "nats", "not pinned"),
            ("DATABASE_URL", "DATABSE_URL", "knows no DATABSE_URL"),
            ("DATABASE_URL", "DATABSE_URL", "DATABASE_URL is required"),
            ("service_healthy", "service_started", "does not wait"),
            (
                "depends_on: {nats",
                "depends_on: {nat",
                "which there is not",
            ),
            (", healthcheck: {}", "", "nats: has no healthcheck"),
        ] {
            let found = broken(&FINE.replace(from, to), &facts).unwrap();
            assert!(
                found.iter().any(|one| one.contains(said)),
                "{said}: {found:?}"
            );
        }
    }
}
