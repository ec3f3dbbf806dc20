//! Pods are within the restricted pod security standard, have no token of the API server, and a root file
//! system that they cannot write to. The namespace asks for the standard as well.

use serde_json::Value;

use crate::manifests::object::{Overlay, containers, list, text};

/// The volumes that the standard allows.
const VOLUMES: [&str; 8] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
];
const HOST: [&str; 3] = ["hostNetwork", "hostPID", "hostIPC"];
const ENFORCE: &str = "pod-security.kubernetes.io/enforce";

pub(super) fn broken(overlay: &Overlay) -> Vec<String> {
    let mut found = Vec::new();
    for object in &overlay.objects {
        let id = object.id();
        if object.kind() == "Namespace"
            && text(object.value["metadata"]["labels"].get(ENFORCE)) != "restricted"
        {
            found.push(format!("{id}: does not ask for the restricted standard"));
        }
        if let Some(spec) = object.pods().and_then(|pods| pods.spec) {
            let mut wrong = of_pod(spec);
            for container in containers(spec) {
                wrong.extend(of_container(container, spec));
            }
            found.extend(wrong.into_iter().map(|what| format!("{id}: {what}")));
        }
    }
    found
}

fn of_pod(spec: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let mut must = |fine: bool, what: &str| {
        if !fine {
            found.push(what.to_owned());
        }
    };
    must(
        !HOST.iter().any(|name| spec[name] == true),
        "shares a namespace with its host",
    );
    must(
        spec["automountServiceAccountToken"] == false,
        "gets a token of the API server",
    );
    let allowed = |volume: &Value| {
        let mut kinds = volume
            .as_object()
            .into_iter()
            .flatten()
            .map(|(kind, _)| kind);
        kinds.all(|kind| kind == "name" || VOLUMES.contains(&kind.as_str()))
    };
    must(
        list(spec, "volumes").all(allowed),
        "has a volume that the standard forbids",
    );
    found
}

fn of_container(container: &Value, spec: &Value) -> Vec<String> {
    let name = text(container.get("name"));
    let own = &container["securityContext"];
    // Where a container does not say, its pod's word counts.
    let of_both = |field: &str| {
        own.get(field)
            .or_else(|| spec["securityContext"].get(field))
            .cloned()
    };
    let mut found = Vec::new();
    let mut must = |fine: bool, what: &str| {
        if !fine {
            found.push(format!("the container {name} {what}"));
        }
    };
    must(own["privileged"] != true, "is privileged");
    must(
        own["allowPrivilegeEscalation"] == false,
        "may gain privileges",
    );
    must(
        own["readOnlyRootFilesystem"] == true,
        "may write to its root file system",
    );
    must(
        of_both("runAsNonRoot") == Some(true.into()),
        "may run as root",
    );
    let user = of_both("runAsUser").and_then(|user| user.as_u64());
    must(
        user.is_some_and(|user| user > 0),
        "does not say as which number of user it runs",
    );
    let seccomp = of_both("seccompProfile").unwrap_or_default();
    must(
        ["RuntimeDefault", "Localhost"].contains(&text(seccomp.get("type"))),
        "has no seccomp profile",
    );
    let capabilities = &own["capabilities"];
    must(
        list(capabilities, "drop").any(|one| one == "ALL"),
        "keeps capabilities",
    );
    must(
        list(capabilities, "add").all(|one| one == "NET_BIND_SERVICE"),
        "adds capabilities that the standard forbids",
    );
    must(
        list(container, "ports").all(|port| port.get("hostPort").is_none()),
        "takes a port of its host",
    );
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINE: &str = "
kind: Pod
metadata: {name: a}
spec:
  automountServiceAccountToken: false
  securityContext: {runAsNonRoot: true, runAsUser: 65532, seccompProfile: {type: RuntimeDefault}}
  volumes: [{name: a, emptyDir: {}}]
  containers:
    - name: c
      ports: [{containerPort: 1}]
      securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
---
{kind: Namespace, metadata: {name: a, labels: {pod-security.kubernetes.io/enforce: restricted}}}
";

    fn found(yaml: &str) -> Vec<String> {
        broken(&Overlay::read("test", yaml).unwrap())
    }

    #[test]
    fn a_restricted_pod_is_left_alone() {
        assert_eq!(found(FINE), Vec::<String>::new());
    }

    #[test]
    fn each_lack_of_restriction_is_named() {
        for (from, to, said) in [
            (
                "automountServiceAccountToken: false",
                "hostNetwork: false",
                "gets a token",
            ),
            ("spec:\n", "spec:\n  hostPID: true\n", "shares a namespace"),
            ("emptyDir", "hostPath", "volume that the standard forbids"),
            ("runAsNonRoot: true, ", "", "may run as root"),
            ("runAsUser: 65532", "runAsUser: 0", "number of user"),
            ("RuntimeDefault", "Unconfined", "no seccomp profile"),
            (
                "allowPrivilegeEscalation: false",
                "privileged: true",
                "is privileged",
            ),
            (
                "allowPrivilegeEscalation: false, ",
                "",
                "may gain privileges",
            ),
            (
                "readOnlyRootFilesystem: true, ",
                "",
                "may write to its root",
            ),
            ("{drop: [ALL]}", "{}", "keeps capabilities"),
            (
                "{drop: [ALL]}",
                "{drop: [ALL], add: [NET_ADMIN]}",
                "adds capabilities",
            ),
            ("containerPort: 1", "hostPort: 1", "a port of its host"),
            (
                "enforce: restricted",
                "enforce: baseline",
                "does not ask for",
            ),
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
