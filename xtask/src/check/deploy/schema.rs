//! A value against a JSON schema, of which only what Kubernetes' schemas use is known: a keyword that is
//! not known here is an error, rather than passed over.

use serde_json::{Map, Value};

/// Keywords that say nothing about a value's form. Formats are Kubernetes' own; what matters of them is in
/// the rules.
const SILENT: [&str; 8] = [
    "$id",
    "$schema",
    "default",
    "description",
    "format",
    "title",
    "deprecated",
    "$comment",
];
/// Deeper than any object is: a schema that refers to itself ends here.
const DEPTH_MAX: usize = 64;

/// Finds the schema that a reference names.
pub(super) trait Definitions {
    fn find(&self, reference: &str) -> Option<&Value>;
}

/// What of `value` the schema does not allow, by where it stands.
pub(super) fn broken(value: &Value, schema: &Value, definitions: &dyn Definitions) -> Vec<String> {
    let mut found = Vec::new();
    let mut look = Look {
        definitions,
        found: &mut found,
    };
    look.at("", value, schema, 0);
    found
}

struct Look<'a> {
    definitions: &'a dyn Definitions,
    found: &'a mut Vec<String>,
}

impl Look<'_> {
    fn at(&mut self, path: &str, value: &Value, schema: &Value, depth: usize) {
        let Some(schema) = schema.as_object() else {
            // `true` allows everything; there is no `false`.
            return;
        };
        if depth > DEPTH_MAX {
            self.say(path, "stands too deep to be looked at");
            return;
        }
        for (keyword, told) in schema {
            match keyword.as_str() {
                "$ref" => {
                    let reference = told.as_str().unwrap_or_default();
                    match self.definitions.find(reference) {
                        Some(named) => self.at(path, value, named, depth + 1),
                        None => self.say(path, &format!("its schema {reference} is unknown")),
                    }
                }
                "type" => self.kind(path, value, told),
                "enum" => {
                    if !told
                        .as_array()
                        .is_some_and(|allowed| allowed.contains(value))
                    {
                        self.say(path, &format!("is {value}, and must be one of {told}"));
                    }
                }
                "required" => self.required(path, value, told),
                "properties" | "additionalProperties" => {}
                "items" => {
                    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                        self.at(&format!("{path}[{index}]"), item, told, depth + 1);
                    }
                }
                "oneOf" | "anyOf" => self.any(path, value, told, depth),
                other if SILENT.contains(&other) || other.starts_with("x-kubernetes-") => {}
                other => self.say(path, &format!("its schema has the unknown keyword {other}")),
            }
        }
        if let Some(members) = value.as_object() {
            self.members(path, members, schema, depth);
        }
    }

    /// Known members by their schemas, and the others by `additionalProperties`, or not at all.
    fn members(
        &mut self,
        path: &str,
        members: &Map<String, Value>,
        schema: &Map<String, Value>,
        depth: usize,
    ) {
        let known = schema.get("properties").and_then(Value::as_object);
        for (name, member) in members {
            let path = format!("{path}.{name}");
            match known.and_then(|known| known.get(name)) {
                Some(schema) => self.at(&path, member, schema, depth + 1),
                None => match schema.get("additionalProperties") {
                    Some(Value::Bool(false)) => self.say(&path, "is unknown"),
                    Some(other) => self.at(&path, member, other, depth + 1),
                    None => {}
                },
            }
        }
    }

    fn required(&mut self, path: &str, value: &Value, told: &Value) {
        let Some(members) = value.as_object() else {
            return;
        };
        let names = told.as_array().into_iter().flatten();
        for name in names.filter_map(Value::as_str) {
            if !members.contains_key(name) {
                self.say(path, &format!("lacks {name}"));
            }
        }
    }

    fn kind(&mut self, path: &str, value: &Value, told: &Value) {
        let fits = match told {
            Value::Array(several) => several.iter().any(|one| is(value, one)),
            one => is(value, one),
        };
        if !fits {
            self.say(path, &format!("is {value}, and must be of type {told}"));
        }
    }

    /// What fits one fits: Kubernetes means no more by `oneOf`.
    fn any(&mut self, path: &str, value: &Value, told: &Value, depth: usize) {
        let fits = told.as_array().into_iter().flatten().any(|schema| {
            let mut found = Vec::new();
            let mut look = Look {
                definitions: self.definitions,
                found: &mut found,
            };
            look.at(path, value, schema, depth + 1);
            found.is_empty()
        });
        if !fits {
            self.say(path, &format!("is {value}, which fits none of {told}"));
        }
    }

    fn say(&mut self, path: &str, what: &str) {
        let path = if path.is_empty() { "it" } else { path };
        self.found.push(format!("{path} {what}"));
    }
}

fn is(value: &Value, kind: &Value) -> bool {
    match kind.as_str().unwrap_or_default() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64(),
        "null" => value.is_null(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    struct Named(Value);

    impl Definitions for Named {
        fn find(&self, reference: &str) -> Option<&Value> {
            self.0.get(reference)
        }
    }

    fn looked(value: Value) -> Vec<String> {
        let names =
            Named(json!({ "port": { "oneOf": [{ "type": "string" }, { "type": "integer" }] } }));
        let schema = json!({
            "type": "object",
            "required": ["kind"],
            "additionalProperties": false,
            "properties": {
                "kind": { "type": ["string", "null"], "enum": ["Service"] },
                "ports": { "type": "array", "items": { "$ref": "port" } },
                "labels": { "type": "object", "additionalProperties": { "type": "string" } },
            },
        });
        broken(&value, &schema, &names)
    }

    #[test]
    fn what_fits_is_left_alone() {
        let fits = json!({ "kind": "Service", "ports": [1, "grpc"], "labels": { "a": "b" } });
        assert_eq!(looked(fits), Vec::<String>::new());
    }

    #[test]
    fn what_does_not_fit_is_named_by_its_place() {
        for (value, said) in [
            (json!({ "kind": "Service", "port": 1 }), ".port is unknown"),
            (json!({}), "it lacks kind"),
            (json!({ "kind": "Servce" }), ".kind is \"Servce\""),
            (
                json!({ "kind": "Service", "ports": [true] }),
                ".ports[0] is true",
            ),
            (json!({ "kind": "Service", "ports": 1 }), ".ports is 1"),
            (
                json!({ "kind": "Service", "labels": { "a": 1 } }),
                ".labels.a is 1",
            ),
        ] {
            let found = looked(value);
            assert!(found[0].starts_with(said), "{found:?}");
        }
    }

    #[test]
    fn a_schema_that_is_not_understood_is_not_passed_over() {
        let nothing = Named(json!({}));
        let found = broken(&json!("a"), &json!({ "pattern": "^a" }), &nothing);
        assert_eq!(found, ["it its schema has the unknown keyword pattern"]);
        let found = broken(&json!("a"), &json!({ "$ref": "b" }), &nothing);
        assert_eq!(found, ["it its schema b is unknown"]);
    }
}
