use super::*;

const SERVICES: &str = "
{kind: Service, metadata: {name: a}, spec: {selector: {of: a}, ports: [{port: 1, targetPort: one}]}}
---
{kind: Service, metadata: {name: headless}, spec: {selector: {of: a}, ports: [{port: 1}]}}
---
{kind: Service, metadata: {name: other}, spec: {selector: {of: b}, ports: [{port: 1}]}}
---
{kind: Secret, metadata: {name: login}, data: {user: QWRh, password: c2VjcmV0}}
---
{kind: ConfigMap, metadata: {name: settings}, data: {a.conf: 'a = 1'}}
";
const WORKLOAD: &str = "
kind: StatefulSet
metadata: {name: a}
spec:
  replicas: 2
  serviceName: headless
  template:
    metadata: {labels: {of: a, more: b}}
    spec:
      terminationGracePeriodSeconds: 7
      securityContext: {runAsUser: 5, runAsGroup: 6}
      containers:
        - image: i:1
          args: [--flag]
          ports: [{containerPort: 1, name: one}]
          env:
            - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
            - {name: WHO, valueFrom: {secretKeyRef: {name: login, key: user}}}
            - {name: URL, value: 'x://$(WHO)@$(POD)/$(LATER)'}
          readinessProbe: {httpGet: {path: /ready, port: one}}
          resources: {limits: {memory: 64Mi}}
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: {drop: [ALL]}
          volumeMounts:
            - {name: login, mountPath: /login}
            - {name: all, mountPath: /all}
            - {name: data, mountPath: /data}
      volumes:
        - {name: login, secret: {secretName: login, items: [{key: password, path: pw}]}}
        - {name: all, projected: {sources: [{configMap: {name: settings}}, {secret: {name: login}}]}}
  volumeClaimTemplates: [{metadata: {name: data}}]
";

fn read(workload: &str) -> Result<Vec<Container>> {
    containers(&Overlay::read("test", &format!("{SERVICES}---{workload}"))?)
}

#[test]
fn a_container_gets_what_its_manifest_says() {
    let found = read(WORKLOAD).unwrap();
    assert_eq!(found.len(), 2, "replicas");
    let one = &found[1];
    assert_eq!(
        (one.pod.as_str(), one.image.as_str(), one.user.as_str()),
        ("a-1", "i:1", "5:6")
    );
    assert_eq!(one.aliases, ["a", "headless", "a-1.headless"]);
    let environment: Vec<_> = one
        .environment
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    assert_eq!(
        environment,
        ["POD=a-1", "WHO=Ada", "URL=x://Ada@a-1/$(LATER)"]
    );
    assert_eq!(
        (one.memory.as_deref(), one.grace_seconds, one.ends),
        (Some("64m"), 7, false)
    );
    assert_eq!(
        one.ready,
        Some(Ready::Page {
            port: 1,
            path: "/ready".to_owned()
        })
    );
    let files = |index: usize| match &one.volumes[index].1 {
        Volume::Files(files) => files.keys().cloned().collect::<Vec<_>>(),
        Volume::Room(name) => vec![name.clone()],
    };
    assert_eq!(files(0), ["pw"]);
    assert_eq!(files(1), ["a.conf", "password", "user"]);
    assert_eq!(files(2), ["a-1-data"]);
}

#[test]
fn who_is_scaled_by_keda_has_as_many_replicas_as_it_leaves() {
    let scaled = "{kind: ScaledObject, spec: {scaleTargetRef: {name: a}, minReplicaCount: 3}}";
    let found = read(&format!("{WORKLOAD}---\n{scaled}")).unwrap();
    assert_eq!(found.len(), 3);
}

#[test]
fn what_is_not_understood_or_not_there_is_an_error() {
    for (from, to) in [
        ("- image: i:1", "- {}\n        - image: i:1"),
        ("image: i:1", "image: i:1\n          command: [sh]"),
        (
            "spec:\n      termination",
            "spec:\n      hostNetwork: true\n      termination",
        ),
        ("drop: [ALL]", "drop: []"),
        (
            "readOnlyRootFilesystem: true",
            "readOnlyRootFilesystem: false",
        ),
        ("memory: 64Mi", "memory: 64k"),
        ("{name: login, key: user}", "{name: login, key: nobody}"),
        ("secretName: login", "secretName: nobody"),
        ("key: password", "key: nothing"),
        (
            "mountPath: /data",
            "mountPath: /data}\n            - {name: nowhere, mountPath: /x",
        ),
        ("containerPort: 1", "containerPort: 2"),
        (
            "httpGet: {path: /ready, port: one}",
            "tcpSocket: {port: one}",
        ),
        ("port: one}", "port: two}"),
        ("kind: StatefulSet", "kind: DaemonSet"),
    ] {
        assert!(WORKLOAD.contains(from), "{from}");
        assert!(read(&WORKLOAD.replacen(from, to, 1)).is_err(), "{to}");
    }
}
