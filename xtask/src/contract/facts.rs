//! `.proto` files → facts, and facts ↔ lines: `field money.v1.Money 1 = int64 minor_units (JSON minorUnits)`.
//!
//! What stands before ` = ` names something that others rely on; what stands behind it, what they rely on.

use std::collections::BTreeMap;
use std::fmt;

use protox::prost_reflect::{
    Cardinality, EnumDescriptor, FieldDescriptor, FileDescriptor, Kind, MessageDescriptor,
    MethodDescriptor, ServiceDescriptor,
};

/// Of a reserved range of more numbers than this, the range is the fact; of others, each number.
const RANGE_MAX: i64 = 100;

/// The facts, in the order in which they are written.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Facts {
    order: Vec<String>,
    values: BTreeMap<String, String>,
}

impl Facts {
    /// Those of `.proto` files.
    pub(super) fn of(files: &[FileDescriptor]) -> Self {
        let mut facts = Self::default();
        for file in files {
            facts.file(file);
        }
        facts
    }

    /// Reads what [`fmt::Display`] has written; fails with the line that is none.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut facts = Self::default();
        for line in text.lines() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (key, value) = line.split_once(" = ").ok_or(line)?;
            facts.add(key.to_owned(), value.to_owned());
        }
        Ok(facts)
    }

    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    /// Keys with values, in their order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let value = |key: &String| self.values.get(key).map(String::as_str);
        self.order
            .iter()
            .filter_map(move |key| Some((key.as_str(), value(key)?)))
    }

    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str)
    }

    /// The lines of which `other` has none.
    pub(super) fn beside(&self, other: &Self) -> Vec<String> {
        self.iter()
            .filter(|(key, _)| other.get(key).is_none())
            .map(|(key, value)| format!("{key} = {value}"))
            .collect()
    }

    fn add(&mut self, key: String, value: String) {
        if self.values.insert(key.clone(), value).is_none() {
            self.order.push(key);
        }
    }

    fn file(&mut self, file: &FileDescriptor) {
        let syntax = format!("{:?}", file.syntax()).to_lowercase();
        let value = format!("package {}, {syntax}", file.package_name());
        self.add(format!("file {}", file.name()), value);
        // By name and by number: what only moves about in its file leaves the text as it was.
        for service in by_name(file.services(), |one| one.full_name().to_owned()) {
            self.service(&service);
        }
        for one in by_name(file.enums(), |one| one.full_name().to_owned()) {
            self.enumeration(&one);
        }
        for message in by_name(file.messages(), |one| one.full_name().to_owned()) {
            self.message(&message);
        }
    }

    fn service(&mut self, service: &ServiceDescriptor) {
        let name = service.full_name();
        let file = service.parent_file().name().to_owned();
        self.add(format!("service {name}"), file);
        for method in by_name(service.methods(), |one| one.name().to_owned()) {
            self.add(format!("rpc {name} {}", method.name()), signature(&method));
        }
    }

    fn enumeration(&mut self, one: &EnumDescriptor) {
        let name = one.full_name();
        self.add(format!("enum {name}"), one.parent_file().name().to_owned());
        let mut values: Vec<_> = one.values().collect();
        values.sort_by_key(|value| (value.number(), value.name().to_owned()));
        for value in values {
            let key = format!("value {name} {}", value.name());
            self.add(key, value.number().to_string());
        }
        for range in one.reserved_ranges() {
            self.reserve(name, i64::from(*range.start()), i64::from(*range.end()));
        }
        self.reserve_names(name, one.reserved_names());
    }

    fn message(&mut self, message: &MessageDescriptor) {
        if message.is_map_entry() {
            return; // Its field says it.
        }
        let name = message.full_name();
        let file = message.parent_file().name().to_owned();
        self.add(format!("message {name}"), file);
        let mut fields: Vec<_> = message.fields().collect();
        fields.sort_by_key(FieldDescriptor::number);
        for field in &fields {
            self.add(format!("field {name} {}", field.number()), promised(field));
        }
        for range in message.reserved_ranges() {
            self.reserve(name, i64::from(range.start), i64::from(range.end) - 1);
        }
        self.reserve_names(name, message.reserved_names());
        for one in by_name(message.child_enums(), |one| one.full_name().to_owned()) {
            self.enumeration(&one);
        }
        for child in by_name(message.child_messages(), |one| one.full_name().to_owned()) {
            self.message(&child);
        }
    }

    fn reserve(&mut self, owner: &str, first: i64, last: i64) {
        if last - first >= RANGE_MAX {
            let key = format!("reserved {owner} {first}-{last}");
            return self.add(key, "range".to_owned());
        }
        for number in first..=last {
            self.add(format!("reserved {owner} {number}"), "number".to_owned());
        }
    }

    fn reserve_names<'a>(&mut self, owner: &str, names: impl Iterator<Item = &'a str>) {
        for name in by_name(names, |name| (*name).to_owned()) {
            self.add(format!("reserved {owner} {name}"), "name".to_owned());
        }
    }
}

impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (key, value) in self.iter() {
            writeln!(f, "{key} = {value}")?;
        }
        Ok(())
    }
}

fn by_name<T>(all: impl Iterator<Item = T>, name: impl Fn(&T) -> String) -> Vec<T> {
    let mut all: Vec<_> = all.collect();
    all.sort_by_key(name);
    all
}

/// `orders.v1.GetOrderRequest -> stream orders.v1.Order`.
fn signature(method: &MethodDescriptor) -> String {
    let stream = |is_one: bool| if is_one { "stream " } else { "" };
    let (input, output) = (method.input(), method.output());
    format!(
        "{}{} -> {}{}",
        stream(method.is_client_streaming()),
        input.full_name(),
        stream(method.is_server_streaming()),
        output.full_name(),
    )
}

/// `repeated string names (JSON names)`: all that the wire, JSON and generated code show of it.
fn promised(field: &FieldDescriptor) -> String {
    let oneof = field.containing_oneof();
    let label = match (field.cardinality(), &oneof) {
        _ if field.is_map() => "",
        (Cardinality::Repeated, _) => "repeated ",
        (Cardinality::Required, _) => "required ",
        (Cardinality::Optional, Some(one)) if one.is_synthetic() => "optional ",
        (Cardinality::Optional, _) => "",
    };
    let within = match oneof {
        Some(one) if !one.is_synthetic() => format!(", in oneof {}", one.name()),
        _ => String::new(),
    };
    format!(
        "{label}{} {} (JSON {}{within})",
        kind(field),
        field.name(),
        field.json_name()
    )
}

fn kind(field: &FieldDescriptor) -> String {
    match field.kind() {
        Kind::Message(entry) if field.is_map() => format!(
            "map<{}, {}>",
            kind(&entry.map_entry_key_field()),
            kind(&entry.map_entry_value_field())
        ),
        Kind::Message(message) => message.full_name().to_owned(),
        Kind::Enum(one) => one.full_name().to_owned(),
        scalar => format!("{scalar:?}").to_lowercase(),
    }
}
