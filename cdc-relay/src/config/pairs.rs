//! Values that are pairs: `a=b,c=d`, or a JSON object, which a table of the file is turned into.

use std::str::FromStr;

use async_nats::{HeaderValue, header::HeaderName};

use super::value::identifier;
use crate::record::is_reserved;

/// Headers that every message gets.
#[derive(Clone, Debug, Default)]
pub struct FixedHeaders(pub Vec<(HeaderName, HeaderValue)>);

/// Columns, and the headers that they become.
#[derive(Clone, Debug, Default)]
pub struct ColumnHeaders(pub Vec<(String, HeaderName)>);

impl FromStr for FixedHeaders {
    type Err = String;

    fn from_str(given: &str) -> Result<Self, String> {
        let read = |(name, value): (String, String)| {
            let fits = value.parse::<HeaderValue>();
            let value = fits.map_err(|_| format!("header {name} has a value with a line break"))?;
            Ok((header(&name)?, value))
        };
        pairs(given)?
            .into_iter()
            .map(read)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl FromStr for ColumnHeaders {
    type Err = String;

    fn from_str(given: &str) -> Result<Self, String> {
        let read = |(column, name): (String, String)| Ok((identifier(&column)?, header(&name)?));
        pairs(given)?
            .into_iter()
            .map(read)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

fn header(name: &str) -> Result<HeaderName, String> {
    if is_reserved(name) {
        return Err(format!(
            "{name} is a header that JetStream or the relay acts on"
        ));
    }
    let parsed = name.parse();
    let refused = || format!("{name:?} cannot be the name of a header");
    parsed.ok().filter(|_| !name.is_empty()).ok_or_else(refused)
}

fn pairs(given: &str) -> Result<Vec<(String, String)>, String> {
    let given = given.trim();
    if given.starts_with('{') {
        let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(given)
            .map_err(|error| format!("is not a JSON object: {error}"))?;
        let text = |(name, value): (String, serde_json::Value)| match value {
            serde_json::Value::String(text) => (name, text),
            other => (name, other.to_string()),
        };
        return Ok(object.into_iter().map(text).collect());
    }
    let pair = |pair: &str| match pair.split_once('=') {
        Some((name, value)) => Ok((name.trim().to_owned(), value.trim().to_owned())),
        None => Err("must be pairs with a = between".to_owned()),
    };
    given
        .split(',')
        .filter(|part| !part.trim().is_empty())
        .map(pair)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_read_from_a_list_and_from_json() {
        let expected = vec![
            ("a".to_owned(), "b".to_owned()),
            ("c".into(), "d,=e".into()),
        ];
        assert_eq!(pairs(r#"{"a":"b","c":"d,=e"}"#).unwrap(), expected);
        assert_eq!(pairs(" a = b ,").unwrap(), expected[..1]);
        assert_eq!(pairs("").unwrap(), []);
        assert!(pairs("a").is_err());
        assert!(pairs("{a}").is_err());
    }

    #[test]
    fn headers_that_jetstream_acts_on_are_refused() {
        for wrong in ["Nats-Rollup=all", "cdc-position=x", "a b=c", "=c"] {
            assert!(wrong.parse::<FixedHeaders>().is_err(), "{wrong}");
        }
        assert!("id=Nats-Msg-Id".parse::<ColumnHeaders>().is_err());
        assert_eq!("x-source=shop".parse::<FixedHeaders>().unwrap().0.len(), 1);
    }
}
