//! The values for the chart of NATS. The chart is not here, so what it makes of them is not looked at: only
//! that they say what the system stands on, by the names that the chart has.

use std::fs;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::manifests::yaml;
use crate::shell;

const FILE: &str = "deploy/overlays/production/nats-values.yaml";

/// What the values must say, and why.
fn needed() -> [(&'static str, Value, &'static str); 10] {
    [
        (
            "/config/cluster/enabled",
            json!(true),
            "R3 needs three servers",
        ),
        (
            "/config/cluster/replicas",
            json!(3),
            "R3 needs three servers",
        ),
        (
            "/config/jetstream/fileStore/enabled",
            json!(true),
            "streams are kept on disk",
        ),
        (
            "/config/jetstream/memoryStore/enabled",
            json!(false),
            "streams are kept on disk",
        ),
        (
            "/config/jetstream/merge/sync_interval",
            json!("always"),
            "else what was acknowledged in the last two minutes can be lost",
        ),
        (
            "/config/merge/00$include",
            json!("users.conf"),
            "without it everybody may say and hear everything",
        ),
        (
            "/config/nats/tls/enabled",
            json!(true),
            "clients come by TLS",
        ),
        (
            "/config/nats/tls/merge/verify",
            json!(true),
            "clients show a certificate",
        ),
        (
            "/config/cluster/tls/enabled",
            json!(true),
            "servers talk by TLS",
        ),
        (
            "/container/merge/securityContext/readOnlyRootFilesystem",
            json!(true),
            "the chart's own defaults are not restricted",
        ),
    ]
}

pub(super) fn of_the_tree() -> Result<Vec<String>> {
    let read = fs::read_to_string(shell::root().join(FILE))
        .with_context(|| format!("cannot read {FILE}"))?;
    broken(&read)
}

fn broken(given: &str) -> Result<Vec<String>> {
    let documents = yaml::documents(given)?;
    let values = documents.first().context("the values of NATS are empty")?;
    let missing = needed()
        .into_iter()
        .filter(|(place, value, _)| values.pointer(place) != Some(value));
    Ok(missing
        .map(|(place, value, why)| format!("{FILE}: {place} must be {value}: {why}"))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_would_lose_messages_are_named() {
        let read = fs::read_to_string(shell::root().join(FILE)).unwrap();
        assert_eq!(broken(&read).unwrap(), Vec::<String>::new());
        for (from, to) in [
            ("sync_interval: always", "sync_interval: 2m"),
            ("replicas: 3", "replicas: 1"),
            (
                "the login.\n        verify: true",
                "the login.\n        verify: false",
            ),
            ("00$include: users.conf", "debug: true"),
            (
                "readOnlyRootFilesystem: true",
                "readOnlyRootFilesystem: false",
            ),
        ] {
            assert!(
                !broken(&read.replace(from, to)).unwrap().is_empty(),
                "{from}"
            );
        }
    }
}
