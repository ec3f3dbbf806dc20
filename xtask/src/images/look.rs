//! What came out of a build: what an image says of itself, what is in it, how large it is, and whether it runs.

use std::fs;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::podman::Podman;
use super::{HEALTHY, folder};
use crate::shell;

/// More than the largest binary takes twice over: an image that grows past it has something in it that
/// nobody meant.
const IMAGE_BYTES_MAX: u64 = 30 * 1000 * 1000;
/// No user of any host.
const USER: &str = "65532:65532";
/// The list of what the binary is made of, in the image.
const SBOM: &str = "sbom.cdx.json";
const CERTIFICATES: &str = "etc/ssl/certs/ca-certificates.crt";
/// What podman itself puts into each container's root.
const OF_PODMAN: [&str; 3] = ["etc/hosts", "etc/resolv.conf", "run/.containerenv"];

/// What the image says of itself, and how large it is.
pub(super) fn inspect(name: &str, image: &str) -> Result<()> {
    let output =
        shell::capture(shell::command("buildah").args(["inspect", "--type=image", image]))?;
    let said: Value = serde_json::from_slice(&output.stdout).context("buildah inspect")?;
    let config = &said["OCIv1"]["config"];
    let wrong = wrong(name, config);
    ensure!(wrong.is_empty(), "{image}: {}", wrong.join("; "));
    let listed = shell::capture(shell::command("buildah").args(["images", "--json", image]))?;
    let listed: Value = serde_json::from_slice(&listed.stdout).context("buildah images")?;
    println!(
        "{image}: {}",
        listed[0]["size"].as_str().unwrap_or("of unknown size")
    );
    let context = folder().join("context/out");
    let bytes: u64 = [name, HEALTHY, &format!("{name}.cdx.json")]
        .iter()
        .map(|file| fs::metadata(context.join(file)).map_or(0, |found| found.len()))
        .sum();
    ensure!(
        bytes < IMAGE_BYTES_MAX,
        "{image} has {bytes} bytes, and may have {IMAGE_BYTES_MAX}"
    );
    Ok(())
}

/// Whether the binary runs in its image, with nothing of the host and no right to write: an image that lacks
/// something looks like any other. And whether it holds what it should and nothing else, no shell above all.
/// The podman that ran it, if there is one.
pub(super) fn try_out(name: &str, image: &str) -> Result<Option<Podman>> {
    let (podman, said) = match Podman::that_runs(image)? {
        Ok(found) => found,
        Err(why) => {
            println!("SKIPPED   {image} is not run: {why}");
            return Ok(None);
        }
    };
    ensure!(
        said.well && said.out.starts_with(name),
        "{image} does not run: {}{}",
        said.out,
        said.err
    );
    print!("it runs: {}", said.out);
    let found = files(podman, image)?;
    let odd = odd(name, &found);
    ensure!(odd.is_empty(), "{image}: {}", odd.join("; "));
    println!("it holds {}", found.join(", "));
    Ok(Some(podman))
}

/// Every file of the image, without what podman adds.
fn files(podman: Podman, image: &str) -> Result<Vec<String>> {
    let created = shell::capture(podman.command().args(["create", "--pull=never", image]))?;
    let id = String::from_utf8_lossy(&created.stdout).trim().to_owned();
    ensure!(created.status.success(), "podman cannot create {image}");
    let mut export = podman.command();
    export.args(["export", &id]).stdout(Stdio::piped());
    let mut export = export.spawn().context("podman export")?;
    let archive = export.stdout.take().context("podman export says nothing")?;
    let listed = shell::capture(shell::command("tar").arg("-tf-").stdin(archive));
    let exported = export.wait();
    shell::capture(podman.command().args(["rm", &id]))?;
    ensure!(
        exported?.success() && listed.as_ref().is_ok_and(|list| list.status.success()),
        "{image} cannot be listed"
    );
    let listed = String::from_utf8_lossy(&listed?.stdout).into_owned();
    let files = listed
        .lines()
        .filter(|path| !path.ends_with('/') && !OF_PODMAN.contains(path));
    Ok(files.map(str::to_owned).collect())
}

fn odd(name: &str, files: &[String]) -> Vec<String> {
    let has = |file: &str| files.iter().any(|one| one == file);
    let wanted = [name, SBOM, CERTIFICATES];
    let mut found: Vec<_> = wanted
        .iter()
        .filter(|file| !has(file))
        .map(|file| format!("it lacks /{file}"))
        .collect();
    let known = |file: &str| wanted.contains(&file) || file == HEALTHY;
    let foreign = files.iter().filter(|file| !known(file));
    found.extend(foreign.map(|file| format!("it holds /{file}, which nobody meant")));
    found
}

fn wrong(name: &str, config: &Value) -> Vec<String> {
    let mut found = Vec::new();
    if config["User"] != USER {
        found.push(format!("it runs as {}, not as {USER}", config["User"]));
    }
    if config["Entrypoint"] != serde_json::json!([format!("/{name}")]) {
        found.push(format!("it starts {}", config["Entrypoint"]));
    }
    for label in ["title", "version", "revision", "source", "licenses"] {
        let value = &config["Labels"][format!("org.opencontainers.image.{label}")];
        if value.as_str().is_none_or(str::is_empty) {
            found.push(format!("it has no label {label}"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_image_that_runs_as_root_or_says_nothing_of_itself_is_named() {
        let labels = ["title", "version", "revision", "source", "licenses"];
        let labels: serde_json::Map<_, _> = labels
            .map(|label| (format!("org.opencontainers.image.{label}"), json!("x")))
            .into_iter()
            .collect();
        let fine = json!({ "User": USER, "Entrypoint": ["/cdc-relay"], "Labels": labels });
        assert_eq!(wrong("cdc-relay", &fine), Vec::<String>::new());
        for (place, value) in [
            ("User", json!("")),
            ("Entrypoint", json!(["/bin/sh"])),
            ("Labels", json!({})),
        ] {
            let mut config = fine.clone();
            config[place] = value;
            assert!(!wrong("cdc-relay", &config).is_empty(), "{place}");
        }
    }

    #[test]
    fn an_image_that_lacks_something_or_has_a_shell_is_named() {
        let files = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        let fine = files(&["loadgen", SBOM, CERTIFICATES]);
        assert_eq!(odd("loadgen", &fine), Vec::<String>::new());
        assert_eq!(odd("loadgen", &fine[..2]).len(), 1);
        let shell = [fine, files(&["bin/sh"])].concat();
        assert!(odd("loadgen", &shell)[0].contains("/bin/sh"));
    }
}
