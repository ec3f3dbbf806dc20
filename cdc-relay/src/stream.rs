//! The JetStream stream: made where it is missing, and read for the truth about what it holds.

use async_nats::{
    Client,
    jetstream::{
        self, ErrorCode,
        context::GetStreamErrorKind,
        stream::{Config, LastRawMessageErrorKind, StorageType, Stream},
    },
};
use mailbox::envelope::{self, Position};

use crate::{
    config::StreamConfig,
    error::{Error, Result},
};

/// Atomic batches came with this version of the server.
const SERVER_MIN: (i64, i64, i64) = (2, 12, 0);

/// What the stream's leader says that it holds.
#[derive(Clone, Debug)]
pub struct Truth {
    pub stream: String,
    /// The patterns that the stream takes.
    pub subjects: Vec<String>,
    /// The next append must follow this.
    pub last_sequence: u64,
    /// Where the last event stood in the WAL; `None` while the stream is empty.
    pub last_position: Option<Position>,
}

/// Finds the stream, or makes it, and reads its end through the leader.
pub async fn read_truth(client: &Client, config: &StreamConfig) -> Result<Truth> {
    let during = "read the stream";
    let mut stream = find_or_create(client, config).await?;
    let info = stream
        .info()
        .await
        .map_err(|e| Error::transient(during, &e))?
        .clone();
    if !info.config.allow_atomic_publish {
        return Err(Error::Definite(format!(
            "stream {0} does not allow atomic batches, which keep its order safe: \
             `nats stream edit {0} --allow-batch`",
            config.name
        )));
    }
    let last_position = last_position(&stream, &config.name).await?;
    if last_position.is_none() && info.state.last_sequence > 0 {
        tracing::warn!(
            stream = config.name,
            "the stream was emptied: what the slot has not confirmed is published, though it may have stood there before"
        );
    }
    Ok(Truth {
        stream: config.name.clone(),
        subjects: info.config.subjects,
        last_sequence: info.state.last_sequence,
        last_position,
    })
}

/// Position of the last message. It is asked for after the last sequence: a message that came in
/// between makes the next append fail, and the truth is read again.
async fn last_position<T>(stream: &Stream<T>, name: &str) -> Result<Option<Position>> {
    let last = match stream.get_last_raw_message_by_subject(">").await {
        Ok(last) => last,
        Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => return Ok(None),
        Err(error) => return Err(Error::transient("read the last message", &error)),
    };
    let position = last
        .headers
        .get(envelope::POSITION)
        .map(|value| value.as_str().parse());
    match position {
        Some(Ok(position)) => Ok(Some(position)),
        _ => Err(Error::Definite(format!(
            "message {} of stream {name} carries no position ({}): somebody else writes to the \
             stream, and this relay must be its only writer",
            last.sequence,
            envelope::POSITION
        ))),
    }
}

async fn find_or_create(client: &Client, config: &StreamConfig) -> Result<Stream> {
    let jetstream = jetstream::new(client.clone());
    let during = "find the stream";
    match jetstream.get_stream(&config.name).await {
        Ok(stream) => return Ok(stream),
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(refused)
                if refused.error_code() == ErrorCode::STREAM_NOT_FOUND => {}
            GetStreamErrorKind::JetStream(refused)
                if refused.error_code() == ErrorCode::JETSTREAM_NOT_ENABLED =>
            {
                return Err(Error::definite(
                    "the NATS server runs without JetStream: start it with `-js` or a `jetstream` block",
                ));
            }
            _ => return Err(Error::transient(during, &error)),
        },
    }
    let (major, minor, patch) = SERVER_MIN;
    if !client.is_server_compatible(major, minor, patch) {
        return Err(Error::Definite(format!(
            "the NATS server is version {}, and the relay needs {major}.{minor} or newer, which has \
             atomic batches",
            client.server_info().version
        )));
    }
    tracing::info!(stream = config.name, subjects = ?config.subjects, "creating the stream");
    let wanted = Config {
        name: config.name.clone(),
        subjects: config.subjects.clone(),
        storage: StorageType::File,
        num_replicas: config.replicas.into(),
        duplicate_window: config.duplicate_window(),
        allow_direct: true,
        allow_atomic_publish: true,
        ..Config::default()
    };
    let created = jetstream.create_stream(wanted).await;
    created.map_err(|e| Error::transient("create the stream", &e))
}
