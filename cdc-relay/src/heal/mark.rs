//! The mark on a stream that ends with an event of another history: *compared, and nothing was
//! missing*. Where something was, the published rows stand behind that event and tell where to resume;
//! where nothing was, the position of the last message would be taken for a place in this WAL again.
//!
//! It stands in the stream's metadata, names the last sequence, and counts only while that is the last
//! one. The stream's configuration goes through as JSON, so that nothing of it is lost which this
//! version does not know.

use async_nats::{Client, jetstream};
use mailbox::envelope::Position;
use serde_json::{Value, json};

use crate::{
    error::{Error, Result},
    history::Stored,
};

/// The name in the stream's metadata; its value is the last sequence, and the position to resume after.
pub const KEY: &str = "cdc-relay-resume";

/// The name under which stands what is being published again, until all of it is.
pub const HEALING: &str = "cdc-relay-healing";

/// The mark, if it is about the stream's last message.
pub fn read(mark: Option<&String>, last_sequence: u64) -> Option<Stored> {
    let (sequence, position) = mark?.split_once(' ')?;
    if sequence.parse() != Ok(last_sequence) {
        return None;
    }
    let position = position.parse().ok()?;
    // No row has it: nothing is awaited before the place where the slot begins.
    let id = String::new();
    Some(Stored { position, id })
}

/// Marks the stream as compared up to `last_sequence`, to go on after `position`.
pub async fn write(
    client: &Client,
    stream: &str,
    last_sequence: u64,
    position: Position,
) -> Result<()> {
    let value = format!("{last_sequence} {position}");
    set(client, stream, KEY, Some(value)).await
}

/// Marks the stream as one that is being filled: a relay that is killed meanwhile leaves the slot as it
/// was, and nothing else would tell the next one. One that may not mark it relies on the comparison that
/// each process makes.
pub async fn begin(client: &Client, stream: &str, why: &str) {
    if let Err(error) = set(client, stream, HEALING, Some(why.to_owned())).await {
        tracing::warn!(
            %error,
            "healing without a mark on the stream: should the relay be killed meanwhile, only the \
             verification at its next start (CDC_VERIFY) finds what is still missing"
        );
    }
}

/// The stream is filled. Where that cannot be said, the next process compares once more.
pub async fn finish(client: &Client, stream: &str) {
    if let Err(error) = set(client, stream, HEALING, None).await {
        tracing::warn!(%error, "the stream is healed, and still marked as if it were not: each start compares it");
    }
}

/// Changes one value of the stream's metadata.
async fn set(client: &Client, stream: &str, key: &str, value: Option<String>) -> Result<()> {
    let during = "mark the stream";
    let jetstream = jetstream::new(client.clone());
    let text = value.as_deref().unwrap_or_default();
    let failed = |error: &dyn std::fmt::Display| {
        Error::Definite(format!(
            "{during}: {error}. The relay needs the right to update stream {stream}, or: `nats stream edit \
             {stream} --metadata {key}='{text}'`"
        ))
    };
    let info: Value = jetstream
        .request(format!("STREAM.INFO.{stream}"), &json!({}))
        .await
        .map_err(|e| Error::transient(during, &e))?;
    let mut config = info["config"].clone();
    if !config.is_object() {
        return Err(failed(&info["error"]));
    }
    if !config["metadata"].is_object() {
        config["metadata"] = json!({});
    }
    match (&value, config["metadata"].as_object_mut()) {
        (None, Some(metadata)) => drop(metadata.remove(key)),
        _ => config["metadata"][key] = json!(text),
    }
    let answer: Value = jetstream
        .request(format!("STREAM.UPDATE.{stream}"), &config)
        .await
        .map_err(|e| Error::transient(during, &e))?;
    match answer.get("error") {
        None => Ok(()),
        Some(error) => Err(failed(error)),
    }
}
