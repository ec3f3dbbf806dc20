//! What a file must not hold. Words that are looked for are joined here, so that this file passes.

use std::path::Path;

const LINES_MAX: usize = 400;
/// Files that people write and read line by line.
const SOURCES: [&str; 5] = ["rs", "proto", "sql", "sh", "py"];
/// Generated, or others' words.
const EXEMPT: [&str; 2] = ["Cargo.lock", "LICENSE"];

const UNFINISHED: [&str; 5] = [
    concat!("todo", "!("),
    concat!("unimplemented", "!("),
    concat!("FIX", "ME"),
    concat!("XX", "X:"),
    concat!("#[ign", "ore"),
];

/// Paths of one machine.
const MACHINE: [&str; 3] = [
    concat!("/ro", "ot/"),
    concat!("/ho", "me/"),
    concat!("/wo", "rk/"),
];

/// What a domain may name: nothing that knows of databases, messages or the outside.
const DOMAIN_IMPORTS: [&str; 5] = ["std", "core", "thiserror", "self", "super"];

const SQL: [&str; 9] = [
    concat!("SEL", "ECT "),
    concat!("INSERT", " INTO "),
    concat!("UPD", "ATE "),
    concat!("DELETE", " FROM "),
    concat!("CREATE", " TABLE "),
    concat!("CREATE", " PUBLICATION "),
    concat!("ALTER", " TABLE "),
    concat!("DROP", " TABLE "),
    concat!("TRUN", "CATE "),
];
/// What messages advise a person to type is not SQL that the code runs.
const ADVICE: &str = "pg_drop_replication_slot";
/// Where SQL may stand, by the beginning of the path.
const SQL_PLACES: &[(&str, &str)] = &[
    ("order-service/src/store", "a service's own"),
    ("customer-service/src/store", "a service's own"),
    ("mailbox/src/", "outbox, inbox, marks, partitions"),
    ("cdc-relay/src/primary", "which server takes writes"),
    ("cdc-relay/src/slot", "slot and publication"),
    (
        "cdc-relay/src/types",
        "what a database's own types are made of",
    ),
    ("cdc-relay/src/backfill", "the first copy of the outbox"),
    ("cdc-relay/src/heal/", "the outbox against the stream"),
    ("cdc-relay/src/retention", "old rows of the outbox"),
    (
        "cdc-relay/src/preflight",
        "what the relay needs of a database",
    ),
    ("cdc-relay/src/status", "how the slot stands"),
    ("cdc-relay/src/cli/init", "what it prints for others to run"),
    (
        "chassis/src/database",
        "pings, and the lock that migrations take",
    ),
    ("tests/", "the auditor and the tests look from outside"),
    (
        "xtask/src/bench/",
        "the backlog, and a publisher that polls it",
    ),
];

/// The rules that the file breaks, by line.
pub(super) fn broken(name: &str, text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    if EXEMPT.contains(&name) {
        return found;
    }
    let extension = Path::new(name).extension().and_then(|word| word.to_str());
    let source = extension.is_some_and(|word| SOURCES.contains(&word));
    let lines = text.lines().count();
    if source && lines > LINES_MAX {
        found.push((lines, format!("longer than {LINES_MAX} lines: split it")));
    }
    if !text.is_empty() && !text.ends_with('\n') {
        found.push((lines, "no newline at the end".to_owned()));
    }
    for (index, line) in text.lines().enumerate() {
        let mut broke = |rule: String| found.push((index + 1, rule));
        if line.ends_with([' ', '\t', '\r']) {
            broke("a blank at the end of the line".to_owned());
        }
        for path in MACHINE.iter().filter(|path| line.contains(**path)) {
            broke(format!("a path of one machine: {path}"));
        }
        if source {
            for word in UNFINISHED.iter().filter(|word| line.contains(**word)) {
                broke(format!("unfinished: {word}"));
            }
        }
    }
    if extension == Some("rs") {
        rust(name, text, &mut found);
    }
    found
}

fn rust(name: &str, text: &str, found: &mut Vec<(usize, String)>) {
    let domain = name.ends_with("/domain.rs") || name.contains("/src/domain/");
    let test_file = name.contains("/tests/") || name.ends_with("/tests.rs");
    let sql_allowed = test_file || SQL_PLACES.iter().any(|(place, _)| name.starts_with(place));
    let mut in_tests = false;
    for (index, line) in text.lines().enumerate() {
        let code = line.trim_start();
        in_tests |= code.starts_with("#[cfg(test)]");
        if code.starts_with("//") || in_tests {
            continue;
        }
        if domain && let Some(import) = foreign_import(code) {
            let rule = format!("a domain imports nothing but std and thiserror, not {import}");
            found.push((index + 1, rule));
        }
        let advice = code.contains(ADVICE);
        if !sql_allowed && !advice && SQL.iter().any(|word| code.contains(word)) {
            let rule = "SQL stands in a store, in mailbox, and in the relay's slot";
            found.push((index + 1, rule.to_owned()));
        }
    }
}

fn foreign_import(code: &str) -> Option<&str> {
    let code = code.strip_prefix("pub ").unwrap_or(code);
    let path = code.strip_prefix("use ")?;
    let first = path.split([':', ';', ' ']).next()?;
    let own = DOMAIN_IMPORTS.contains(&first) || path.starts_with("crate::domain");
    (!own).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn breaks(name: &str, text: &str, expected: Option<&str>) {
        let found = broken(name, text);
        match expected {
            None => assert_eq!(found, Vec::new()),
            Some(part) => {
                assert_eq!(found.len(), 1, "{found:?}");
                assert!(found[0].1.contains(part), "{found:?}");
            }
        }
    }

    #[test]
    fn each_rule_finds_what_it_is_for() {
        breaks("a/src/b.rs", "fn a() {}\n", None);
        breaks("a/src/b.rs", "fn a() {} \n", Some("a blank at the end"));
        breaks("a/src/b.rs", "fn a() {}", Some("no newline"));
        breaks(
            "a/src/b.rs",
            &format!("{}\n", UNFINISHED[0]),
            Some("unfinished"),
        );
        breaks("notes.md", &format!("{}\n", UNFINISHED[2]), None);
        breaks(
            "notes.md",
            &format!("see {}x\n", MACHINE[1]),
            Some("machine"),
        );
        breaks("a/src/b.rs", &"\n".repeat(400), None);
        breaks("a/src/b.rs", &"\n".repeat(401), Some("longer than"));
    }

    #[test]
    fn a_domain_knows_nothing() {
        let name = "a/src/domain.rs";
        breaks(
            name,
            "use std::fmt;\nuse thiserror::Error;\nuse super::b;\n",
            None,
        );
        breaks(name, "use crate::domain::Order;\n", None);
        breaks(name, "use crate::store;\n", Some("not crate"));
        breaks(
            "a/src/domain/b.rs",
            "pub use prost::Message;\n",
            Some("not prost"),
        );
        breaks("a/src/wire.rs", "use prost::Message;\n", None);
    }

    #[test]
    fn sql_has_its_places() {
        let statement = format!("const A: &str = \"{}1\";\n", SQL[0]);
        breaks("order-service/src/api.rs", &statement, Some("SQL"));
        breaks("order-service/src/store.rs", &statement, None);
        breaks("order-service/src/api.rs", &format!("// {statement}"), None);
        let tested = format!("fn a() {{}}\n#[cfg(test)]\nmod tests {{\n{statement}}}\n");
        breaks("order-service/src/api.rs", &tested, None);
    }
}
