use std::{fs, path::PathBuf};

use super::*;

/// A command line with a file of this text; names what is not in it by flags.
fn read_with(text: &str, flags: &[&str]) -> Result<Run, String> {
    let path = file(text);
    let mut given: Vec<OsString> = vec!["cdc-relay".into(), "--config".into(), path.clone().into()];
    given.extend(flags.iter().map(OsString::from));
    let read = read(&given);
    fs::remove_file(path).unwrap();
    match read {
        Ok(Command::Run(run)) => Ok(run),
        Ok(other) => panic!("not run: {other:?}"),
        Err(error) => Err(error.to_string()),
    }
}

fn file(text: &str) -> PathBuf {
    let name = format!("cdc-relay-{}.toml", uuid::Uuid::now_v7().simple());
    let path = std::env::temp_dir().join(name);
    fs::write(&path, text).unwrap();
    path
}

const WHOLE: &str = r#"
[source]
database_url = "postgres://ana:hunter2@db/shop"
slot = "shop"
wal_sender_timeout_seconds = 5

[stream]
name = "EVENTS"
subjects = ["events.>", "more.>"]
"#;

#[test]
fn a_file_is_enough_and_what_it_leaves_out_has_its_default() {
    let Run { config } = read_with(WHOLE, &[]).unwrap();
    assert_eq!(config.source.slot, "shop");
    assert_eq!(config.source.wal_sender_timeout_seconds, 5);
    assert_eq!(config.source.publication, "cdc_relay");
    assert_eq!(config.stream.subjects, ["events.>", "more.>"]);
}

#[test]
fn a_flag_goes_before_the_file() {
    let Run { config } = read_with(WHOLE, &["--cdc-slot", "other"]).unwrap();
    assert_eq!(config.source.slot, "other");
    assert_eq!(config.stream.name, "EVENTS");
}

#[test]
fn a_file_serves_a_subcommand_as_well() {
    let path = file(WHOLE);
    let given = ["cdc-relay", "run", "--config", path.to_str().unwrap()];
    let Ok(Command::Run(run)) = read(&given.map(OsString::from)) else {
        panic!("not run");
    };
    fs::remove_file(path).unwrap();
    assert_eq!(run.config.source.slot, "shop");
}

#[test]
fn everything_that_is_wrong_in_a_file_is_named_at_once_with_its_line_and_mend() {
    let wrong = r#"
slot = "shop"
[source]
slto = "shop"
slot = "Bad Name"
wal_sender_timeout_seconds = 1
table = ["a", "b"]
[strem]
name = "EVENTS"
"#;
    let refused = read_with(wrong, &[]).unwrap_err();
    for expected in [
        "line 2: slot is not a key that the relay knows; is [source] slot meant?",
        "line 4: [source] slto is not a key that the relay knows; is [source] slot meant?",
        "line 5: [source] slot: \"Bad Name\": must be 1 to 50 of a-z, 0-9 and _; for example slot = \"orders_relay\"",
        "line 6: [source] wal_sender_timeout_seconds: \"1\": must be a number from 3 to 3600",
        "line 7: [source] table: must be one value",
        "line 9: [strem] name is not a key that the relay knows; is [stream] name meant?",
    ] {
        assert!(refused.contains(expected), "{expected}\nin:\n{refused}");
    }
}

#[test]
fn no_error_and_no_help_repeats_a_password_of_the_file() {
    let refused = WHOLE.replace("postgres://", "mysql://");
    let broken = WHOLE.replace("/shop\"", "/shop");
    let beside = WHOLE.replace("\"shop\"", "\"Bad\"");
    for text in [refused, broken, beside] {
        let error = read_with(&text, &[]).unwrap_err();
        assert!(!error.contains("hunter2"), "{error}");
    }
    for flag in ["--help", "-h"] {
        let help = read_with(WHOLE, &[flag]).unwrap_err();
        assert!(help.contains("CDC_STREAM"), "{help}");
        assert!(!help.contains("hunter2"), "{help}");
    }
}

#[test]
fn the_version_names_the_commit() {
    assert!(VERSION.starts_with(env!("CARGO_PKG_VERSION")));
    let commit = VERSION
        .split_once(" (")
        .map(|(_, commit)| commit.trim_end_matches(')'));
    // Without git there is none.
    let digits = |commit: &str| commit.len() >= 7 && commit.chars().all(|c| c.is_ascii_hexdigit());
    assert!(commit.is_none_or(digits), "{VERSION}");
}

#[test]
fn the_arguments_are_described_without_contradiction() {
    command().debug_assert();
}
