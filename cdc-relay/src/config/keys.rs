//! The names that arguments have in the file. Each argument of [`super::Config`] has exactly one, and a
//! test holds that; the value itself is described by the argument alone.

/// A section of the file with its keys: a key, and the argument that it sets.
type Section = (&'static str, &'static [(&'static str, &'static str)]);

pub(super) const SECTIONS: &[Section] = &[
    (
        "source",
        &[
            ("database_url", "DATABASE_URL"),
            ("database_password_file", "DATABASE_PASSWORD_FILE"),
            ("table", "CDC_TABLE"),
            ("message_prefix", "CDC_MESSAGE_PREFIX"),
            ("slot", "CDC_SLOT"),
            ("publication", "CDC_PUBLICATION"),
            (
                "wal_sender_timeout_seconds",
                "CDC_WAL_SENDER_TIMEOUT_SECONDS",
            ),
        ],
    ),
    (
        "columns",
        &[
            ("id", "CDC_COLUMN_ID"),
            ("aggregate_type", "CDC_COLUMN_AGGREGATE_TYPE"),
            ("aggregate_id", "CDC_COLUMN_AGGREGATE_ID"),
            ("type", "CDC_COLUMN_TYPE"),
            ("payload", "CDC_COLUMN_PAYLOAD"),
            ("headers", "CDC_COLUMN_HEADERS"),
            ("time", "CDC_COLUMN_TIME"),
            ("as_headers", "CDC_COLUMNS_AS_HEADERS"),
        ],
    ),
    (
        "message",
        &[
            ("subject", "CDC_SUBJECT"),
            ("headers", "CDC_HEADERS"),
            ("cloudevents_source", "CDC_CLOUDEVENTS_SOURCE"),
        ],
    ),
    (
        "stream",
        &[
            ("name", "CDC_STREAM"),
            ("create", "CDC_STREAM_CREATE"),
            ("subjects", "CDC_STREAM_SUBJECTS"),
            ("replicas", "CDC_STREAM_REPLICAS"),
            ("storage", "CDC_STREAM_STORAGE"),
            ("retention", "CDC_STREAM_RETENTION"),
            ("transactions", "CDC_TRANSACTIONS"),
            ("max_age_seconds", "CDC_STREAM_MAX_AGE_SECONDS"),
            ("max_bytes", "CDC_STREAM_MAX_BYTES"),
            ("max_message_bytes", "CDC_STREAM_MAX_MESSAGE_BYTES"),
            ("discard", "CDC_STREAM_DISCARD"),
            ("compression", "CDC_STREAM_COMPRESSION"),
            (
                "duplicate_window_seconds",
                "CDC_STREAM_DUPLICATE_WINDOW_SECONDS",
            ),
            ("quarantine", "CDC_QUARANTINE_STREAM"),
        ],
    ),
    (
        "spool",
        &[
            ("streaming", "CDC_STREAMING"),
            ("directory", "CDC_SPOOL_DIRECTORY"),
            ("bytes_max", "CDC_SPOOL_BYTES_MAX"),
        ],
    ),
    (
        "healing",
        &[
            ("policy", "CDC_HEAL"),
            ("stream_deleted", "CDC_STREAM_DELETED"),
            ("slot_failover", "CDC_SLOT_FAILOVER"),
            ("verify", "CDC_VERIFY"),
        ],
    ),
    (
        "retention",
        &[
            ("seconds", "CDC_RETENTION_SECONDS"),
            ("column", "CDC_RETENTION_COLUMN"),
            ("function", "CDC_RETENTION_FUNCTION"),
        ],
    ),
    (
        "nats",
        &[
            ("url", "NATS_URL"),
            ("creds", "NATS_CREDS"),
            ("nkey", "NATS_NKEY"),
            ("user", "NATS_USER"),
            ("password", "NATS_PASSWORD"),
            ("password_file", "NATS_PASSWORD_FILE"),
            ("token", "NATS_TOKEN"),
            ("token_file", "NATS_TOKEN_FILE"),
            ("inbox_prefix", "NATS_INBOX_PREFIX"),
            ("tls", "NATS_TLS"),
            ("tls_ca", "NATS_TLS_CA"),
            ("tls_cert", "NATS_TLS_CERT"),
            ("tls_key", "NATS_TLS_KEY"),
            ("monitoring_url", "NATS_MONITORING_URL"),
        ],
    ),
    ("admin", &[("listen", "ADMIN_LISTEN")]),
    (
        "telemetry",
        &[
            ("log_filter", "LOG_FILTER"),
            ("log_format", "LOG_FORMAT"),
            ("otlp_endpoint", "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ],
    ),
    (
        "shutdown",
        &[("deadline_seconds", "SHUTDOWN_DEADLINE_SECONDS")],
    ),
];

/// The argument that a key sets.
pub(super) fn argument(section: &str, key: &str) -> Option<&'static str> {
    let (_, keys) = SECTIONS.iter().find(|(name, _)| *name == section)?;
    let (_, argument) = keys.iter().find(|(name, _)| *name == key)?;
    Some(argument)
}

/// What may have been meant by a key that is not known: `[section] key`.
pub(super) fn nearest(section: &str, key: &str) -> Option<String> {
    let all = SECTIONS
        .iter()
        .flat_map(|(section, keys)| keys.iter().map(move |(key, _)| (*section, *key)));
    // A wrong section weighs little beside a wrong key: keys are often right and misplaced.
    let distance = |(known_section, known): (&str, &str)| {
        4 * strsim::damerau_levenshtein(known, key) + usize::from(known_section != section)
    };
    let (section, known) = all.min_by_key(|known| distance(*known))?;
    // Beyond half of the name nothing resembles it.
    (2 * strsim::damerau_levenshtein(known, key) <= known.len().max(key.len()))
        .then(|| format!("[{section}] {known}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::{Args as _, Command};

    use super::*;

    #[test]
    fn every_argument_has_one_key_and_every_key_its_argument() {
        let command = super::super::Config::augment_args(Command::new("relay"));
        let arguments: BTreeSet<String> = command
            .get_arguments()
            .map(|arg| arg.get_id().to_string())
            .filter(|id| id != "CDC_CONFIG")
            .collect();
        let keys: Vec<&str> = SECTIONS
            .iter()
            .flat_map(|(_, keys)| keys.iter().map(|(_, argument)| *argument))
            .collect();
        let unique: BTreeSet<String> = keys.iter().map(ToString::to_string).collect();
        assert_eq!(keys.len(), unique.len(), "an argument has two keys");
        assert_eq!(unique, arguments, "left: keys.rs, right: the arguments");
    }

    #[test]
    fn what_was_meant_is_found_by_its_likeness() {
        assert_eq!(nearest("source", "slto").unwrap(), "[source] slot");
        assert_eq!(nearest("nats", "uri").unwrap(), "[nats] url");
        assert_eq!(nearest("stream", "slot").unwrap(), "[source] slot");
        assert_eq!(nearest("", "subject").unwrap(), "[message] subject");
        assert_eq!(nearest("source", "zzzzzzzz"), None);
    }
}
