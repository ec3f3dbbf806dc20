//! `cargo xtask images`: builds the container images by the final stages of `deploy/Dockerfile`, from static
//! binaries that are built here, and looks at what came out. It needs buildah, and no registry; it says so
//! where it has to skip. `--sbom` only writes the lists of what the binaries are made of.

mod sbom;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::shell;

const BINARIES: [&str; 4] = ["order-service", "customer-service", "cdc-relay", "loadgen"];
/// Asks the process beside it whether it is ready: the images have no shell that could.
const HEALTHY: &str = "healthy";
/// More than the largest binary takes twice over: an image that grows past it has something in it that
/// nobody meant.
const IMAGE_BYTES_MAX: u64 = 30 * 1000 * 1000;
/// No user of any host.
const USER: &str = "65532:65532";
/// What podman ends with when it could not even try.
const PODMAN_FAILED: i32 = 125;
/// What its runtime speaks of when the machine, and not the image, keeps a container from starting.
const MACHINE: [&str; 3] = ["rlimit", "cgroup", "namespace"];
const DOCKERFILE: &str = "deploy/Dockerfile";
/// Where the system has the certificates of public CAs.
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only write `<binary>.cdx.json` into this folder, and build nothing
    #[arg(long, value_name = "FOLDER")]
    sbom: Option<PathBuf>,
    /// Take static binaries that this folder has already, and compile nothing
    #[arg(long, value_name = "FOLDER")]
    binaries: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let target = host()?;
    if let Some(folder) = &arguments.sbom {
        return write_sboms(folder, &target);
    }
    let Ok(found) = shell::capture(shell::command("buildah").arg("--version")) else {
        println!("SKIPPED   images: buildah is not installed, which builds them without a daemon");
        return Ok(());
    };
    print!("{}", String::from_utf8_lossy(&found.stdout));
    let built = match &arguments.binaries {
        Some(folder) => folder.clone(),
        None => compiled(&target)?,
    };
    let context = gathered(&built, &target)?;
    for name in BINARIES {
        let image = format!("localhost/saga/{name}:{}", env!("CARGO_PKG_VERSION"));
        let mut build = shell::command("buildah");
        build.args(["build", "--quiet", "--layers=false", "--file", DOCKERFILE]);
        build.args(["--target", name, "--tag", &image]);
        build.args([
            "--build-arg",
            &format!("VERSION={}", env!("CARGO_PKG_VERSION")),
        ]);
        build.args(["--build-arg", &format!("REVISION={}", revision()?)]);
        // In the place of the stage that compiles, which would need a registry.
        build.arg(format!("--build-context=build={}", context.display()));
        build.arg(".");
        shell::run(&mut build)?;
        inspect(name, &image)?;
        try_out(name, &image)?;
    }
    Ok(())
}

/// The platform that this is built for, without the C library's part being anything but glibc.
fn host() -> Result<String> {
    let output = shell::capture(shell::command("rustc").arg("-vV"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc tells no host")
}

/// Apart from what is built for this machine, because the flags differ.
fn folder() -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    shell::root().join(target).join("static")
}

/// Compiles the binaries, with all of the C library in them; the folder that has them then.
fn compiled(target: &str) -> Result<PathBuf> {
    let mut build = shell::cargo();
    build.args([
        "build",
        "--locked",
        "--release",
        "--bins",
        "--target",
        target,
    ]);
    for package in BINARIES.into_iter().chain(["chassis"]) {
        build.args(["--package", package]);
    }
    // With a target named, this is for the binaries alone, and not for what runs while they are built.
    build.env("RUSTFLAGS", "-C target-feature=+crt-static");
    build.env("CARGO_TARGET_DIR", folder());
    shell::run(&mut build)?;
    Ok(folder().join(target).join("release"))
}

/// What the Dockerfile's first stage would have put into `/out`, in a folder that stands for it.
fn gathered(built: &Path, target: &str) -> Result<PathBuf> {
    let context = folder().join("context");
    let out = context.join("out");
    fs::create_dir_all(out.join("spool"))?;
    for name in BINARIES.into_iter().chain([HEALTHY]) {
        let binary = built.join(name);
        fs::copy(&binary, out.join(name)).with_context(|| binary.display().to_string())?;
    }
    write_sboms(&out, target)?;
    let certificates = context.join(CERTIFICATES.trim_start_matches('/'));
    fs::create_dir_all(certificates.parent().context("a file in a folder")?)?;
    if fs::copy(CERTIFICATES, &certificates).is_err() {
        println!("this machine has no {CERTIFICATES}: the images trust no public CA");
        fs::write(&certificates, "")?;
    }
    Ok(context)
}

fn write_sboms(folder: &Path, target: &str) -> Result<()> {
    fs::create_dir_all(folder)?;
    for name in BINARIES {
        let document = serde_json::to_vec_pretty(&sbom::of(name, target)?)?;
        fs::write(folder.join(format!("{name}.cdx.json")), document)?;
    }
    Ok(())
}

fn revision() -> Result<String> {
    let output = shell::capture(shell::command("git").args(["rev-parse", "HEAD"]))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// What the image says of itself, and how large it is.
fn inspect(name: &str, image: &str) -> Result<()> {
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
/// something looks like any other.
fn try_out(name: &str, image: &str) -> Result<()> {
    let mut run = shell::command("podman");
    run.args([
        "run",
        "--rm",
        "--network=none",
        "--read-only",
        "--cap-drop=all",
    ]);
    // As much as a container may have where this runs in one itself.
    run.args(["--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024"]);
    run.args([image, "--version"]);
    let Ok(output) = shell::capture(&mut run) else {
        println!("SKIPPED   {image} is not run: podman is not installed");
        return Ok(());
    };
    let said = String::from_utf8_lossy(&output.stdout);
    let why = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(PODMAN_FAILED) || MACHINE.iter().any(|word| why.contains(word))
    {
        let why = why.trim().lines().last().unwrap_or_default();
        println!("SKIPPED   {image} is not run: podman cannot here: {why}");
        return Ok(());
    }
    ensure!(
        output.status.success() && said.starts_with(name),
        "{image} does not run: {}: {said}{}",
        output.status,
        why.trim()
    );
    print!("it runs: {said}");
    Ok(())
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
}
