//! A message's headers, in the form that they have on the wire: `Name: value`, a line each.
//!
//! The client keeps headers in a hash map of lists of strings, and building one for each event was two
//! thirds of the relay's time. So a whole block goes through it as the one header that the block begins
//! with, whose value holds the lines that follow.
//!
//! The danger: a line break in a value would smuggle a header in. Names and values are checked where they
//! are added, by the client's own rules, and nowhere else.

use std::{
    fmt::{Display, Write as _},
    sync::LazyLock,
};

use async_nats::{HeaderMap, HeaderValue, header::HeaderName};
use serde::{
    Deserialize as _,
    de::value::{Error as DeError, StringDeserializer},
};

/// Room for what an event usually carries, the headers of an append included.
const BLOCK_BYTES: usize = 512;

const END: &str = "\r\n";

/// Whether the client takes a block as a value. One that checks values here too gets them one by one.
static TAKES_BLOCKS: LazyLock<bool> = LazyLock::new(|| unchecked("a\r\nb: c".to_owned()).is_ok());

/// Headers by name, each at most once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    block: String,
}

/// A value that cannot stand in a header.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it holds a line break")]
pub struct LineBreak;

impl Headers {
    pub fn new() -> Self {
        Self {
            block: String::with_capacity(BLOCK_BYTES),
        }
    }

    /// Adds a header that is not there yet.
    ///
    /// # Errors
    /// A value of more than one line.
    pub fn push(&mut self, name: &'static str, value: &str) -> Result<(), LineBreak> {
        if value.contains(['\r', '\n']) {
            return Err(LineBreak);
        }
        self.line(name, value);
        Ok(())
    }

    /// Adds a header that is not there yet, whose value has one line by its type.
    pub fn push_own(&mut self, name: &'static str, value: impl Display) {
        // Writing to a String cannot fail.
        let _written = write!(self.block, "{name}: {value}{END}");
    }

    /// Adds a header unless it is there.
    pub fn add(&mut self, name: &HeaderName, value: &HeaderValue) {
        let name: &str = name.as_ref();
        if self.get(name).is_none() {
            self.line(name, value.as_str());
        }
    }

    /// Sets a header, which may be there already.
    pub fn set(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.remove(name.as_ref());
        self.line(name.as_ref(), value.as_str());
    }

    /// Takes a header away, and returns its value.
    pub fn remove(&mut self, name: &str) -> Option<String> {
        let value = self.get(name)?.to_owned();
        let mut kept = Self::new();
        for (other, value) in self.iter().filter(|(other, _)| *other != name) {
            kept.line(other, value);
        }
        *self = kept;
        Some(value)
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        let mut all = self.iter();
        all.find(|(known, _)| *known == name)
            .map(|(_, value)| value)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.block
            .split_terminator(END)
            .filter_map(|line| line.split_once(": "))
    }

    /// What they take on the wire: `NATS/1.0`, a line each, and an empty line.
    pub fn wire_bytes(&self) -> usize {
        12 + self.block.len()
    }

    /// As the client takes them.
    pub fn into_map(self) -> HeaderMap {
        if !*TAKES_BLOCKS {
            return self.one_by_one();
        }
        let Some((name, rest)) = self.block.split_once(": ") else {
            return HeaderMap::new();
        };
        let rest = rest.strip_suffix(END).unwrap_or(rest).to_owned();
        match (name.parse::<HeaderName>(), unchecked(rest)) {
            (Ok(name), Ok(value)) => [(name, value)].into_iter().collect(),
            _ => self.one_by_one(),
        }
    }

    fn one_by_one(&self) -> HeaderMap {
        let parsed = |(name, value): (&str, &str)| Some((name.parse().ok()?, value.parse().ok()?));
        self.iter().filter_map(parsed).collect()
    }

    fn line(&mut self, name: &str, value: &str) {
        for part in [name, ": ", value, END] {
            self.block.push_str(part);
        }
    }
}

/// The headers of a message that was received; of a name that stands several times, the last.
impl From<&HeaderMap> for Headers {
    fn from(map: &HeaderMap) -> Self {
        let mut headers = Self::new();
        for (name, values) in map.iter() {
            if let Some(value) = values.last() {
                headers.set(name, value);
            }
        }
        headers
    }
}

/// A value that the client does not look at.
fn unchecked(value: String) -> Result<HeaderValue, DeError> {
    HeaderValue::deserialize(StringDeserializer::new(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> HeaderName {
        text.parse().unwrap()
    }

    fn value(text: &str) -> HeaderValue {
        text.parse().unwrap()
    }

    fn some() -> Headers {
        let mut headers = Headers::new();
        headers.push("Nats-Msg-Id", "1").unwrap();
        headers.push_own("Cdc-Commit", 7);
        headers.add(&name("tenant"), &value("a: b"));
        headers
    }

    #[test]
    fn a_block_is_what_its_headers_one_by_one_are() {
        let sent = some().into_map();
        let mut text = String::new();
        for (name, values) in sent.iter() {
            for value in values {
                text.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        assert_eq!(text, "Nats-Msg-Id: 1\r\nCdc-Commit: 7\r\ntenant: a: b\r\n");
        assert_eq!(text.len() + 12, some().wire_bytes());
        assert_eq!(Headers::from(&some().one_by_one()).iter().count(), 3);
        assert!(*TAKES_BLOCKS, "the client checks now: the relay is slower");
    }

    #[test]
    fn a_value_of_two_lines_is_refused() {
        let mut headers = some();
        for wrong in ["a\r\nNats-Rollup: all", "a\nb", "a\r"] {
            assert_eq!(headers.push("Event-Type", wrong), Err(LineBreak));
            assert!(wrong.parse::<HeaderValue>().is_err());
        }
        assert_eq!(headers, some());
    }

    #[test]
    fn a_header_is_there_once() {
        let mut headers = some();
        headers.add(&name("Nats-Msg-Id"), &value("2"));
        assert_eq!(headers.get("Nats-Msg-Id"), Some("1"));
        headers.set(&name("Nats-Msg-Id"), &value("2"));
        assert_eq!(headers.get("Nats-Msg-Id"), Some("2"));
        assert_eq!(headers.remove("tenant").as_deref(), Some("a: b"));
        assert_eq!(headers.iter().count(), 2);
        assert_eq!(headers.get("tenant"), None);
        assert!(Headers::new().into_map().is_empty());
    }
}
