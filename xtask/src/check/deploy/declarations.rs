//! The types of custom resources, as schemas, from TypeScript declarations that two generators have made
//! from the resources' definitions: `readonly name?: Type;` after a comment with the field's real name, and
//! `"name"?: Type;`. What of a declaration is not read is an error.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

/// The schemas by the names that types refer to each other by.
pub(super) type Schemas = BTreeMap<String, Value>;

/// Adds what `text` declares.
pub(super) fn read(text: &str, schemas: &mut Schemas) -> Result<()> {
    let mut own = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(head) = line.strip_prefix("export interface ") {
            let body = block(&mut lines);
            let (name, schema) = interface(head, &body).with_context(|| format!("in {head}"))?;
            own.push((name, schema));
        } else if let Some(head) = line.strip_prefix("export declare enum ") {
            own.push((first(head).to_owned(), choices(&block(&mut lines))));
        } else if let Some(head) = line.strip_prefix("export declare class ") {
            let body = block(&mut lines);
            if body.iter().any(|line| line.contains("static fromString(")) {
                let schema = json!({ "type": ["string", "number"] });
                own.push((first(head).to_owned(), schema));
            }
        } else if let Some(rest) = line.strip_prefix("export type { ") {
            // The name under which other files know it.
            for pair in rest.split([',', '}']) {
                if let Some((inner, outer)) = pair.trim().split_once(" as ") {
                    let found = own.iter().find(|(name, _)| name == inner);
                    let schema = found.map(|(_, schema)| schema.clone());
                    own.extend(schema.map(|schema| (outer.to_owned(), schema)));
                }
            }
        } else if let Some((name, told)) = line
            .strip_prefix("export type ")
            .and_then(|rest| rest.split_once(" = "))
        {
            own.push((name.to_owned(), Reader::new(told).whole()?));
        }
    }
    schemas.extend(own);
    Ok(())
}

/// The lines up to the one that ends the block.
fn block<'a>(lines: &mut impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    lines.take_while(|line| *line != "}").collect()
}

fn first(head: &str) -> &str {
    head.split([' ', '{']).next().unwrap_or(head)
}

fn choices(body: &[&str]) -> Value {
    let values = body
        .iter()
        .filter_map(|line| line.trim().trim_end_matches(',').split_once(" = "))
        .map(|(_, value)| value.trim_matches('"'));
    json!({ "enum": values.collect::<Vec<_>>() })
}

fn interface(head: &str, body: &[&str]) -> Result<(String, Value)> {
    let mut text = String::new();
    let mut real = BTreeMap::new();
    let mut named = None;
    for line in body.iter().map(|line| line.trim()) {
        if let Some(rest) = line.strip_prefix("* @schema ") {
            named = rest.rsplit_once('#').map(|(_, name)| name.to_owned());
        } else if let Some(field) = line.strip_prefix("readonly ") {
            let declared = field.split(['?', ':']).next().unwrap_or_default();
            real.insert(declared.to_owned(), named.take());
            text.push_str(field);
            text.push('\n');
        } else if !line.starts_with(['*', '/']) {
            text.push_str(line);
            text.push('\n');
        }
    }
    let mut schema = Reader::new(&text).members(&real)?;
    if let Some((_, bases)) = head.split_once(" extends ") {
        let bases = bases.trim_end_matches([' ', '{']).split(", ");
        let bases = bases.filter(|base| *base != "TypeMeta");
        let bases: Vec<Value> = bases.map(|base| json!(base)).collect();
        if !bases.is_empty() {
            schema["extends"] = Value::Array(bases);
        }
    }
    Ok((first(head).to_owned(), schema))
}

/// Puts into each interface what it has from those that it extends.
pub(super) fn complete(schemas: &mut Schemas) -> Result<()> {
    let names: Vec<String> = schemas.keys().cloned().collect();
    for name in names {
        inherit(&name, schemas)?;
    }
    Ok(())
}

fn inherit(name: &str, schemas: &mut Schemas) -> Result<()> {
    let Some(bases) = schemas
        .get_mut(name)
        .and_then(Value::as_object_mut)
        .and_then(|schema| schema.remove("extends"))
    else {
        return Ok(());
    };
    for base in bases
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
    {
        inherit(base, schemas)?;
        let from = schemas
            .get(base)
            .with_context(|| format!("{name} extends {base}"))?;
        let fields = from.get("properties").and_then(Value::as_object).cloned();
        let own = schemas
            .get_mut(name)
            .and_then(|own| own.get_mut("properties"));
        let own = own.and_then(Value::as_object_mut);
        own.with_context(|| format!("{name} has no fields"))?
            .extend(fields.into_iter().flatten());
    }
    Ok(())
}

/// Reads types.
struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str) -> Self {
        Self { rest: text.trim() }
    }

    fn eat(&mut self, token: &str) -> bool {
        let eaten = self.rest.strip_prefix(token);
        if let Some(rest) = eaten {
            self.rest = rest.trim_start();
        }
        eaten.is_some()
    }

    fn expect(&mut self, token: &str) -> Result<()> {
        if !self.eat(token) {
            let at: String = self.rest.chars().take(40).collect();
            bail!("{token:?} was expected at {at:?}");
        }
        Ok(())
    }

    fn word(&mut self) -> &'a str {
        let fits = |letter: char| letter.is_alphanumeric() || letter == '_' || letter == '$';
        let end = self.rest.find(|letter| !fits(letter));
        let (word, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest.trim_start();
        word
    }

    fn quoted(&mut self) -> Option<&'a str> {
        let (word, rest) = self.rest.strip_prefix('"')?.split_once('"')?;
        self.rest = rest.trim_start();
        Some(word)
    }

    /// A type that is all there is.
    fn whole(mut self) -> Result<Value> {
        let read = self.kind()?;
        self.expect(";")?;
        Ok(read)
    }

    /// `name?: Type;` until the end, or until what ends the block; `real` has names that differ.
    fn members(&mut self, real: &BTreeMap<String, Option<String>>) -> Result<Value> {
        let (mut fields, mut required) = (Map::new(), Vec::new());
        while !self.rest.is_empty() && !self.rest.starts_with('}') {
            let declared = match self.quoted() {
                Some(name) => name,
                None => self.word(),
            };
            let name = real.get(declared).cloned().flatten();
            let name = name.unwrap_or_else(|| declared.to_owned());
            let optional = self.eat("?");
            self.expect(":")?;
            let kind = self.kind()?;
            self.expect(";")?;
            if !optional {
                required.push(Value::from(name.as_str()));
            }
            fields.insert(name, kind);
        }
        Ok(json!({
            "type": "object",
            "properties": fields,
            "required": required,
            "additionalProperties": false,
        }))
    }

    fn kind(&mut self) -> Result<Value> {
        let mut choices = vec![self.single()?];
        while self.eat("|") {
            choices.push(self.single()?);
        }
        let last = choices.pop().context("a type")?;
        if choices.is_empty() {
            return Ok(last);
        }
        choices.push(last);
        Ok(json!({ "anyOf": choices }))
    }

    fn single(&mut self) -> Result<Value> {
        let mut read = if let Some(text) = self.quoted() {
            json!({ "enum": [text] })
        } else if self.eat("{") {
            let inner = self.braces()?;
            self.expect("}")?;
            inner
        } else if self.eat("Array<") {
            let item = self.kind()?;
            self.expect(">")?;
            json!({ "type": "array", "items": item })
        } else {
            named(self.word())?
        };
        while self.eat("[]") {
            read = json!({ "type": "array", "items": read });
        }
        Ok(read)
    }

    /// `[key: string]: Type;`, or members.
    fn braces(&mut self) -> Result<Value> {
        if !self.eat("[key: string]:") {
            return self.members(&BTreeMap::new());
        }
        let every = self.kind()?;
        self.expect(";")?;
        Ok(json!({ "type": "object", "additionalProperties": every }))
    }
}

fn named(word: &str) -> Result<Value> {
    Ok(match word {
        "" => bail!("a type was expected"),
        "string" | "boolean" | "number" | "null" => json!({ "type": word }),
        "any" | "unknown" | "object" => Value::Bool(true),
        name => json!({ "$ref": name }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = r#"import { Construct } from 'constructs';
/**
 * @schema ClusterSpec
 */
export interface ClusterSpec {
    /**
     * More: of it
     *
     * @schema ClusterSpec#enablePDB
     */
    readonly enablePdb?: boolean;
    /**
     * @schema ClusterSpec#roles
     */
    readonly roles: ClusterSpecRoles[];
    /**
     * @schema ClusterSpec#parameters
     */
    readonly parameters?: {
        [key: string]: string;
    };
}
export declare enum ClusterSpecRoles {
    /** one */
    ONE = "one",
    /** two */
    TWO = "two"
}
export declare class Size {
    readonly value: number | string;
    static fromString(value: string): Size;
}
"#;
    const OTHER: &str = r#"export interface IRule extends IBase {
    /**
     * a: comment
     */
    "expr": IComInt | string;
    "params"?: {
        [key: string]: Array<string>;
    };
}
export type { IRule as IComRule, Rule as ComRule };
"#;

    #[test]
    fn both_forms_are_read() {
        let mut schemas = Schemas::new();
        read(ONE, &mut schemas).unwrap();
        read(OTHER, &mut schemas).unwrap();
        read(
            "export interface IBase {\n    \"for\"?: string;\n}\n",
            &mut schemas,
        )
        .unwrap();
        complete(&mut schemas).unwrap();
        let cluster = &schemas["ClusterSpec"];
        assert_eq!(
            cluster["properties"]["enablePDB"],
            json!({ "type": "boolean" })
        );
        assert_eq!(cluster["required"], json!(["roles"]));
        assert_eq!(
            cluster["properties"]["roles"]["items"],
            json!({ "$ref": "ClusterSpecRoles" })
        );
        assert_eq!(
            schemas["ClusterSpecRoles"],
            json!({ "enum": ["one", "two"] })
        );
        assert_eq!(schemas["Size"], json!({ "type": ["string", "number"] }));
        let rule = &schemas["IComRule"]["properties"];
        assert_eq!(rule["for"], json!({ "type": "string" }));
        assert_eq!(
            rule["expr"],
            json!({ "anyOf": [{ "$ref": "IComInt" }, { "type": "string" }] })
        );
        assert_eq!(rule["params"]["additionalProperties"]["type"], "array");
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        let mut schemas = Schemas::new();
        let odd = "export interface IRule {\n    \"a\": (b) => c;\n}\n";
        assert!(read(odd, &mut schemas).is_err());
    }
}
