//! The objects that an overlay builds, and the pods that they make.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use serde_json::Value;

use super::yaml;

/// Everything that one overlay builds.
#[derive(Debug)]
pub(crate) struct Overlay {
    pub(crate) name: String,
    pub(crate) objects: Vec<Object>,
}

#[derive(Clone, Debug)]
pub(crate) struct Object {
    pub(crate) value: Value,
}

pub(crate) type Labels = BTreeMap<String, String>;

/// Pods that an object makes, or that come from outside of the overlay.
#[derive(Debug)]
pub(crate) struct Pods<'a> {
    /// The object, as findings name it.
    pub(crate) of: String,
    pub(crate) labels: Labels,
    /// Of what is made by an operator or a chart there is none here.
    pub(crate) spec: Option<&'a Value>,
    /// What they listen on: numbers, and names where they have one.
    pub(crate) ports: BTreeSet<(u64, String)>,
}

impl Overlay {
    pub(crate) fn read(name: &str, text: &str) -> Result<Self> {
        let objects = yaml::documents(text)?.into_iter();
        Ok(Self {
            name: name.to_owned(),
            objects: objects.map(|value| Object { value }).collect(),
        })
    }

    pub(crate) fn of_kind(&self, kind: &str) -> impl Iterator<Item = &Object> {
        self.objects
            .iter()
            .filter(move |object| object.kind() == kind)
    }

    pub(crate) fn has(&self, kind: &str, name: &str) -> bool {
        self.of_kind(kind).any(|object| object.name() == name)
    }

    /// All pods: of the workloads, of CloudNativePG's clusters, and of NATS where its chart brings it.
    pub(crate) fn pods(&self) -> Vec<Pods<'_>> {
        let mut pods: Vec<_> = self.objects.iter().filter_map(Object::pods).collect();
        if !self.has("StatefulSet", "nats") {
            pods.push(nats_of_the_chart());
        }
        pods
    }
}

impl Object {
    pub(crate) fn at(&self, pointer: &str) -> Option<&Value> {
        self.value.pointer(pointer)
    }

    pub(crate) fn text(&self, pointer: &str) -> &str {
        text(self.at(pointer))
    }

    pub(crate) fn kind(&self) -> &str {
        self.text("/kind")
    }

    pub(crate) fn name(&self) -> &str {
        self.text("/metadata/name")
    }

    /// How findings name it.
    pub(crate) fn id(&self) -> String {
        format!("{} {}", self.kind(), self.name())
    }

    /// The pods that it makes.
    pub(crate) fn pods(&self) -> Option<Pods<'_>> {
        if self.kind() == "Cluster" {
            let mut labels = labels(self.at("/spec/inheritedMetadata/labels"));
            labels.insert("cnpg.io/cluster".to_owned(), self.name().to_owned());
            let ports = [(5432, "postgresql"), (9187, "metrics"), (8000, "status")];
            return Some(Pods {
                of: self.id(),
                labels,
                spec: None,
                ports: named(&ports),
            });
        }
        let template = match self.kind() {
            "Deployment" | "StatefulSet" | "DaemonSet" | "Job" => self.at("/spec/template")?,
            "CronJob" => self.at("/spec/jobTemplate/spec/template")?,
            "Pod" => &self.value,
            _ => return None,
        };
        let spec = template.get("spec")?;
        let ports = list(spec, "containers")
            .flat_map(|container| list(container, "ports"))
            .filter_map(|port| {
                let number = port.get("containerPort")?.as_u64()?;
                Some((number, text(port.get("name")).to_owned()))
            });
        Some(Pods {
            of: self.id(),
            labels: labels(template.pointer("/metadata/labels")),
            spec: Some(spec),
            ports: ports.collect(),
        })
    }
}

/// What `overlays/production/nats-values.yaml` makes, under the release name `nats`.
fn nats_of_the_chart() -> Pods<'static> {
    let labels = [
        ("app.kubernetes.io/name", "nats"),
        ("app.kubernetes.io/instance", "nats"),
        ("app.kubernetes.io/component", "nats"),
    ];
    Pods {
        of: "the chart of NATS".to_owned(),
        labels: labels
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        spec: None,
        ports: named(&[(4222, "nats"), (6222, "cluster"), (8222, "monitor")]),
    }
}

fn named(ports: &[(u64, &str)]) -> BTreeSet<(u64, String)> {
    let ports = ports.iter().map(|(port, name)| (*port, (*name).to_owned()));
    ports.collect()
}

pub(crate) fn labels(value: Option<&Value>) -> Labels {
    let members = value.and_then(Value::as_object).into_iter().flatten();
    members
        .map(|(key, value)| (key.clone(), text(Some(value)).to_owned()))
        .collect()
}

/// The members of a list, of none if there is no list.
pub(crate) fn list<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    value
        .get(name)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

/// A text, or nothing.
pub(crate) fn text(value: Option<&Value>) -> &str {
    value.and_then(Value::as_str).unwrap_or_default()
}

/// The containers of a pod, those that run first included.
pub(crate) fn containers(spec: &Value) -> impl Iterator<Item = &Value> {
    list(spec, "initContainers").chain(list(spec, "containers"))
}
