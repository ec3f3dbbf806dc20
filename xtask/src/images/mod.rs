//! `cargo xtask images`: builds the container images by the final stages of `deploy/Dockerfile`, from static
//! binaries that are built here, and looks at what came out. It needs buildah, and no registry; it says so
//! where it has to skip. `--run` then runs the whole system from them, as an overlay's manifests say. `--sbom` only
//! writes the lists of what the binaries are made of.

mod look;
mod podman;
mod run;
mod sbom;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::shell;

const BINARIES: [&str; 4] = ["order-service", "customer-service", "cdc-relay", "loadgen"];
/// Asks the process beside it whether it is ready: the images have no shell that could.
const HEALTHY: &str = "healthy";
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
    /// Then runs the whole system from the images as this overlay's manifests say, settles orders, and puts load on it
    #[arg(long, value_name = "OVERLAY", num_args = 0..=1, default_missing_value = "kind-load",
          value_parser = ["kind-load", "production-load"])]
    run: Option<String>,
    /// Takes the images that there are already, and builds none
    #[arg(long, requires = "run")]
    built: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let target = host()?;
    if let Some(folder) = &arguments.sbom {
        return write_sboms(folder, &target);
    }
    if !arguments.built {
        let Ok(found) = shell::capture(shell::command("buildah").arg("--version")) else {
            println!(
                "SKIPPED   images: buildah is not installed, which builds them without a daemon"
            );
            return Ok(());
        };
        print!("{}", String::from_utf8_lossy(&found.stdout));
        let built = match &arguments.binaries {
            Some(folder) => folder.clone(),
            None => compiled(&target)?,
        };
        let context = gathered(&built, &target)?;
        for name in BINARIES {
            build(name, &context)?;
            look::inspect(name, &image(name))?;
        }
    }
    let mut podman = None;
    for name in BINARIES {
        podman = look::try_out(name, &image(name))?;
    }
    match (&arguments.run, podman) {
        (None, _) => Ok(()),
        (Some(overlay), Some(podman)) => run::run(podman, overlay),
        (Some(overlay), None) => {
            println!("SKIPPED   the overlay {overlay} is not run: there is no podman that could");
            Ok(())
        }
    }
}

/// What the images are called here: as the overlay `kind` has them.
fn image(name: &str) -> String {
    format!("localhost/saga/{name}:{}", env!("CARGO_PKG_VERSION"))
}

fn build(name: &str, context: &Path) -> Result<()> {
    let mut build = shell::command("buildah");
    build.args(["build", "--quiet", "--layers=false", "--file", DOCKERFILE]);
    build.args(["--target", name, "--tag", &image(name)]);
    let version = format!("VERSION={}", env!("CARGO_PKG_VERSION"));
    build.args(["--build-arg", &version]);
    build.args(["--build-arg", &format!("REVISION={}", revision()?)]);
    // In the place of the stage that compiles, which would need a registry.
    build.arg(format!("--build-context=build={}", context.display()));
    shell::run(build.arg("."))
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
