//! Secrets, config maps and volumes that pods refer to are there, with the key; or an operator makes them,
//! or the README says how to bring them. And what is secret is referred to, never written down.

use serde_json::Value;

use crate::check::deploy::facts::Facts;
use crate::manifests::object::{Overlay, containers, list, text};

/// Variables with such words in their names hold secrets, unless they name a file.
const SECRET: [&str; 3] = ["PASSWORD", "TOKEN", "SECRET"];

/// Where pods have the files that they are given.
const FILES: &str = "/etc/saga/";

struct Reference<'a> {
    kind: &'static str,
    name: &'a str,
    key: Option<&'a str>,
}

pub(super) fn broken(overlay: &Overlay, facts: &Facts) -> Vec<String> {
    let mut found = Vec::new();
    for object in &overlay.objects {
        let id = object.id();
        let mut referred = Vec::new();
        for role in list(&object.value["spec"]["managed"], "roles") {
            let name = text(role.pointer("/passwordSecret/name"));
            referred.extend((!name.is_empty()).then_some(Reference {
                kind: "Secret",
                name,
                key: None,
            }));
        }
        if let Some(spec) = object.pods().and_then(|pods| pods.spec) {
            referred.extend(of_pod(spec));
            let claims = list(&object.value["spec"], "volumeClaimTemplates");
            let claims = claims.map(|claim| text(claim.pointer("/metadata/name")));
            let wrong = volumes(spec, &claims.collect::<Vec<_>>());
            found.extend(wrong.into_iter().map(|what| format!("{id}: {what}")));
            for container in containers(spec) {
                found.extend(lost(container, spec).map(|what| format!("{id}: {what}")));
                found
                    .extend(written(container).map(|name| format!("{id}: {name} is written down")));
            }
        }
        for reference in referred {
            if let Some(what) = missing(&reference, overlay, facts) {
                found.push(format!("{id}: {what}"));
            }
        }
    }
    found
}

fn of_pod(spec: &Value) -> Vec<Reference<'_>> {
    let mut found = Vec::new();
    for variable in containers(spec).flat_map(|container| list(container, "env")) {
        for (kind, way) in [("Secret", "secretKeyRef"), ("ConfigMap", "configMapKeyRef")] {
            if let Some(from) = variable.pointer(&format!("/valueFrom/{way}")) {
                let key = from.get("key").and_then(Value::as_str);
                found.push(Reference {
                    kind,
                    name: text(from.get("name")),
                    key,
                });
            }
        }
    }
    for volume in list(spec, "volumes") {
        for (kind, way, named) in [
            ("Secret", "secret", "secretName"),
            ("ConfigMap", "configMap", "name"),
        ] {
            let Some(from) = volume.get(way) else {
                continue;
            };
            let name = text(from.get(named));
            found.push(Reference {
                kind,
                name,
                key: None,
            });
            let keys = list(from, "items").filter_map(|item| item.get("key")?.as_str());
            found.extend(keys.map(|key| Reference {
                kind,
                name,
                key: Some(key),
            }));
        }
    }
    found
}

fn missing(reference: &Reference<'_>, overlay: &Overlay, facts: &Facts) -> Option<String> {
    let Reference { kind, name, key } = reference;
    let here = overlay.of_kind(kind).find(|object| object.name() == *name);
    if let Some(object) = here {
        let key = (*key)?;
        let has = |part: &str| object.value[part].get(key).is_some();
        let lacks = !["data", "stringData", "binaryData"].into_iter().any(has);
        return lacks.then(|| format!("the {kind} {name} has no {key:?}"));
    }
    let by_operator = overlay.of_kind("Cluster").any(|cluster| {
        let of = |suffix: &str| *name == format!("{}-{suffix}", cluster.name());
        of("app") || of("ca")
    });
    let brought = facts.readme.contains(&format!("`{name}`"));
    let known = *kind == "Secret" && (by_operator || brought);
    (!known).then(|| {
        format!("there is no {kind} {name}, no operator makes it, and deploy/README.md does not say who does")
    })
}

fn volumes(spec: &Value, claims: &[&str]) -> Vec<String> {
    let mut there: Vec<_> = list(spec, "volumes")
        .map(|volume| text(volume.get("name")))
        .collect();
    there.extend(claims);
    let mounted: Vec<_> = containers(spec)
        .flat_map(|container| list(container, "volumeMounts"))
        .map(|mount| text(mount.get("name")))
        .collect();
    let missing = mounted.iter().filter(|name| !there.contains(name));
    let missing = missing.map(|name| format!("mounts the volume {name}, which it does not have"));
    let unused = there.iter().filter(|name| !mounted.contains(name));
    let unused = unused.map(|name| format!("has the volume {name}, which nothing mounts"));
    missing.chain(unused).collect()
}

/// The variables and options that name files which no volume brings.
fn lost<'a>(container: &'a Value, spec: &'a Value) -> impl Iterator<Item = String> + 'a {
    let brings = move |mount: &Value, file: &str| {
        let Some(within) = file
            .strip_prefix(text(mount.get("mountPath")))
            .and_then(|rest| rest.strip_prefix('/'))
        else {
            return false;
        };
        let name = text(mount.get("name"));
        let volume = list(spec, "volumes").find(|volume| text(volume.get("name")) == name);
        let chosen = volume.and_then(|volume| volume.pointer("/secret/items")?.as_array());
        chosen.is_none_or(|items| items.iter().any(|item| text(item.get("path")) == within))
    };
    let variables = list(container, "env")
        .map(|variable| (text(variable.get("name")), text(variable.get("value"))));
    let options = list(container, "args").filter_map(|word| word.as_str()?.split_once('='));
    let files = variables.chain(options).filter_map(|(name, value)| {
        // In a URL too, as `sslrootcert` is.
        let file = value.get(value.find(FILES)?..)?;
        Some((name, file.split('&').next()?))
    });
    files
        .filter(move |(_, file)| !list(container, "volumeMounts").any(|mount| brings(mount, file)))
        .map(|(name, file)| format!("{name} names {file}, which no volume brings"))
}

/// The variables whose values are secrets that stand in the manifest.
fn written(container: &Value) -> impl Iterator<Item = &str> {
    list(container, "env").filter_map(|variable| {
        let (name, value) = (text(variable.get("name")), text(variable.get("value")));
        let secret = SECRET.iter().any(|word| name.contains(word)) && !name.ends_with("_FILE");
        // A login in a URL: what stands before the @ comes from variables, or names a user alone.
        let login = value
            .split_once("://")
            .and_then(|(_, rest)| rest.split_once('@'));
        let password = login
            .and_then(|(login, _)| login.split_once(':'))
            .map(|(_, password)| password);
        let in_url = password.is_some_and(|password| !password.starts_with("$("));
        ((secret && !value.is_empty()) || in_url).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINE: &str = "
kind: Deployment
metadata: {name: a}
spec: {template: {spec: {
  volumes: [{name: ca, secret: {secretName: db-ca, items: [{key: ca.crt, path: ca.crt}]}}, {name: conf, configMap: {name: c}}],
  containers: [{volumeMounts: [{name: ca, mountPath: /etc/saga/db}, {name: conf, mountPath: /c}],
    args: [--rate=1, --ca=/etc/saga/db/ca.crt], env: [
    {name: TLS, value: 'sslrootcert=/etc/saga/db/ca.crt&a=b'},
    {name: PASSWORD, valueFrom: {secretKeyRef: {name: login, key: password}}},
    {name: NATS_PASSWORD_FILE, value: /a}, {name: URL, value: 'a://u:$(PASSWORD)@h'}]}]}}}
---
{kind: Secret, metadata: {name: login}, stringData: {password: a}}
---
{kind: ConfigMap, metadata: {name: c}, data: {a: b}}
---
{kind: Cluster, metadata: {name: db}, spec: {managed: {roles: [{passwordSecret: {name: brought}}]}}}
";

    fn found(yaml: &str) -> Vec<String> {
        let facts = Facts {
            readme: "bring `brought`".to_owned(),
            ..Facts::default()
        };
        broken(&Overlay::read("test", yaml).unwrap(), &facts)
    }

    #[test]
    fn what_is_there_is_left_alone() {
        assert_eq!(found(FINE), Vec::<String>::new());
    }

    #[test]
    fn what_is_missing_or_written_down_is_named() {
        for (from, to, said) in [
            ("key: password", "key: pass", "login has no \"pass\""),
            ("name: login, key", "name: logn, key", "no Secret logn"),
            (
                "configMap: {name: c}",
                "configMap: {name: d}",
                "no ConfigMap d",
            ),
            ("secretName: db-ca", "secretName: d-ca", "no Secret d-ca"),
            (
                "saga/db/ca.crt&",
                "saga/d/ca.crt&",
                "TLS names /etc/saga/d/ca.crt",
            ),
            (
                "--ca=/etc/saga/db",
                "--ca=/etc/saga/d",
                "--ca names /etc/saga/d/ca.crt",
            ),
            (
                "path: ca.crt}",
                "path: ca}",
                "TLS names /etc/saga/db/ca.crt",
            ),
            ("name: brought", "name: lost", "no Secret lost"),
            (
                ", {name: conf, mountPath: /c}],",
                "],",
                "conf, which nothing mounts",
            ),
            (
                ", {name: conf, mountPath: /c}],",
                ", {name: conf, mountPath: /c}, {name: x}],",
                "mounts the volume x",
            ),
            (
                "valueFrom: {secretKeyRef: {name: login, key: password}}",
                "value: hunter2",
                "PASSWORD is written",
            ),
            ("$(PASSWORD)@h", "hunter2@h", "URL is written down"),
        ] {
            assert!(FINE.contains(from), "{from}");
            let found = found(&FINE.replace(from, to));
            assert!(
                found.iter().any(|one| one.contains(said)),
                "{said}: {found:?}"
            );
        }
    }
}
