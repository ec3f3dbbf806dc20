//! The variables of our containers are those of the binaries. An unknown one would be passed over in
//! silence; and Kubernetes leaves `$(NAME)` as it is, unless `NAME` stands further up in the list.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::binary;
use crate::check::deploy::facts::Facts;
use crate::manifests::object::{Overlay, containers, list, text};

pub(super) fn broken(overlay: &Overlay, facts: &Facts) -> Vec<String> {
    let mut found = Vec::new();
    for object in &overlay.objects {
        let Some(spec) = object.pods().and_then(|pods| pods.spec) else {
            continue;
        };
        for container in containers(spec) {
            let id = object.id();
            let Some(binary) = binary(text(container.get("image")), facts) else {
                continue;
            };
            let known = &facts.variables[binary];
            found.extend(
                of_container(container, known)
                    .into_iter()
                    .map(|what| format!("{id}: {what}")),
            );
        }
    }
    found
}

fn of_container(container: &Value, known: &BTreeMap<String, String>) -> Vec<String> {
    let (mut found, mut above) = (Vec::new(), BTreeSet::new());
    let used: BTreeSet<_> = list(container, "env")
        .flat_map(|one| references(text(one.get("value"))))
        .collect();
    for one in list(container, "env") {
        let name = text(one.get("name"));
        if !known.contains_key(name) && !used.contains(name) {
            found.push(format!("no binary of this image knows {name}"));
        }
        for reference in references(text(one.get("value"))) {
            if !above.contains(reference) {
                found.push(format!(
                    "{name} uses $({reference}), which does not stand above it"
                ));
            }
        }
        if !above.insert(name) {
            found.push(format!("{name} is set twice"));
        }
    }
    for (name, default) in known {
        if default == "required" && !above.contains(name.as_str()) {
            found.push(format!("{name} is required, and not set"));
        }
    }
    found
}

/// The names in `$(NAME)`.
fn references(value: &str) -> impl Iterator<Item = &str> {
    let parts = value.split("$(").skip(1);
    parts.filter_map(|rest| rest.split_once(')').map(|(name, _)| name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINE: &str = "
kind: Deployment
metadata: {name: a}
spec: {template: {spec: {containers: [{image: order-service, env: [
  {name: USER, valueFrom: {}}, {name: DATABASE_URL, value: 'a$(USER)b'}, {name: LOG, value: b}]}]}}}
";

    fn found(yaml: &str) -> Vec<String> {
        let known = [("DATABASE_URL", "required"), ("LOG", "info")];
        let known = known.map(|(name, default)| (name.to_owned(), default.to_owned()));
        let facts = Facts {
            variables: [("order-service".to_owned(), known.into())].into(),
            ..Facts::default()
        };
        broken(&Overlay::read("test", yaml).unwrap(), &facts)
    }

    #[test]
    fn what_the_binary_knows_is_left_alone() {
        assert_eq!(found(FINE), Vec::<String>::new());
    }

    #[test]
    fn what_it_would_pass_over_is_named() {
        for (from, to, said) in [
            ("name: LOG", "name: LGO", "knows LGO"),
            ("$(USER)", "$(USR)", "knows USER"),
            (
                "$(USER)",
                "$(LOG)",
                "uses $(LOG), which does not stand above",
            ),
            (
                "name: DATABASE_URL",
                "name: LOG",
                "DATABASE_URL is required",
            ),
            ("name: DATABASE_URL", "name: LOG", "LOG is set twice"),
        ] {
            let found = found(&FINE.replace(from, to));
            assert!(
                found.iter().any(|one| one.contains(said)),
                "{said}: {found:?}"
            );
        }
    }
}
