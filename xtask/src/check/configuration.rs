//! `docs/configuration.md` names exactly the variables that the binaries' `--help` names.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Result, bail, ensure};

use super::Outcome;
use crate::shell;

const DOCUMENT: &str = "docs/configuration.md";
const BINARIES: [&str; 5] = [
    "order-service",
    "customer-service",
    "cdc-relay",
    "shop",
    "loadgen",
];

pub(crate) fn run() -> Result<Outcome> {
    let Ok(document) = fs::read_to_string(shell::root().join(DOCUMENT)) else {
        return Ok(Outcome::Skipped(format!("there is no {DOCUMENT} yet")));
    };
    shell::run(shell::cargo().args(["build", "--quiet", "--workspace", "--bins"]))?;
    let mut known = BTreeSet::new();
    for name in BINARIES {
        let output = shell::capture(shell::command(harness::binary(name)?).arg("--help"))?;
        ensure!(
            output.status.success(),
            "{name} --help ended with {}",
            output.status
        );
        known.extend(of_help(&String::from_utf8_lossy(&output.stdout)));
    }
    let documented = of_document(&document);
    let mut wrong = Vec::new();
    for name in known.difference(&documented) {
        wrong.push(format!(
            "{DOCUMENT} has no row for {name}, which --help names"
        ));
    }
    for name in documented.difference(&known) {
        wrong.push(format!(
            "{DOCUMENT} has a row for {name}, which no --help names"
        ));
    }
    if !wrong.is_empty() {
        bail!("{}", wrong.join("\n"));
    }
    Ok(Outcome::Fine)
}

/// The names in `[env: NAME]` and `[env: NAME=…]`.
fn of_help(help: &str) -> BTreeSet<String> {
    help.split("[env: ")
        .skip(1)
        .map(|rest| leading_name(rest).to_owned())
        .collect()
}

/// The names that begin a table's row: `` | `NAME` | … ``.
fn of_document(document: &str) -> BTreeSet<String> {
    document
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("| `"))
        .map(|rest| leading_name(rest).to_owned())
        .filter(|name| !name.is_empty())
        .collect()
}

fn leading_name(text: &str) -> &str {
    let fits =
        |letter: char| letter.is_ascii_uppercase() || letter.is_ascii_digit() || letter == '_';
    let end = text.find(|letter| !fits(letter)).unwrap_or(text.len());
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_from_help_and_from_tables() {
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect();
        let help = "--a <A>  What [env: A_B=] [default: 1]\n--c  [env: C]";
        assert_eq!(of_help(help), names(&["A_B", "C"]));
        let document = "| variable |\n| --- |\n| `A_B` | `X` |\n`Y` in a sentence\n| `C` | |";
        assert_eq!(of_document(document), names(&["A_B", "C"]));
    }
}
