//! A look at the stream that changes nothing, for whoever asks how things stand.

use async_nats::{
    Client,
    jetstream::{self, ErrorCode, context::GetStreamErrorKind, stream::Info},
};

use super::{last_event, unreachable};
use crate::{
    config::StreamConfig,
    error::{Error, Result},
    heal::mark,
    history::Stored,
    publish::Paths,
};

/// What was seen.
#[derive(Debug)]
pub struct Look {
    pub info: Info,
    pub paths: Paths,
    /// The last event, or why it cannot be told.
    pub last: Result<Option<Stored>>,
}

/// Looks at the stream, if there is one.
///
/// # Errors
/// [`Error::Transient`] when JetStream does not answer.
pub async fn look(client: &Client, config: &StreamConfig) -> Result<Option<Look>> {
    let during = "look at the stream";
    let jetstream = jetstream::new(client.clone());
    let mut stream = match jetstream.get_stream(&config.name).await {
        Ok(stream) => stream,
        Err(error) => {
            return match error.kind() {
                GetStreamErrorKind::JetStream(refused)
                    if refused.error_code() == ErrorCode::STREAM_NOT_FOUND =>
                {
                    Ok(None)
                }
                _ => Err(unreachable(during, &error)),
            };
        }
    };
    let info = stream.info().await;
    let info = info.map_err(|e| Error::transient(during, &e))?.clone();
    let sequence = info.state.last_sequence;
    let last = match mark::read(info.config.metadata.get(mark::KEY), sequence) {
        Some(marked) => Ok(Some(marked)),
        None => last_event(&stream, config, sequence)
            .await
            .map(|end| end.map(|end| end.resume)),
    };
    Ok(Some(Look {
        paths: Paths::of(&info.config),
        info,
        last,
    }))
}
