//! What the `.proto` files do not explain. They are the API's documentation: each service, rpc, message, field,
//! enum and value says in a comment before it what it means, in which unit and within which limits.

use std::collections::BTreeSet;

use protox::prost_reflect::{EnumDescriptor, FileDescriptor, MessageDescriptor};

/// What has no comment before it, in the order of the files.
pub(super) fn missing(files: &[FileDescriptor]) -> Vec<String> {
    files.iter().flat_map(in_file).collect()
}

fn in_file(file: &FileDescriptor) -> Vec<String> {
    let source = file.file_descriptor_proto().source_code_info.as_ref();
    let locations = source.map_or(&[][..], |source| &source.location);
    let commented = locations
        .iter()
        .filter(|location| !location.leading_comments().trim().is_empty())
        .map(|location| location.path.clone());
    let mut look = Look {
        commented: commented.collect(),
        file: file.name(),
        missing: Vec::new(),
    };
    for service in file.services() {
        look.at("service", service.full_name(), service.path());
        for method in service.methods() {
            look.at("rpc", method.full_name(), method.path());
        }
    }
    for one in file.enums() {
        look.at_enum(&one);
    }
    for message in file.messages() {
        look.at_message(&message);
    }
    look.missing
}

/// A look through one file.
struct Look<'a> {
    /// By their paths in the file's descriptor.
    commented: BTreeSet<Vec<i32>>,
    file: &'a str,
    missing: Vec<String>,
}

impl Look<'_> {
    fn at(&mut self, kind: &str, name: &str, path: &[i32]) {
        if !self.commented.contains(path) {
            let file = self.file;
            self.missing.push(format!("{file}: {kind} {name}"));
        }
    }

    fn at_enum(&mut self, one: &EnumDescriptor) {
        self.at("enum", one.full_name(), one.path());
        for value in one.values() {
            self.at("value", value.full_name(), value.path());
        }
    }

    fn at_message(&mut self, message: &MessageDescriptor) {
        if message.is_map_entry() {
            return; // Its field says it.
        }
        self.at("message", message.full_name(), message.path());
        for field in message.fields() {
            self.at("field", field.full_name(), field.path());
        }
        for oneof in message.oneofs().filter(|oneof| !oneof.is_synthetic()) {
            self.at("oneof", oneof.full_name(), oneof.path());
        }
        for one in message.child_enums() {
            self.at_enum(&one);
        }
        for child in message.child_messages() {
            self.at_message(&child);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::contract::compiled;

    const FILE: &str = "\
syntax = \"proto3\";
package shop.v1;

// Sells.
service Shop {
  // Takes an order.
  rpc Take(Asked) returns (Given);
}

// A state.
enum State {
  // Not sent.
  STATE_UNSPECIFIED = 0;
  // Open.
  STATE_OPEN = 1;
}

// A question.
message Asked {
  // Which order.
  string order_id = 1;
  // One of the two.
  oneof choice {
    // A number.
    int64 number = 2;
    // A word.
    string word = 3;
  }
  // How many of each.
  map<string, int32> counts = 4;
  // A note.
  optional string note = 5;
}

// An answer.
message Given {
  // A state.
  State state = 1;
  // Inside.
  message Inner {
    // Or not.
    bool yes = 1;
  }
  // Inside, an enum.
  enum Inside {
    // Not sent.
    INSIDE_UNSPECIFIED = 0;
  }
}
";

    fn missing_in(text: &str) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.proto"), text).unwrap();
        missing(&compiled(folder.path()).unwrap())
    }

    #[test]
    fn each_thing_that_is_not_explained_is_named() {
        assert_eq!(missing_in(FILE), Vec::<String>::new());
        let things = [
            ("Sells.", "service shop.v1.Shop"),
            ("Takes an order.", "rpc shop.v1.Shop.Take"),
            ("A state.\nenum", "enum shop.v1.State"),
            ("Open.", "value shop.v1.STATE_OPEN"),
            ("A question.", "message shop.v1.Asked"),
            ("Which order.", "field shop.v1.Asked.order_id"),
            ("One of the two.", "oneof shop.v1.Asked.choice"),
            ("A word.", "field shop.v1.Asked.word"),
            ("How many of each.", "field shop.v1.Asked.counts"),
            ("A note.", "field shop.v1.Asked.note"),
            ("Inside.", "message shop.v1.Given.Inner"),
            ("Or not.", "field shop.v1.Given.Inner.yes"),
            ("Inside, an enum.", "enum shop.v1.Given.Inside"),
        ];
        for (comment, thing) in things {
            let text = comment.split('\n').next().unwrap_or_default();
            let without = FILE.replacen(comment, &comment.replace(text, ""), 1);
            assert_ne!(without, FILE);
            assert_eq!(missing_in(&without), [format!("a.proto: {thing}")]);
            // A comment behind it, or one apart from it, is none.
            let line = format!("// {text}\n");
            let apart = FILE.replacen(&line, &format!("{line}\n"), 1);
            assert_eq!(missing_in(&apart), [format!("a.proto: {thing}")]);
        }
    }
}
