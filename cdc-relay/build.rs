//! Gives the program the commit that it was built from, for `--version`.
//!
//! Without git, as from a tarball, there is none, unless `CDC_RELAY_COMMIT` tells it. Danger: a build
//! script that always runs again makes everything be built again, so it names what it depends on.

use std::{env, path::Path, process::Command};

const VARIABLE: &str = "CDC_RELAY_COMMIT";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    let told = env::var(VARIABLE).ok().filter(|told| !told.is_empty());
    let commit = told.or_else(commit);
    let suffix = commit.map_or_else(String::new, |commit| format!(" ({commit})"));
    let version = env::var("CARGO_PKG_VERSION").unwrap_or_default();
    println!("cargo::rustc-env=CDC_RELAY_VERSION={version}{suffix}");
}

fn commit() -> Option<String> {
    // HEAD moves with its log; where no log is kept, it and its branch are files of their own.
    let branch = git(&["rev-parse", "--symbolic-full-name", "HEAD"]).unwrap_or_default();
    for name in ["HEAD", "logs/HEAD", "packed-refs", branch.as_str()] {
        let path = git(&["rev-parse", "--git-path", name]).unwrap_or_default();
        // To cargo, a file that is not there has always changed.
        if Path::new(&path).is_file() {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    // A tarball may lie in a repository that has nothing to do with it.
    git(&["ls-files", "--error-unmatch", "build.rs"])?;
    git(&["rev-parse", "--short=12", "HEAD"])
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
