//! Pods may be moved and are not killed in the middle of something: budgets that let a drain go on, grace
//! periods that cover preStop and the binary's own deadline, and probes by which an outage of a peer does
//! not become a restart.

use serde_json::Value;

use super::{binary, ports, selectors};
use crate::check::deploy::facts::Facts;
use crate::manifests::object::{Object, Overlay, containers, text};

/// What the kubelet and the runtime take besides.
const MARGIN_SECONDS: u64 = 5;
const DEADLINE: &str = "SHUTDOWN_DEADLINE_SECONDS";
/// What answers for the process alone.
const ALIVE: [(&str, &str); 2] = [("grpc/service", "liveness"), ("httpGet/path", "/livez")];

pub(super) fn broken(overlay: &Overlay, facts: &Facts) -> Vec<String> {
    let mut found = Vec::new();
    // A Job serves nobody, and ends by itself.
    for object in overlay.objects.iter().filter(|one| one.kind() != "Job") {
        let Some(pods) = object.pods() else {
            continue;
        };
        let Some(spec) = pods.spec else {
            continue;
        };
        let mut wrong = Vec::new();
        for container in containers(spec) {
            if let Some(binary) = binary(text(container.get("image")), facts) {
                wrong.extend(grace(container, spec, &facts.variables[binary]));
                wrong.extend(probes(container));
                wrong.extend(budget(object, overlay));
            }
        }
        let id = object.id();
        found.extend(wrong.into_iter().map(|what| format!("{id}: {what}")));
    }
    found
}

fn grace(
    container: &Value,
    spec: &Value,
    known: &std::collections::BTreeMap<String, String>,
) -> Option<String> {
    let given = spec["terminationGracePeriodSeconds"].as_u64().unwrap_or(30);
    let before = container.pointer("/lifecycle/preStop/sleep/seconds");
    let before = before.and_then(Value::as_u64).unwrap_or_default();
    let default = known.get(DEADLINE).map(String::as_str);
    let deadline = ports::variable(container, DEADLINE).or(default);
    let Some(deadline) = deadline.and_then(|deadline| deadline.parse::<u64>().ok()) else {
        return Some(format!("{DEADLINE} is no number"));
    };
    let needed = before + deadline + MARGIN_SECONDS;
    (given < needed).then(|| {
        format!("a grace period of {given} s; preStop, {DEADLINE} and a margin need {needed} s")
    })
}

fn probes(container: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        let Some(asked) = container.get(probe) else {
            found.push(format!("has no {probe}"));
            continue;
        };
        let alone = ALIVE.iter().any(|(place, answer)| {
            asked.pointer(&format!("/{place}")).and_then(Value::as_str) == Some(answer)
        });
        if alone && probe == "readinessProbe" {
            found.push(format!("its {probe} does not look at its peers"));
        } else if !alone && probe != "readinessProbe" {
            found.push(format!(
                "its {probe} depends on its peers: their outage would restart it"
            ));
        }
    }
    found
}

/// Every workload of ours has one budget, which lets one pod go.
fn budget(object: &Object, overlay: &Overlay) -> Option<String> {
    let pods = object.pods()?;
    let mut budgets = overlay
        .of_kind("PodDisruptionBudget")
        .filter(|budget| selectors::matches(&budget.value["spec"]["selector"], &pods.labels));
    let Some(budget) = budgets.next() else {
        return Some("has no PodDisruptionBudget".to_owned());
    };
    if budgets.next().is_some() {
        return Some("has two PodDisruptionBudgets, and then no pod can be evicted".to_owned());
    }
    // Who has no number of replicas is scaled by somebody, and not below two.
    let replicas = object.at("/spec/replicas").map_or(Some(2), Value::as_u64)?;
    let allowed = match (
        budget.at("/spec/maxUnavailable"),
        budget.at("/spec/minAvailable"),
    ) {
        (Some(most), _) => most.as_u64().unwrap_or_default(),
        (_, Some(least)) => replicas.saturating_sub(least.as_u64().unwrap_or(replicas)),
        _ => 0,
    };
    (allowed == 0 || replicas < 2).then(|| {
        format!(
            "with {replicas} replicas and its budget, a drain would wait for ever, or stop the work"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINE: &str = "
kind: Deployment
metadata: {name: a}
spec:
  replicas: 2
  template:
    metadata: {labels: {app: a}}
    spec:
      terminationGracePeriodSeconds: 35
      containers:
        - image: cdc-relay
          lifecycle: {preStop: {sleep: {seconds: 5}}}
          startupProbe: {grpc: {port: 1, service: liveness}}
          livenessProbe: {httpGet: {path: /livez}}
          readinessProbe: {grpc: {port: 1}}
---
{kind: PodDisruptionBudget, metadata: {name: a}, spec: {maxUnavailable: 1, selector: {matchLabels: {app: a}}}}
";

    fn found(yaml: &str) -> Vec<String> {
        let known = [(DEADLINE.to_owned(), "25".to_owned())].into();
        let facts = Facts {
            variables: [("cdc-relay".to_owned(), known)].into(),
            ..Facts::default()
        };
        broken(&Overlay::read("test", yaml).unwrap(), &facts)
    }

    #[test]
    fn what_can_be_moved_is_left_alone() {
        assert_eq!(found(FINE), Vec::<String>::new());
        let job = FINE.replace("kind: Deployment", "kind: Job");
        assert_eq!(
            found(&job.replace("Probe", "Nothing")),
            Vec::<String>::new()
        );
    }

    #[test]
    fn what_is_killed_or_cannot_be_moved_is_named() {
        for (from, to, said) in [
            ("Seconds: 35", "Seconds: 34", "a grace period of 34 s"),
            ("seconds: 5", "seconds: 6", "need 36 s"),
            (
                "path: /livez",
                "path: /readyz",
                "livenessProbe depends on its peers",
            ),
            (
                ", service: liveness",
                "",
                "startupProbe depends on its peers",
            ),
            (
                "readinessProbe: {grpc: {port: 1}}",
                "readinessProbe: {httpGet: {path: /livez}}",
                "does not look at",
            ),
            ("livenessProbe", "otherProbe", "has no livenessProbe"),
            ("{app: a}}}}", "{app: b}}}}", "has no PodDisruptionBudget"),
            ("maxUnavailable: 1", "minAvailable: 2", "a drain would wait"),
            ("replicas: 2", "replicas: 1", "a drain would wait"),
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
