//! Pairs of small `.proto` files: what breaks is found, what only adds is not.

use super::*;

const BEFORE: &str = "
    service Shop {
      rpc Take(Asked) returns (Given);
      rpc Watch(Asked) returns (stream Given);
    }
    enum State { STATE_UNSPECIFIED = 0; STATE_OPEN = 1; }
    message Asked {
      reserved 4, 6 to 7;
      reserved \"old\";
      string order_id = 1;
      repeated string names = 2;
      oneof choice { int64 number = 3; string word = 5; }
      map<string, int32> counts = 8;
      optional string note = 9;
    }
    message Given { State state = 1; Inner inner = 2; message Inner { bool yes = 1; } }
";

fn facts(package: &str, body: &str) -> Facts {
    let folder = tempfile::tempdir().unwrap();
    let text = format!("syntax = \"proto3\";\npackage {package};\n{body}");
    fs::write(folder.path().join("a.proto"), text).unwrap();
    Facts::of(&compiled(folder.path()).unwrap())
}

/// What breaks when `old` is replaced by `new` in the file.
fn broken_by(old: &str, new: &str) -> Vec<String> {
    assert!(BEFORE.contains(old), "{old}");
    let before = facts("shop.v1", BEFORE);
    breaks::find(&before, &facts("shop.v1", &BEFORE.replace(old, new)))
}

#[track_caller]
fn breaks(old: &str, new: &str, told: &[&str]) {
    assert_eq!(broken_by(old, new), told, "{old} → {new}");
}

#[test]
fn fields_keep_number_type_label_and_names() {
    let id = "field shop.v1.Asked 1: was `string order_id (JSON orderId)`";
    let now = |now: &str| format!("{id}, is now `{now}`");
    breaks(
        "string order_id = 1;",
        "",
        &[&format!(
            "{id}, is gone (to reserve its number and name is not enough: stored events have it)"
        )],
    );
    let moved = format!("{id}, is gone (now field shop.v1.Asked 10)");
    breaks("order_id = 1", "order_id = 10", &[&moved]);
    breaks(
        "string order_id",
        "bytes order_id",
        &[&now("bytes order_id (JSON orderId)")],
    );
    breaks("order_id", "id", &[&now("string id (JSON id)")]);
    breaks(
        "order_id = 1",
        "order_id = 1 [json_name = \"order\"]",
        &[&now("string order_id (JSON order)")],
    );
    breaks(
        "string order_id",
        "repeated string order_id",
        &[&now("repeated string order_id (JSON orderId)")],
    );
    breaks(
        "string order_id",
        "optional string order_id",
        &[&now("optional string order_id (JSON orderId)")],
    );
    assert_eq!(broken_by("repeated string names", "string names").len(), 1);
    assert_eq!(broken_by("optional string note", "string note").len(), 1);
    assert_eq!(
        broken_by("map<string, int32>", "map<string, int64>").len(),
        1
    );
    assert_eq!(broken_by("State state = 1", "int32 state = 1").len(), 1);
    assert_eq!(broken_by("Inner inner = 2", "Asked inner = 2").len(), 1);
    assert_eq!(broken_by("oneof choice", "oneof other").len(), 2);
    let out = (
        "oneof choice { int64 number = 3; string word = 5; }",
        "int64 number = 3; string word = 5;",
    );
    assert_eq!(broken_by(out.0, out.1).len(), 2);
}

#[test]
fn what_is_reserved_stays_so() {
    let gone = |what: &str, kind: &str| {
        format!("reserved shop.v1.Asked {what}: was `{kind}`, is gone (it may never be used again)")
    };
    breaks(
        "reserved 4, 6 to 7;",
        "reserved 4, 6;",
        &[&gone("7", "number")],
    );
    breaks(
        "reserved 4, 6 to 7;",
        "reserved 6 to 7; bool again = 4;",
        &[&gone("4", "number")],
    );
    breaks(
        "reserved \"old\";",
        "bool old = 10;",
        &[&gone("old", "name")],
    );
    breaks("reserved 4, 6 to 7;", "reserved 4, 6, 7, 10 to 12;", &[]);
}

#[test]
fn values_keep_number_and_name() {
    let open = "value shop.v1.State STATE_OPEN: was `1`";
    breaks("STATE_OPEN = 1;", "", &[&format!("{open}, is gone")]);
    breaks(
        "STATE_OPEN = 1",
        "STATE_OPEN = 2",
        &[&format!("{open}, is now `2`")],
    );
    let renamed = format!("{open}, is gone (now value shop.v1.State STATE_NEW)");
    breaks("STATE_OPEN = 1", "STATE_NEW = 1", &[&renamed]);
}

#[test]
fn operations_keep_name_messages_and_streams() {
    let take = "rpc shop.v1.Shop Take: was `shop.v1.Asked -> shop.v1.Given`";
    breaks(
        "rpc Take(Asked) returns (Given);",
        "",
        &[&format!("{take}, is gone")],
    );
    breaks(
        "rpc Take",
        "rpc Get",
        &[&format!("{take}, is gone (now rpc shop.v1.Shop Get)")],
    );
    let streams = format!("{take}, is now `shop.v1.Asked -> stream shop.v1.Given`");
    breaks(
        "Take(Asked) returns (Given)",
        "Take(Asked) returns (stream Given)",
        &[&streams],
    );
    assert_eq!(
        broken_by("returns (stream Given)", "returns (Given)").len(),
        1
    );
    assert_eq!(broken_by("Take(Asked)", "Take(stream Asked)").len(), 1);
    assert_eq!(broken_by("Take(Asked)", "Take(Given)").len(), 1);
}

#[test]
fn what_goes_as_a_whole_is_told_once() {
    breaks(
        "service Shop {",
        "service Store {",
        &["service shop.v1.Shop: was `a.proto`, is gone"],
    );
    let before = facts("shop.v1", BEFORE);
    let renamed = facts("shop.v1", &BEFORE.replace("Inner", "Other"));
    let field = |name: &str| format!("{name} inner (JSON inner)");
    let (was, is) = (field("shop.v1.Given.Inner"), field("shop.v1.Given.Other"));
    let told = [
        format!("field shop.v1.Given 2: was `{was}`, is now `{is}`"),
        "message shop.v1.Given.Inner: was `a.proto`, is gone".to_owned(),
    ];
    assert_eq!(breaks::find(&before, &renamed), told);
}

#[test]
fn a_package_and_a_file_keep_their_names() {
    let before = facts("shop.v1", BEFORE);
    let found = breaks::find(&before, &facts("shop.v2", BEFORE));
    let told = "file a.proto: was `package shop.v1, proto3`, is now `package shop.v2, proto3`";
    assert_eq!(found, [told]);
    let empty = breaks::find(&before, &Facts::default());
    assert_eq!(
        empty,
        ["file a.proto: was `package shop.v1, proto3`, is gone"]
    );
}

#[test]
fn what_is_added_or_moves_about_in_its_file_breaks_nothing() {
    breaks(
        "string order_id = 1;",
        "string order_id = 1; string tail = 10;",
        &[],
    );
    breaks("STATE_OPEN = 1;", "STATE_OPEN = 1; STATE_SHUT = 2;", &[]);
    breaks(
        "rpc Take(",
        "rpc Put(Asked) returns (Given); rpc Take(",
        &[],
    );
    breaks(
        "enum State",
        "message Further { bool yes = 1; } enum State",
        &[],
    );
    breaks(
        "string order_id = 1;",
        "// said better\nstring order_id = 1 [deprecated = true];",
        &[],
    );
    let before = facts("shop.v1", BEFORE);
    let moved = BEFORE.replace("string order_id = 1;", "");
    let moved = moved.replace(
        "optional string note = 9;",
        "optional string note = 9; string order_id = 1;",
    );
    assert_eq!(facts("shop.v1", &moved).to_string(), before.to_string());
    let grown = BEFORE.replace("STATE_OPEN = 1;", "STATE_OPEN = 1; STATE_SHUT = 2;");
    let added = facts("shop.v1", &grown).beside(&before);
    assert_eq!(added, ["value shop.v1.State STATE_SHUT = 2"]);
}

#[test]
fn facts_are_read_as_they_were_written() {
    let before = facts("shop.v1", BEFORE);
    assert_eq!(Facts::parse(&written(&before)).unwrap(), before);
    assert_eq!(Facts::parse("nonsense").unwrap_err(), "nonsense");
}

#[test]
fn this_tree_keeps_its_contract() {
    check().unwrap();
}
