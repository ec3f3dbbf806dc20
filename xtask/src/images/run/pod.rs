//! A manifest's pods as containers to be started: what a kubelet would make of them, as far as these manifests go.
//! What is not understood is an error, so that nothing of a manifest is passed over in silence; what podman has
//! nothing for stands in docs/load.md.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::objects;
use crate::manifests::object::{Labels, Object, Overlay, labels, list, text};

/// A container with everything that its manifest says of it. Each pod here has one.
#[derive(Clone, Debug)]
pub(super) struct Container {
    /// The pod's name, such as `order-service-0`.
    pub(super) pod: String,
    /// The workload's, such as `order-service`.
    pub(super) of: String,
    pub(super) image: String,
    /// The names under which others find it.
    pub(super) aliases: Vec<String>,
    pub(super) user: String,
    pub(super) environment: Vec<(String, String)>,
    pub(super) arguments: Vec<String>,
    pub(super) ports: Vec<u64>,
    pub(super) volumes: Vec<(String, Volume)>,
    /// As podman writes it: `64m` are 64 MiB.
    pub(super) memory: Option<String>,
    /// From the signal to the end.
    pub(super) grace_seconds: u64,
    pub(super) ready: Option<Ready>,
    /// Runs to its end, and is not kept running.
    pub(super) ends: bool,
}

/// What is mounted at a path.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Volume {
    /// Files that it may read.
    Files(BTreeMap<String, Vec<u8>>),
    /// Room of its own, under this name.
    Room(String),
}

/// How a container is asked whether it is ready.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Ready {
    Command(Vec<String>),
    Page {
        port: u64,
        path: String,
    },
    /// By gRPC's health service, which nobody here speaks: `/healthy` asks for the page with the same answer.
    Grpc,
}

/// Every container of the overlay's workloads, as often as it has replicas.
pub(super) fn containers(overlay: &Overlay) -> Result<Vec<Container>> {
    let mut found = Vec::new();
    for object in &overlay.objects {
        let ends = match object.kind() {
            "Deployment" | "StatefulSet" => false,
            "Job" => true,
            "Pod" | "DaemonSet" | "CronJob" => {
                bail!("{}: pods of its kind are not run", object.id())
            }
            _ => continue,
        };
        for number in 0..replicas(object, overlay) {
            let one = container(object, number, ends, overlay);
            found.push(one.with_context(|| object.id())?);
        }
    }
    Ok(found)
}

/// As many as it has, or as KEDA leaves it when there is nothing to do.
fn replicas(object: &Object, overlay: &Overlay) -> u64 {
    let mut scaled = overlay.of_kind("ScaledObject");
    let scaled = scaled.find(|scaled| scaled.text("/spec/scaleTargetRef/name") == object.name());
    let least = scaled.and_then(|scaled| scaled.at("/spec/minReplicaCount"));
    let own = least.or_else(|| object.at("/spec/replicas"));
    own.and_then(Value::as_u64).unwrap_or(1)
}

fn container(object: &Object, number: u64, ends: bool, overlay: &Overlay) -> Result<Container> {
    let template = object.at("/spec/template").context("no template")?;
    let spec = &template["spec"];
    let mut all = list(spec, "containers");
    let (Some(one), None) = (all.next(), all.next()) else {
        bail!("more or less than one container in a pod");
    };
    for unknown in [
        "/initContainers",
        "/hostNetwork",
        "/containers/0/command",
        "/containers/0/envFrom",
    ] {
        ensure!(
            spec.pointer(unknown).is_none(),
            "{unknown} is not understood here"
        );
    }
    restricted(one)?;
    let pod = match ends {
        true => object.name().to_owned(),
        false => format!("{}-{number}", object.name()),
    };
    let ports: Vec<_> = list(one, "ports").collect();
    let security = &spec["securityContext"];
    let ready = one.get("readinessProbe");
    Ok(Container {
        aliases: aliases(
            object,
            &labels(template.pointer("/metadata/labels")),
            &pod,
            &ports,
            overlay,
        )?,
        of: object.name().to_owned(),
        image: text(one.get("image")).to_owned(),
        user: format!("{}:{}", security["runAsUser"], security["runAsGroup"]),
        environment: environment(one, &pod, overlay)?,
        arguments: words(one, "args"),
        ports: ports
            .iter()
            .filter_map(|port| port["containerPort"].as_u64())
            .collect(),
        volumes: volumes(object, spec, one, &pod, overlay)?,
        memory: one
            .pointer("/resources/limits/memory")
            .map(|bytes| mebibytes(text(Some(bytes))))
            .transpose()?,
        grace_seconds: spec["terminationGracePeriodSeconds"].as_u64().unwrap_or(30),
        ready: ready.map(|probe| asked(probe, &ports)).transpose()?,
        ends,
        pod,
    })
}

fn words(value: &Value, name: &str) -> Vec<String> {
    let words = list(value, name).map(|word| text(Some(word)).to_owned());
    words.collect()
}

/// What is started below is started so: a manifest that grants more is not.
fn restricted(container: &Value) -> Result<()> {
    let context = &container["securityContext"];
    let fine = context["readOnlyRootFilesystem"] == true
        && context["allowPrivilegeEscalation"] == false
        && context["capabilities"] == serde_json::json!({ "drop": ["ALL"] });
    ensure!(
        fine,
        "its security context is not that of the restricted standard"
    );
    Ok(())
}

fn asked(probe: &Value, ports: &[&Value]) -> Result<Ready> {
    if let Some(page) = probe.get("httpGet") {
        let port = &page["port"];
        let mut own = ports.iter();
        let own = own.find(|own| own["name"] == *port || own["containerPort"] == *port);
        let port = own.and_then(|own| own["containerPort"].as_u64());
        let port = port.context("a probe of a port that it does not have")?;
        return Ok(Ready::Page {
            port,
            path: text(page.get("path")).to_owned(),
        });
    }
    if let Some(command) = probe.pointer("/exec") {
        return Ok(Ready::Command(words(command, "command")));
    }
    ensure!(
        probe.get("grpc").is_some(),
        "a probe that is not understood here"
    );
    Ok(Ready::Grpc)
}

/// The services that choose the pod; and of one without an address, the pod's own name within it.
fn aliases(
    object: &Object,
    own: &Labels,
    pod: &str,
    ports: &[&Value],
    overlay: &Overlay,
) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for service in overlay.of_kind("Service") {
        let chosen = labels(service.at("/spec/selector"));
        if chosen.is_empty()
            || !chosen
                .iter()
                .all(|(key, value)| own.get(key) == Some(value))
        {
            continue;
        }
        for port in list(&service.value["spec"], "ports") {
            let target = port.get("targetPort").unwrap_or(&port["port"]);
            let same = |own: &&Value| {
                own["containerPort"] == port["port"]
                    && (own["name"] == *target || own["containerPort"] == *target)
            };
            ensure!(
                ports.iter().any(same),
                "{} maps ports, which names alone cannot",
                service.id()
            );
        }
        found.push(service.name().to_owned());
        if object.text("/spec/serviceName") == service.name() {
            found.push(format!("{pod}.{}", service.name()));
        }
    }
    Ok(found)
}

/// With what they refer to, and `$(NAME)` by what stands above.
fn environment(container: &Value, pod: &str, overlay: &Overlay) -> Result<Vec<(String, String)>> {
    let mut found: Vec<(String, String)> = Vec::new();
    for variable in list(container, "env") {
        let name = text(variable.get("name")).to_owned();
        let value = match variable.get("valueFrom") {
            None => {
                let given = text(variable.get("value")).to_owned();
                found.iter().fold(given, |value, (name, of)| {
                    value.replace(&format!("$({name})"), of)
                })
            }
            Some(from) if from.pointer("/fieldRef/fieldPath") == Some(&"metadata.name".into()) => {
                pod.to_owned()
            }
            Some(from) => {
                let secret = from
                    .get("secretKeyRef")
                    .with_context(|| format!("{name} is not understood here"))?;
                let bytes = objects::value(
                    overlay,
                    "Secret",
                    text(secret.get("name")),
                    text(secret.get("key")),
                )?;
                String::from_utf8(bytes).with_context(|| format!("{name} is no text"))?
            }
        };
        found.push((name, value));
    }
    Ok(found)
}

fn volumes(
    object: &Object,
    spec: &Value,
    container: &Value,
    pod: &str,
    overlay: &Overlay,
) -> Result<Vec<(String, Volume)>> {
    let claims: Vec<_> = list(&object.value["spec"], "volumeClaimTemplates")
        .map(|claim| text(claim.pointer("/metadata/name")))
        .collect();
    let mut found = Vec::new();
    for mount in list(container, "volumeMounts") {
        let name = text(mount.get("name"));
        let mut all = list(spec, "volumes");
        let volume = all.find(|volume| text(volume.get("name")) == name);
        let volume = match volume {
            Some(volume) if volume.get("emptyDir").is_none() => {
                Volume::Files(files(volume, overlay)?)
            }
            None if !claims.contains(&name) => bail!("the volume {name} is not there"),
            _ => Volume::Room(format!("{pod}-{name}")),
        };
        found.push((text(mount.get("mountPath")).to_owned(), volume));
    }
    Ok(found)
}

fn files(volume: &Value, overlay: &Overlay) -> Result<BTreeMap<String, Vec<u8>>> {
    let (kind, from) = match (
        volume.get("secret"),
        volume.get("configMap"),
        volume.get("projected"),
    ) {
        (Some(secret), ..) => (
            "Secret",
            text(secret.get("secretName").or_else(|| secret.get("name"))),
        ),
        (_, Some(map), _) => ("ConfigMap", text(map.get("name"))),
        (.., Some(several)) => {
            let each = list(several, "sources").map(|source| files(source, overlay));
            let each = each.collect::<Result<Vec<_>>>()?;
            return Ok(each.into_iter().flatten().collect());
        }
        _ => bail!("a volume that is not understood here: {volume}"),
    };
    let all = objects::values(overlay, kind, from)?;
    let part = volume.get("secret").or_else(|| volume.get("configMap"));
    let chosen: Vec<_> = list(part.unwrap_or(&Value::Null), "items").collect();
    if chosen.is_empty() {
        return Ok(all);
    }
    let each = chosen.iter().map(|item| {
        let bytes = all.get(text(item.get("key"))).cloned();
        let bytes = bytes.with_context(|| format!("the {kind} {from} has no {}", item["key"]))?;
        Ok((text(item.get("path")).to_owned(), bytes))
    });
    each.collect()
}

fn mebibytes(quantity: &str) -> Result<String> {
    let units = [("Mi", "m"), ("Gi", "g")];
    let found = units
        .iter()
        .find_map(|(unit, podmans)| Some(format!("{}{podmans}", quantity.strip_suffix(unit)?)));
    found.with_context(|| format!("memory of {quantity:?} is not understood here"))
}

#[cfg(test)]
mod tests;
