//! The stream's settings: how it is made, what of an existing one the relay cannot live with, and what
//! of it differs from what was asked for.

use std::time::Duration;

use async_nats::jetstream::stream::{
    Config, DiscardPolicy, PersistenceMode, RetentionPolicy, StorageType,
};

use crate::config::StreamConfig;

/// The stream as it is created, but for what only newer servers know.
pub(super) fn wanted(config: &StreamConfig) -> Config {
    Config {
        name: config.name.clone(),
        subjects: config.subjects.clone(),
        storage: config.storage,
        num_replicas: config.replicas.into(),
        retention: RetentionPolicy::Limits,
        max_age: Duration::from_secs(config.max_age_seconds),
        max_bytes: match config.max_bytes {
            0 => -1,
            bytes => i64::try_from(bytes).unwrap_or(i64::MAX),
        },
        max_message_size: match config.max_message_bytes {
            0 => -1,
            bytes => bytes,
        },
        discard: config.discard,
        compression: Some(config.compression.clone()),
        duplicate_window: config.duplicate_window(),
        allow_direct: true,
        ..Config::default()
    }
}

/// Why the relay cannot publish to a stream of these settings, and the mend.
pub fn unsuitable(found: &Config) -> Option<String> {
    let name = &found.name;
    let what = if found.retention != RetentionPolicy::Limits {
        format!(
            "keeps events only until they are consumed ({:?} retention), so its last event cannot say where \
             to go on. Give the relay a stream of limits retention, and make the work queue a second stream \
             that has that one as its source",
            found.retention
        )
    } else if found.no_ack {
        format!("acknowledges nothing: `nats stream edit {name} --ack`")
    } else if found.sealed {
        "is sealed: give the relay another stream".to_owned()
    } else if found.mirror.is_some() {
        "mirrors another stream and takes nothing else: give the relay that one".to_owned()
    } else if found.sources.as_ref().is_some_and(|all| !all.is_empty()) {
        "takes events from other streams as well, and the relay must be its only writer: give the relay a \
         stream of its own"
            .to_owned()
    } else {
        return None;
    };
    Some(format!("stream {name} {what}"))
}

/// What of an existing stream is less safe than what was asked for, and whether a person should mend it.
pub fn differences(found: &Config, config: &StreamConfig) -> Vec<String> {
    let wanted = wanted(config);
    let mut all = Vec::new();
    let mut say = |differs: bool, what: String| {
        if differs {
            all.push(what);
        }
    };
    say(
        found.storage == StorageType::Memory && wanted.storage == StorageType::File,
        "it is kept in memory, and a restart of the server empties it".to_owned(),
    );
    say(
        found.num_replicas < wanted.num_replicas,
        format!(
            "it has {} replicas, not {}",
            found.num_replicas, wanted.num_replicas
        ),
    );
    let is_shorter = |found: Duration, wanted: Duration| {
        !found.is_zero() && (wanted.is_zero() || found < wanted)
    };
    say(
        is_shorter(found.max_age, wanted.max_age),
        format!("it forgets events after {:?}", found.max_age),
    );
    let is_less = |found: i64, wanted: i64| found > 0 && (wanted <= 0 || found < wanted);
    say(
        is_less(found.max_bytes, wanted.max_bytes),
        format!("it holds {} bytes at most", found.max_bytes),
    );
    say(
        found.max_messages > 0 || found.max_messages_per_subject > 0,
        format!(
            "it holds {} events at most, {} a subject (-1: no limit)",
            found.max_messages, found.max_messages_per_subject
        ),
    );
    say(
        wanted.max_message_size > 0
            && !(1..=wanted.max_message_size).contains(&found.max_message_size),
        format!(
            "it takes events of more than {} bytes, and what consumers set aside of those may not fit",
            wanted.max_message_size
        ),
    );
    let is_bounded = found.max_bytes > 0 || found.max_messages > 0;
    say(
        is_bounded && found.discard == DiscardPolicy::Old && wanted.discard == DiscardPolicy::New,
        "it forgets old events when it is full, and does not make new ones wait".to_owned(),
    );
    say(
        found.persist_mode == Some(PersistenceMode::Async),
        "it acknowledges before it has written (persist mode async)".to_owned(),
    );
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(flags: &[&str]) -> StreamConfig {
        let always = [
            "--database-url=postgres://nobody@127.0.0.1/none",
            "--cdc-stream=EVENTS",
        ];
        let flags = always.iter().chain(flags).copied();
        crate::config::Config::of(flags).unwrap().stream
    }

    #[test]
    fn a_stream_made_by_the_relay_suits_it_and_differs_in_nothing() {
        for flags in [
            &[][..],
            &["--cdc-stream-max-bytes=1000000", "--cdc-stream-discard=new"],
            &["--cdc-stream-max-message-bytes=1032192"],
            &[
                "--cdc-stream-storage=memory",
                "--cdc-stream-max-age-seconds=60",
            ],
        ] {
            let config = config(flags);
            assert_eq!(unsuitable(&wanted(&config)), None);
            assert_eq!(differences(&wanted(&config), &config), Vec::<String>::new());
        }
    }

    #[test]
    fn what_is_less_safe_than_asked_for_is_told() {
        let asked = config(&[
            "--cdc-stream-replicas=3",
            "--cdc-stream-discard=new",
            "--cdc-stream-max-message-bytes=1000",
        ]);
        let mut found = wanted(&asked);
        found.num_replicas = 1;
        found.storage = StorageType::Memory;
        found.max_age = Duration::from_secs(60);
        found.max_bytes = 1000;
        found.discard = DiscardPolicy::Old;
        assert_eq!(differences(&found, &asked).len(), 5);
        for (bytes, differs) in [(999, 5), (1001, 6), (-1, 6)] {
            found.max_message_size = bytes;
            assert_eq!(differences(&found, &asked).len(), differs, "{bytes}");
        }
        found.retention = RetentionPolicy::WorkQueue;
        assert!(unsuitable(&found).unwrap().contains("WorkQueue"));
    }
}
