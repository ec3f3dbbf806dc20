//! A report against `report.schema.json`: of JSON Schema, what that file uses; a word that is not known fails.

use serde_json::Value;

const SCHEMA: &str = include_str!("../../report.schema.json");
/// Said of a schema, and not of what it describes.
const REMARKS: [&str; 4] = ["$schema", "$defs", "title", "description"];

pub(crate) fn assert_described(report: &Value) {
    let schema: Value = serde_json::from_str(SCHEMA).expect("JSON");
    let mut wrong = Vec::new();
    check(&schema, &schema, report, "", &mut wrong);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn check(root: &Value, schema: &Value, value: &Value, at: &str, wrong: &mut Vec<String>) {
    for (word, said) in schema.as_object().expect("a schema is an object") {
        let fine = match word.as_str() {
            "$ref" => {
                let pointer = said.as_str().and_then(|text| text.strip_prefix('#'));
                let meant = root.pointer(pointer.expect("a place in the file"));
                check(root, meant.expect("it is there"), value, at, wrong);
                true
            }
            "const" => value == said,
            "enum" => said.as_array().is_some_and(|all| all.contains(value)),
            "type" => match said {
                Value::Array(all) => all.iter().any(|one| is_of(one, value)),
                one => is_of(one, value),
            },
            "required" => said.as_array().is_some_and(|all| {
                all.iter()
                    .all(|name| value.get(name.as_str().unwrap_or_default()).is_some())
            }),
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    check(root, said, item, &format!("{at}/{index}"), wrong);
                }
                true
            }
            "properties" => {
                for (name, schema) in said.as_object().expect("an object") {
                    if let Some(field) = value.get(name) {
                        check(root, schema, field, &format!("{at}/{name}"), wrong);
                    }
                }
                true
            }
            "additionalProperties" => {
                let known = &schema["properties"];
                let others = value.as_object().into_iter().flatten();
                let mut others = others.filter(|(name, _)| known.get(name).is_none());
                match said {
                    Value::Bool(true) => true,
                    Value::Bool(false) => others.next().is_none(),
                    schema => {
                        for (name, field) in others {
                            check(root, schema, field, &format!("{at}/{name}"), wrong);
                        }
                        true
                    }
                }
            }
            word => REMARKS.contains(&word),
        };
        if !fine {
            let value: String = value.to_string().chars().take(200).collect();
            wrong.push(format!("{at}: {word} {said} does not hold of {value}"));
        }
    }
}

fn is_of(kind: &Value, value: &Value) -> bool {
    match kind.as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        Some("null") => value.is_null(),
        _ => false,
    }
}

#[test]
fn what_is_not_as_described_is_found() {
    let schema = serde_json::json!({
        "type": "object", "required": ["a"], "additionalProperties": false,
        "properties": {"a": {"type": ["integer", "null"]}, "b": {"enum": ["x"]}}
    });
    let found = |value: Value| {
        let mut wrong = Vec::new();
        check(&schema, &schema, &value, "", &mut wrong);
        wrong.len()
    };
    assert_eq!(found(serde_json::json!({"a": 1, "b": "x"})), 0);
    assert_eq!(found(serde_json::json!({"a": null})), 0);
    for wrong in [
        r#"{}"#,
        r#"{"a":"1"}"#,
        r#"{"a":1,"b":"y"}"#,
        r#"{"a":1,"c":1}"#,
        "[]",
    ] {
        assert!(found(serde_json::from_str(wrong).unwrap()) > 0, "{wrong}");
    }
}
