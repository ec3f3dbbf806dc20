//! `quarantine show`.

use std::{fs, path::PathBuf};

use anyhow::Context as _;
use clap::Args;
use serde_json::{Map, Value, json};

use super::{list::to_json, named, one, say};
use crate::quarantine::{self, Form, Row, Store, Value as Column};

/// Characters of a value that are shown; `--payload` and `--json` give all.
const SHOWN_MAX: usize = 200;

#[derive(Args, Clone, Debug)]
pub struct Show {
    /// The item, as `list` names it, or its event's id
    #[arg(value_name = "ID")]
    id: String,
    /// Writes the payload's bytes to this file
    #[arg(long, value_name = "FILE")]
    payload: Option<PathBuf>,
    /// As one JSON document; bytes that are no text as `\x…`
    #[arg(long)]
    json: bool,
}

impl Show {
    /// `column` holds the payload.
    pub(super) async fn run(&self, store: &Store, column: &str) -> anyhow::Result<()> {
        let mut decided = named(store, &self.id, true).await?;
        decided.retain(|item| !item.meta.is_open());
        let item = match one(store, &self.id).await {
            Ok(item) => item,
            // Its bytes are gone, and its story is not.
            Err(error) => decided.pop().ok_or(error)?,
        };
        let (mut columns, mut payload) = (Map::new(), None);
        if item.meta.is_open()
            && let Some((meta, message)) = store.item(&item.place).await?
        {
            let body = store.body(&item.place, &meta, message.payload).await?;
            (columns, payload) = contents(meta.form, &body, column);
        }
        if let Some(path) = &self.payload {
            let payload = payload.context("it has no payload that can be read")?;
            fs::write(path, payload).with_context(|| path.display().to_string())?;
        }
        let mut document = to_json(&item);
        if let Value::Object(document) = &mut document {
            document.insert("row".to_owned(), Value::Object(columns));
        }
        if self.json {
            return say(&document.to_string());
        }
        let Value::Object(document) = document else {
            return Ok(());
        };
        for (name, value) in document.iter().filter(|(name, _)| *name != "row") {
            say(&shown(name, value))?;
        }
        say("row:")?;
        let row = document.get("row").and_then(Value::as_object);
        for (name, value) in row.into_iter().flatten() {
            say(&format!("  {}", shown(name, value)))?;
        }
        Ok(())
    }
}

fn shown(name: &str, value: &Value) -> String {
    let text = match value {
        Value::Null => "(none)".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let cut = text.char_indices().nth(SHOWN_MAX).map(|(at, _)| at);
    let text = match cut {
        Some(at) => format!("{}… ({} bytes)", &text[..at], text.len()),
        None => text,
    };
    format!("{name}: {}", text.replace(char::is_control, " "))
}

/// The row's columns, or the message's parts, and the payload's bytes.
fn contents(
    form: Form,
    body: &bytes::Bytes,
    column: &str,
) -> (Map<String, Value>, Option<Vec<u8>>) {
    let mut columns = Map::new();
    let mut payload = None;
    match form {
        Form::Row => {
            let row = Row::decode(body);
            for (name, value) in row.iter().flat_map(Row::values) {
                let value = match value {
                    Some(Ok(Column::Text(bytes))) => {
                        if name == column {
                            payload = Some(unhex(bytes));
                        }
                        text(bytes)
                    }
                    Some(Ok(Column::Binary(bytes))) => {
                        if name == column {
                            payload = Some(bytes.to_vec());
                        }
                        text(bytes)
                    }
                    Some(Ok(Column::Null | Column::Unchanged)) => Value::Null,
                    None | Some(Err(_)) => json!("(cannot be decoded)"),
                };
                columns.insert(name, value);
            }
        }
        Form::Message => {
            if let Some((subject, headers, bytes)) = quarantine::decode_message(body) {
                columns.insert("subject".to_owned(), json!(subject));
                for (name, value) in headers.iter() {
                    columns.insert(name.to_owned(), json!(value));
                }
                columns.insert("payload".to_owned(), text(&bytes));
                payload = Some(bytes.to_vec());
            }
        }
    }
    (columns, payload)
}

fn text(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => json!(text),
        Err(_) => json!(format!("\\x{}", hex(bytes))),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes that Postgres sent as text in its hex form; other text as it is.
fn unhex(text: &[u8]) -> Vec<u8> {
    let digits = text.strip_prefix(b"\\x").unwrap_or_default();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let bytes: Option<Vec<u8>> = digits.chunks(2).map(byte).collect();
    match bytes {
        Some(bytes) if text.starts_with(b"\\x") => bytes,
        _ => text.to_vec(),
    }
}
