//! Ports go where somebody listens: services' to containers', probes' and policies' to the pods' own,
//! containers' to what the binary is set to listen on, and URLs' to a service with that port.

use serde_json::Value;

use super::{binary, selectors};
use crate::check::deploy::facts::Facts;
use crate::manifests::object::{Object, Overlay, Pods, containers, list, text};

/// The variables that say where a binary listens, and the name that its port has.
const LISTENERS: [(&str, &str); 2] = [("GRPC_LISTEN", "grpc"), ("ADMIN_LISTEN", "admin")];
/// The variables that name services of the namespace, in URLs.
const PEERS: [&str; 3] = ["DATABASE_URL", "MIGRATIONS_DATABASE_URL", "NATS_URL"];

pub(super) fn broken(overlay: &Overlay, facts: &Facts) -> Vec<String> {
    let pods = overlay.pods();
    let mut found = Vec::new();
    for object in &overlay.objects {
        let mut wrong = match object.kind() {
            "Service" => service(object, &pods),
            "NetworkPolicy" => policy(object, &pods),
            "PodMonitor" => monitor(object, &pods),
            _ => Vec::new(),
        };
        if let Some(pods) = object.pods() {
            for container in pods.spec.into_iter().flat_map(containers) {
                wrong.extend(probes(container));
                if let Some(name) = binary(text(container.get("image")), facts) {
                    wrong.extend(listeners(container, name, facts));
                    wrong.extend(peers(container, overlay));
                }
            }
        }
        let id = object.id();
        found.extend(wrong.into_iter().map(|what| format!("{id}: {what}")));
    }
    found
}

fn listens(pods: &Pods<'_>, port: &Value) -> bool {
    let mut ports = pods.ports.iter();
    match port {
        Value::String(name) => ports.any(|(_, own)| own == name),
        number => ports.any(|(own, _)| Some(*own) == number.as_u64()),
    }
}

fn service(object: &Object, pods: &[Pods<'_>]) -> Vec<String> {
    let selector = serde_json::json!({ "matchLabels": object.at("/spec/selector") });
    let behind: Vec<_> = pods
        .iter()
        .filter(|pods| selectors::matches(&selector, &pods.labels))
        .collect();
    let ports = list(&object.value["spec"], "ports");
    ports
        .map(|port| port.get("targetPort").unwrap_or(&port["port"]))
        .filter(|target| !behind.iter().all(|pods| listens(pods, target)))
        .map(|target| format!("its pods do not listen on {target}"))
        .collect()
}

/// Ingress goes to ports of the chosen pods, egress to ports of the peers that are known here.
fn policy(object: &Object, pods: &[Pods<'_>]) -> Vec<String> {
    let mut found = Vec::new();
    let chosen = |selector: &Value| -> Vec<&Pods<'_>> {
        let fits = |pods: &&Pods<'_>| selectors::matches(selector, &pods.labels);
        pods.iter().filter(fits).collect()
    };
    let spec = &object.value["spec"];
    let own = chosen(&spec["podSelector"]);
    for (side, peers) in [("ingress", "from"), ("egress", "to")] {
        for rule in list(spec, side) {
            let known = list(rule, peers).filter(|peer| peer.get("namespaceSelector").is_none());
            let known = known.filter_map(|peer| peer.get("podSelector"));
            let reached = match side {
                "ingress" => own.clone(),
                _ => known.flat_map(chosen).collect(),
            };
            for port in list(rule, "ports").filter_map(|port| port.get("port")) {
                if !reached.is_empty() && !reached.iter().any(|pods| listens(pods, port)) {
                    found.push(format!(
                        "{side} to port {port}, on which nobody there listens"
                    ));
                }
            }
        }
    }
    found
}

fn monitor(object: &Object, pods: &[Pods<'_>]) -> Vec<String> {
    let selector = &object.value["spec"]["selector"];
    let mut found = Vec::new();
    for port in list(&object.value["spec"], "podMetricsEndpoints").filter_map(|one| one.get("port"))
    {
        let scraped = pods
            .iter()
            .filter(|pods| selectors::matches(selector, &pods.labels));
        for pods in scraped.filter(|pods| !listens(pods, port)) {
            found.push(format!("{} has no port {port} to scrape", pods.of));
        }
    }
    found
}

fn probes(container: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
        for way in ["grpc", "httpGet", "tcpSocket"] {
            let Some(port) = container.pointer(&format!("/{probe}/{way}/port")) else {
                continue;
            };
            let mut ports = list(container, "ports");
            if !ports
                .any(|own| own.get("containerPort") == Some(port) || own.get("name") == Some(port))
            {
                found.push(format!(
                    "{probe} asks port {port}, which the container does not have"
                ));
            }
            if way == "grpc" && variable(container, "GRPC_TLS_CERT").is_some() {
                found.push(format!(
                    "{probe} asks by gRPC, which is over TLS here, and the kubelet speaks none"
                ));
            }
        }
    }
    found
}

/// A variable's value in a container.
pub(super) fn variable<'a>(container: &'a Value, name: &str) -> Option<&'a str> {
    let mut variables = list(container, "env");
    let found = variables.find(|one| text(one.get("name")) == name)?;
    found.get("value")?.as_str()
}

fn listeners(container: &Value, binary: &str, facts: &Facts) -> Vec<String> {
    let mut found = Vec::new();
    let known = &facts.variables[binary];
    for (name, port_name) in LISTENERS {
        let Some(default) = known.get(name) else {
            continue;
        };
        let address = variable(container, name).unwrap_or(default);
        let listened = address
            .rsplit(':')
            .next()
            .and_then(|port| port.parse::<u64>().ok());
        let mut ports = list(container, "ports");
        let declared = ports.find(|port| text(port.get("name")) == port_name);
        let declared = declared.and_then(|port| port["containerPort"].as_u64());
        if declared != listened {
            found.push(format!(
                "{binary} listens on {address} by {name}, and its port {port_name:?} is {declared:?}"
            ));
        }
    }
    found
}

fn peers(container: &Value, overlay: &Overlay) -> Vec<String> {
    let mut found = Vec::new();
    for name in PEERS {
        let urls = variable(container, name).unwrap_or_default().split(',');
        for url in urls.filter(|url| !url.is_empty()) {
            // After the login, of which a password in a variable may hold anything.
            let address = url.rsplit('@').next().unwrap_or(url);
            let address = address.rsplit("//").next().unwrap_or(address);
            let address = address.split(['/', '?']).next().unwrap_or(address);
            let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
            if !serves(overlay, host, port) {
                found.push(format!("{name} goes to {address}, where no service is"));
            }
        }
    }
    found
}

/// Whether a service of the overlay, an operator or the chart of NATS has this name and port.
fn serves(overlay: &Overlay, host: &str, port: &str) -> bool {
    let by_chart = !overlay.has("StatefulSet", "nats")
        && port == "4222"
        && (host == "nats" || host.ends_with(".nats-headless"));
    let by_operator = port == "5432"
        && overlay
            .of_kind("Cluster")
            .any(|cluster| host == format!("{}-rw", cluster.name()));
    by_chart
        || by_operator
        || overlay.of_kind("Service").any(|service| {
            let mut ports = list(&service.value["spec"], "ports");
            service.name() == host && ports.any(|own| own["port"].as_u64() == port.parse().ok())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINE: &str = "
kind: Deployment
metadata: {name: a}
spec:
  template:
    metadata: {labels: {app: a}}
    spec:
      containers:
        - image: x/order-service:0.1.0
          ports: [{name: grpc, containerPort: 50051}, {name: admin, containerPort: 9090}]
          env:
            - {name: NATS_URL, value: 'nats://a:50051'}
            - {name: DATABASE_URL, value: 'postgres://$(U):$(P)@db-rw:5432/a?b=c'}
          livenessProbe: {grpc: {port: 50051}}
          readinessProbe: {httpGet: {port: admin}}
---
{kind: Service, metadata: {name: a}, spec: {selector: {app: a}, ports: [{port: 50051, targetPort: grpc}]}}
---
{kind: Cluster, metadata: {name: db}, spec: {inheritedMetadata: {labels: {db: a}}}}
---
{kind: NetworkPolicy, metadata: {name: a}, spec: {podSelector: {matchLabels: {app: a}},
  ingress: [{ports: [{port: 9090}]}], egress: [{to: [{podSelector: {matchLabels: {db: a}}}], ports: [{port: 5432}]}]}}
---
{kind: PodMonitor, metadata: {name: a}, spec: {selector: {matchLabels: {app: a}}, podMetricsEndpoints: [{port: admin}]}}
";

    fn found(yaml: &str) -> Vec<String> {
        let defaults = [
            ("GRPC_LISTEN", "0.0.0.0:50051"),
            ("ADMIN_LISTEN", "0.0.0.0:9090"),
        ];
        let defaults = defaults.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let facts = Facts {
            variables: [("order-service".to_owned(), defaults.into())].into(),
            ..Facts::default()
        };
        broken(&Overlay::read("test", yaml).unwrap(), &facts)
    }

    #[test]
    fn ports_that_meet_are_left_alone() {
        assert_eq!(found(FINE), Vec::<String>::new());
    }

    #[test]
    fn ports_that_miss_are_named() {
        for (from, to, said) in [
            (
                "targetPort: grpc",
                "targetPort: grcp",
                "do not listen on \"grcp\"",
            ),
            (
                "grpc: {port: 50051}",
                "grpc: {port: 50052}",
                "livenessProbe asks port 50052",
            ),
            (
                "{name: NATS_URL,",
                "{name: GRPC_TLS_CERT, value: a}\n            - {name: NATS_URL,",
                "livenessProbe asks by gRPC, which is over TLS",
            ),
            (
                "httpGet: {port: admin}",
                "httpGet: {port: web}",
                "readinessProbe asks port \"web\"",
            ),
            (
                "name: admin, containerPort: 9090",
                "name: admin, containerPort: 9091",
                "by ADMIN_LISTEN",
            ),
            ("[{port: 9090}]", "[{port: 9}]", "ingress to port 9"),
            ("[{port: 5432}]", "[{port: 5433}]", "egress to port 5433"),
            (
                "[{port: admin}]",
                "[{port: adm}]",
                "no port \"adm\" to scrape",
            ),
            ("nats://a:50051", "nats://a:4222", "NATS_URL goes to a:4222"),
            (
                "@db-rw:5432",
                "@db-r:5432",
                "DATABASE_URL goes to db-r:5432",
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
