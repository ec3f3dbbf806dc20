//! The contract: what callers, and events that are stored, rely on of the `.proto` files, a fact a line,
//! in `proto/contract.txt`. It only grows. `cargo xtask check contracts` compares it with the files, and
//! `cargo xtask contract` adds what is new. What is new is explained as well: where it stands.
//!
//! Danger: who takes a line away by hand takes a promise back. It shows in the file's history.

mod breaks;
mod comments;
mod facts;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use protox::prost_reflect::FileDescriptor;

use self::facts::Facts;
use crate::shell;

const PROTO: &str = "proto";
const FILE: &str = "proto/contract.txt";

const HEAD: &str = "\
# What callers and stored events rely on, a fact a line. `cargo xtask contract` adds what the .proto
# files newly promise; `cargo xtask check contracts` fails when they no longer keep what stands here.
# A line that is changed or taken away is a promise taken back: look who relies on it.
";

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {}

/// Adds what is new to the file; refuses what breaks.
pub(crate) fn run(_: &Arguments) -> Result<()> {
    let now = Facts::of(&compiled(&shell::root().join(PROTO))?);
    let before = recorded()?.unwrap_or_default();
    kept(&before, &now)?;
    let path = shell::root().join(FILE);
    fs::write(&path, written(&now)).with_context(|| format!("cannot write {FILE}"))?;
    match now.len() - before.len() {
        0 => println!("{FILE} is up to date"),
        added => println!("{FILE} has {added} new lines; commit it with the change"),
    }
    Ok(())
}

/// Fails when the `.proto` files break the contract, promise what it does not have yet, or do not say what
/// something means.
pub(crate) fn check() -> Result<()> {
    let files = compiled(&shell::root().join(PROTO))?;
    let missing = comments::missing(&files);
    ensure!(
        missing.is_empty(),
        "each thing in the .proto files says in a comment before it what it means, in which unit and within \
         which limits; these do not:\n{}",
        lines(&missing)
    );
    let now = Facts::of(&files);
    let Some(before) = recorded()? else {
        bail!("{FILE} is missing: restore it from the history");
    };
    kept(&before, &now)?;
    let added = now.beside(&before);
    ensure!(
        added.is_empty(),
        "the .proto files promise what {FILE} does not have yet; run `cargo xtask contract`, and commit \
         {FILE} with the change:\n{}",
        lines(&added)
    );
    let text = fs::read_to_string(shell::root().join(FILE)).unwrap_or_default();
    ensure!(
        text == written(&now),
        "{FILE} has all facts, but not as they are written; run `cargo xtask contract`"
    );
    Ok(())
}

fn kept(before: &Facts, now: &Facts) -> Result<()> {
    let broken = breaks::find(before, now);
    ensure!(
        broken.is_empty(),
        "a breaking change of the .proto files: callers and stored events rely on what {FILE} says.\n{}\n\
         Put it back, and add beside it what is new: a field with the next free number, a value, an rpc. \
         What is to mean something else goes into a new package, such as orders.v2.",
        lines(&broken)
    );
    Ok(())
}

/// The contract as it was last written, if it was.
fn recorded() -> Result<Option<Facts>> {
    let path = shell::root().join(FILE);
    if !path.exists() {
        return Ok(None);
    }
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {FILE}"))?;
    let facts = Facts::parse(&text).map_err(|line| anyhow!("{FILE}: not a fact: {line}"))?;
    Ok(Some(facts))
}

fn written(facts: &Facts) -> String {
    format!("{HEAD}\n{facts}")
}

fn lines(all: &[String]) -> String {
    let indented = all.iter().map(|line| format!("  {line}"));
    indented.collect::<Vec<_>>().join("\n")
}

/// The `.proto` files under a folder, in the order of their names.
fn compiled(folder: &Path) -> Result<Vec<FileDescriptor>> {
    let files = proto_files(folder)?;
    let mut compiler = protox::Compiler::new([folder])?;
    compiler
        .include_source_info(true)
        .open_files(files.iter().map(|file| folder.join(file)))
        .with_context(|| format!("{} does not compile", folder.display()))?;
    let pool = compiler.descriptor_pool();
    let own: BTreeSet<_> = files.iter().map(|file| file.to_string_lossy()).collect();
    let file = |name: &_| {
        let file = pool.get_file_by_name(name);
        file.with_context(|| format!("{name} was not compiled"))
    };
    own.iter().map(|name| file(name)).collect()
}

/// The `.proto` files under a folder, by their paths in it.
fn proto_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        let entries =
            fs::read_dir(&next).with_context(|| format!("cannot read {}", next.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|word| word == "proto") {
                found.push(path.strip_prefix(folder)?.to_owned());
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests;
