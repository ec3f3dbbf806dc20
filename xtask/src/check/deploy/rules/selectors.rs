//! Selectors match pods that there are, and what is named by name is there. A selector that matches nothing
//! is taken by every API server: the service then has no endpoint, and the policy protects nothing.

use serde_json::{Value, json};

use crate::manifests::object::{Labels, Object, Overlay, list, text};

/// Who puts this label on is invited, and not of the overlay.
const INVITATION: &str = "saga/client";

/// Kinds that are of no use without a selector.
const CHOOSING: [&str; 3] = ["Service", "PodDisruptionBudget", "PodMonitor"];

pub(super) fn broken(overlay: &Overlay) -> Vec<String> {
    let pods = overlay.pods();
    let mut found = Vec::new();
    for object in &overlay.objects {
        let id = object.id();
        if CHOOSING.contains(&object.kind()) && object.at("/spec/selector").is_none() {
            found.push(format!("{id}: has no selector, and so chooses nothing"));
        }
        for (place, selector) in selectors(object) {
            let matched = pods.iter().any(|pods| matches(&selector, &pods.labels));
            if !matched && !selector.to_string().contains(INVITATION) {
                found.push(format!("{id}: {place} matches no pods: {selector}"));
            }
        }
        if let (Some(selector), Some(own)) = (workload_selector(object), object.pods()) {
            for pods in &pods {
                let matched = matches(selector, &pods.labels);
                if pods.of == own.of && !matched {
                    found.push(format!("{id}: its selector does not match its own pods"));
                } else if pods.of != own.of && matched {
                    found.push(format!(
                        "{id}: its selector matches the pods of {} too",
                        pods.of
                    ));
                }
            }
        }
        for (place, kind, name) in names(object) {
            if !overlay.has(kind, name) {
                found.push(format!(
                    "{id}: {place} names the {kind} {name:?}, and there is none"
                ));
            }
        }
    }
    found
}

fn workload_selector(object: &Object) -> Option<&Value> {
    let selects = ["Deployment", "StatefulSet", "DaemonSet"].contains(&object.kind());
    selects.then(|| object.at("/spec/selector"))?
}

fn selectors(object: &Object) -> Vec<(&'static str, Value)> {
    let mut found = Vec::new();
    let mut add =
        |place, selector: Option<&Value>| found.extend(selector.map(|one| (place, one.clone())));
    match object.kind() {
        "Service" => {
            let labels = object.at("/spec/selector");
            let selector = labels.map(|labels| json!({ "matchLabels": labels }));
            add("its selector", selector.as_ref());
        }
        "PodDisruptionBudget" | "PodMonitor" => add("its selector", object.at("/spec/selector")),
        "NetworkPolicy" => {
            add("podSelector", object.at("/spec/podSelector"));
            for (side, peers) in [("ingress", "from"), ("egress", "to")] {
                let rules = list(&object.value["spec"], side);
                for peer in rules.flat_map(|rule| list(rule, peers)) {
                    // Another namespace's pods are not known here.
                    if peer.get("namespaceSelector").is_none() {
                        add("a peer's podSelector", peer.get("podSelector"));
                    }
                }
            }
        }
        _ => {}
    }
    if let Some(spec) = object.pods().and_then(|pods| pods.spec) {
        for constraint in list(spec, "topologySpreadConstraints") {
            add("a spread's labelSelector", constraint.get("labelSelector"));
        }
    }
    found
}

/// What is named by name, in this overlay.
fn names(object: &Object) -> Vec<(&'static str, &'static str, &str)> {
    match object.kind() {
        "ScaledObject" => vec![(
            "scaleTargetRef",
            "Deployment",
            object.text("/spec/scaleTargetRef/name"),
        )],
        "StatefulSet" => vec![("serviceName", "Service", object.text("/spec/serviceName"))],
        "ScheduledBackup" => vec![("cluster", "Cluster", object.text("/spec/cluster/name"))],
        "Deployment" => vec![(
            "serviceAccountName",
            "ServiceAccount",
            object.text("/spec/template/spec/serviceAccountName"),
        )],
        _ => Vec::new(),
    }
}

/// Whether a label selector takes pods with these labels. The empty one takes all.
pub(super) fn matches(selector: &Value, labels: &Labels) -> bool {
    let wanted = selector.get("matchLabels").and_then(Value::as_object);
    let equal = wanted
        .into_iter()
        .flatten()
        .all(|(key, value)| labels.get(key).map(String::as_str) == value.as_str());
    equal
        && list(selector, "matchExpressions").all(|expression| {
            let value = labels.get(text(expression.get("key")));
            let among = value.is_some_and(|value| {
                list(expression, "values").any(|one| one.as_str() == Some(value))
            });
            match text(expression.get("operator")) {
                "In" => among,
                "NotIn" => !among,
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINE: &str = "
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: a}
spec:
  serviceName: a
  selector: {matchLabels: {app: a}}
  template:
    metadata: {labels: {app: a}}
    spec: {containers: []}
---
{kind: Service, metadata: {name: a}, spec: {selector: {app: a}}}
---
{kind: NetworkPolicy, metadata: {name: a}, spec: {podSelector: {}, ingress: [{from: [
  {podSelector: {matchLabels: {saga/client: 'true'}}},
  {podSelector: {matchLabels: {app: z}}, namespaceSelector: {}},
  {podSelector: {matchExpressions: [{key: app, operator: In, values: [a]}]}}]}]}}
---
{kind: PodDisruptionBudget, metadata: {name: a}, spec: {selector: {matchLabels: {app: a}}}}
";

    fn found(yaml: &str) -> Vec<String> {
        broken(&Overlay::read("test", yaml).unwrap())
    }

    #[test]
    fn what_matches_is_left_alone() {
        assert_eq!(found(FINE), Vec::<String>::new());
    }

    #[test]
    fn what_matches_nothing_is_named() {
        for (from, to, said) in [
            (
                "selector: {app: a}",
                "selector: {app: b}",
                "Service a: its selector matches no",
            ),
            (
                "values: [a]",
                "values: [b]",
                "a peer's podSelector matches no",
            ),
            (
                "podSelector: {}",
                "podSelector: {matchLabels: {b: a}}",
                "podSelector matches no",
            ),
            (
                "{selector: {matchLabels: {app: a}}}",
                "{selector: {matchLabels: {app: b}}}",
                "PodDisruptionBudget a",
            ),
            (
                "labels: {app: a}",
                "labels: {app: a2}",
                "does not match its own pods",
            ),
            (
                "serviceName: a",
                "serviceName: b",
                "names the Service \"b\"",
            ),
        ] {
            assert!(FINE.contains(from), "{from}");
            let found = found(&FINE.replace(from, to));
            assert!(
                found.iter().any(|one| one.contains(said)),
                "{said}: {found:?}"
            );
        }
        let twice = format!(
            "{FINE}---\n{}",
            FINE.split("---")
                .next()
                .unwrap()
                .replace("name: a", "name: b")
        );
        assert!(
            found(&twice)
                .iter()
                .any(|one| one.contains("matches the pods of"))
        );
    }
}
