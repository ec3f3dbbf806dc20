//! What stands in for the images of others where there is no registry to pull them from: this machine's own Postgres
//! and nats-server, each in an image from scratch, with the arguments, variables and files that the manifests give to
//! the image that they stand for. An image that podman has already is taken as it is.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::super::{folder, podman::Podman};
use super::pod::Container;
use crate::shell;

/// What the image of Postgres does by its `docker-entrypoint.sh`, in short.
const POSTGRES: &str = include_str!("postgres.sh");
/// With the libraries of this machine, and its shell: mounted, and not in the image.
const POSTGRES_IMAGE: &str = "FROM scratch\nCOPY . /\nENTRYPOINT [\"/bin/sh\", \"/postgres.sh\"]\n";
const NATS_IMAGE: &str =
    "FROM scratch\nCOPY nats-server /nats-server\nENTRYPOINT [\"/nats-server\"]\n";
/// CloudNativePG's image of Postgres.
const OF_THE_OPERATOR: &str = "postgresql";
/// The users of Postgres in both images, who `initdb` wants to have names.
const USERS: &str = "root:x:0:0::/:\npostgres:x:999:999::/var/lib/postgresql:/bin/sh\noperated:x:26:26::/var/lib/postgresql:/bin/sh\n";

/// An image to take instead, and what it needs besides.
#[derive(Clone, Debug)]
pub(super) struct StandIn {
    pub(super) image: String,
    /// As podman's `--volume`.
    pub(super) mounts: Vec<String>,
    pub(super) environment: Vec<String>,
}

/// The image that a container is to be started from, where it is not the one that it names.
pub(super) fn of(podman: Podman, container: &Container) -> Result<Option<StandIn>> {
    let image = container.image.as_str();
    let name = image
        .rsplit('/')
        .next()
        .unwrap_or(image)
        .split(':')
        .next()
        .unwrap_or(image);
    let there = shell::capture(podman.command().args(["image", "exists", image]))?
        .status
        .success();
    // The operator's image is started by the operator alone.
    if there && name != OF_THE_OPERATOR {
        return Ok(None);
    }
    let (stand_in, what) = match name {
        "postgres" | OF_THE_OPERATOR => postgres()?,
        "nats" => nats()?,
        // Of a registry, and here under the name that the overlay `kind` has.
        own => {
            let image = super::super::image(own);
            return Ok(Some(StandIn {
                image,
                mounts: Vec::new(),
                environment: Vec::new(),
            }));
        }
    };
    println!("STAND-IN  for {image}, which is not here: {what} of this machine");
    Ok(Some(stand_in))
}

fn nats() -> Result<(StandIn, String)> {
    let program = harness::tools::nats_server()?;
    let context = emptied("nats")?;
    fs::copy(&program, context.join("nats-server"))?;
    let image = built("nats", NATS_IMAGE, &context)?;
    let stand_in = StandIn {
        image,
        mounts: Vec::new(),
        environment: Vec::new(),
    };
    Ok((stand_in, version(&program)?))
}

fn postgres() -> Result<(StandIn, String)> {
    let bin = harness::tools::postgres_bin()?;
    let context = emptied("postgres")?;
    for name in ["bin", "lib", "lib64", "sbin"] {
        symlink(Path::new("usr").join(name), context.join(name))?;
    }
    fs::create_dir(context.join("etc"))?;
    fs::write(context.join("etc/passwd"), USERS)?;
    fs::write(context.join("postgres.sh"), POSTGRES)?;
    let image = built("postgres", POSTGRES_IMAGE, &context)?;
    let mut mounts = vec!["/usr:/usr:ro".to_owned()];
    if !bin.starts_with("/usr") {
        let all = bin.parent().unwrap_or(&bin).display();
        mounts.push(format!("{all}:{all}:ro"));
    }
    let environment = vec![format!("PATH={}:/usr/bin", bin.display())];
    Ok((
        StandIn {
            image,
            mounts,
            environment,
        },
        version(&bin.join("postgres"))?,
    ))
}

fn version(program: &Path) -> Result<String> {
    let said = shell::capture(shell::command(program).arg("--version"))?;
    Ok(String::from_utf8_lossy(&said.stdout).trim().to_owned())
}

fn emptied(name: &str) -> Result<PathBuf> {
    let context = folder().join("stand-ins").join(name);
    if context.exists() {
        fs::remove_dir_all(&context)?;
    }
    fs::create_dir_all(&context)?;
    fs::set_permissions(&context, fs::Permissions::from_mode(0o755))?;
    Ok(context)
}

fn built(name: &str, file: &str, context: &Path) -> Result<String> {
    let image = format!("localhost/saga/stand-in-{name}:1");
    let written = context.with_extension("containerfile");
    fs::write(&written, file)?;
    let mut build = shell::command("buildah");
    build.args([
        "build",
        "--quiet",
        "--layers=false",
        "--tag",
        &image,
        "--file",
    ]);
    let output = shell::capture(build.arg(&written).arg(context))?;
    let said = String::from_utf8_lossy(&output.stderr);
    output
        .status
        .success()
        .then_some(image)
        .with_context(|| format!("buildah: {}", said.trim()))
}
