//! What stands in an overlay's secrets and config maps.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

use crate::manifests::object::{Object, Overlay};

/// All of an object's values.
pub(super) fn values(
    overlay: &Overlay,
    kind: &str,
    name: &str,
) -> Result<BTreeMap<String, Vec<u8>>> {
    let object = overlay.of_kind(kind).find(|object| object.name() == name);
    let object = object.with_context(|| format!("there is no {kind} {name}"))?;
    let mut found = BTreeMap::new();
    for part in ["data", "stringData"] {
        let members = object.value[part].as_object();
        for (key, value) in members.into_iter().flatten() {
            let value = value.as_str().unwrap_or_default();
            // Of a secret, and of nothing else, `data` is encoded.
            let bytes = match kind == "Secret" && part == "data" {
                true => STANDARD
                    .decode(value)
                    .with_context(|| format!("{key} of the Secret {name}"))?,
                false => value.as_bytes().to_vec(),
            };
            found.insert(key.clone(), bytes);
        }
    }
    Ok(found)
}

/// One of them.
pub(super) fn value(overlay: &Overlay, kind: &str, name: &str, key: &str) -> Result<Vec<u8>> {
    let found = values(overlay, kind, name)?.remove(key);
    found.with_context(|| format!("the {kind} {name} has no {key}"))
}

/// A secret of these texts.
pub(super) fn secret(name: &str, values: &[(&str, String)]) -> Object {
    let values: Map<_, _> = values
        .iter()
        .map(|(key, value)| ((*key).to_owned(), Value::from(value.as_str())))
        .collect();
    Object {
        value: json!({ "kind": "Secret", "metadata": { "name": name }, "stringData": values }),
    }
}
