//! YAML as JSON: what Kubernetes makes of it.

use anyhow::{Context, Result, bail};
use saphyr::{LoadableYamlNode as _, Scalar, Yaml};
use serde_json::{Map, Number, Value};

/// Every document of a file, but empty ones.
pub(crate) fn documents(text: &str) -> Result<Vec<Value>> {
    let documents = Yaml::load_from_str(text).context("no YAML")?;
    let values = documents.iter().map(value);
    let values = values.collect::<Result<Vec<_>>>()?;
    Ok(values
        .into_iter()
        .filter(|value| !value.is_null())
        .collect())
}

fn value(yaml: &Yaml<'_>) -> Result<Value> {
    Ok(match yaml {
        Yaml::Value(scalar) => match scalar {
            Scalar::Null => Value::Null,
            Scalar::Boolean(given) => Value::Bool(*given),
            Scalar::Integer(given) => Value::from(*given),
            Scalar::FloatingPoint(given) => {
                Number::from_f64(given.0).map_or(Value::Null, Value::Number)
            }
            Scalar::String(given) => Value::from(given.as_ref()),
        },
        Yaml::Sequence(items) => Value::Array(items.iter().map(value).collect::<Result<Vec<_>>>()?),
        Yaml::Mapping(members) => {
            let mut object = Map::new();
            for (key, member) in members {
                let Yaml::Value(Scalar::String(key)) = key else {
                    bail!("a key that is no text: {key:?}");
                };
                object.insert(key.to_string(), value(member)?);
            }
            Value::Object(object)
        }
        other => bail!("aliases and tags are not read: {other:?}"),
    })
}
