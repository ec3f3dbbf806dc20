//! The servers under measurement: settings of a small machine that is meant to be fast, nothing that a
//! production server could not run.

use anyhow::{Context, Result};
use async_nats::jetstream::{
    self,
    stream::{Config, StorageType},
};
use harness::{Guard, Nats, Postgres};

pub(super) const STREAM: &str = "EVENTS";
pub(super) const SUBJECTS: &str = "events.>";

const SETTINGS: [(&str, &str); 6] = [
    ("fsync", "on"),
    ("synchronous_commit", "on"),
    ("shared_buffers", "256MB"),
    // No checkpoint by itself within a run.
    ("max_wal_size", "16GB"),
    ("checkpoint_timeout", "1h"),
    // The replies that a drain's end waits for.
    ("wal_sender_timeout", "60s"),
];

/// How JetStream brings what it has acknowledged to the disk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Sync {
    /// The server's default: every two minutes.
    Default,
    /// Before each acknowledgement.
    Always,
}

impl Sync {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Always => "always",
        }
    }
}

pub(super) async fn postgres(guard: &Guard) -> Result<Postgres> {
    Postgres::start_with(guard, &SETTINGS).await
}

/// A nats-server that lives for one drain, and its directory with it.
pub(super) async fn nats(sync: Sync) -> Result<Nats> {
    let extra = match sync {
        Sync::Default => "",
        Sync::Always => "jetstream: { sync_interval: always }",
    };
    Nats::start_with(&Guard::start()?, extra).await
}

/// The stream, with the settings that the relay would create it with.
pub(super) async fn create_stream(nats: &Nats) -> Result<jetstream::stream::Stream> {
    let wanted = Config {
        name: STREAM.to_owned(),
        subjects: vec![SUBJECTS.to_owned()],
        storage: StorageType::File,
        allow_direct: true,
        allow_atomic_publish: true,
        allow_batch_publish: true,
        ..Config::default()
    };
    let context = jetstream::new(nats.client().await?);
    context
        .create_stream(wanted)
        .await
        .context("cannot create the stream")
}
