//! Consumers that are ahead of their stream. A stream that lost its tail gives the lost sequences to
//! other events, and a consumer that has acknowledged those sequences would never see them.
//!
//! nats-server 2.15 sets such consumers back itself when it starts, on streams of one replica; older
//! ones and clusters do not. So before a session appends anything, each consumer that is ahead is set
//! back to the stream's end. The relay is the stream's only writer: nothing gets past this.

use std::time::Duration;

use async_nats::{
    Client, jetstream,
    jetstream::consumer::{DeliverPolicy, Info},
};
use futures_util::{StreamExt as _, TryStreamExt as _};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::error::{Error, Result};

const DURING: &str = "look at the stream's consumers";

/// Consumers of one stream that are looked at: far more than there can sensibly be.
const CONSUMERS_MAX: usize = 10_000;

/// When a consumer that seems to be ahead is looked at again, before anything is done to it.
const SECOND_LOOK: Duration = Duration::from_secs(1);

/// Sets back each consumer that is past the stream's end, and says how many there were.
pub async fn set_back(client: &Client, stream: &str) -> Result<usize> {
    let jetstream = jetstream::new(client.clone());
    if find(&jetstream, stream).await?.1.is_empty() {
        return Ok(0);
    }
    // In a cluster they may be told by servers that have not come equally far for a moment.
    sleep(SECOND_LOOK).await;
    let (last_sequence, ahead) = find(&jetstream, stream).await?;
    for consumer in &ahead {
        tracing::warn!(
            stream,
            consumer = consumer.name,
            reached = reached(consumer),
            last_sequence,
            "a consumer is ahead of its stream, which must have lost messages; setting it back"
        );
        reset(&jetstream, stream, consumer, last_sequence + 1).await?;
    }
    Ok(ahead.len())
}

/// The consumers that are ahead; the stream's end is read after them, so that what is appended
/// meanwhile cannot make one seem so.
async fn find(jetstream: &jetstream::Context, stream: &str) -> Result<(u64, Vec<Info>)> {
    let found = jetstream.get_stream_no_info(stream).await;
    let found = found.map_err(|e| Error::transient(DURING, &e))?;
    let consumers: Vec<Info> = found
        .consumers()
        .take(CONSUMERS_MAX)
        .try_collect()
        .await
        .map_err(|e| Error::transient(DURING, &e))?;
    let info = found.get_info().await;
    let last_sequence = info
        .map_err(|e| Error::transient(DURING, &e))?
        .state
        .last_sequence;
    let is_ahead = |consumer: &Info| {
        let waits = matches!(consumer.config.deliver_policy,
            DeliverPolicy::ByStartSequence { start_sequence } if start_sequence > last_sequence);
        !waits && reached(consumer) > last_sequence
    };
    let ahead = consumers.into_iter().filter(is_ahead).collect();
    Ok((last_sequence, ahead))
}

fn reached(consumer: &Info) -> u64 {
    let (delivered, acknowledged) = (&consumer.delivered, &consumer.ack_floor);
    delivered.stream_sequence.max(acknowledged.stream_sequence)
}

/// With the server's own call, which came with 2.14; else the consumer is made anew, and begins where
/// its configuration says: at least once, rather than never.
async fn reset(
    jetstream: &jetstream::Context,
    stream: &str,
    consumer: &Info,
    sequence: u64,
) -> Result<()> {
    let name = &consumer.name;
    let subject = format!("CONSUMER.RESET.{stream}.{name}");
    let answer: Result<Value, _> = jetstream
        .request(subject, &json!({ "seq": sequence }))
        .await;
    match answer {
        Ok(answer) if answer.get("error").is_none() => return Ok(()),
        Ok(answer) => {
            tracing::warn!(stream, consumer = name, error = %answer["error"], "the server cannot set the consumer back")
        }
        Err(error) => {
            tracing::debug!(stream, consumer = name, %error, "the server has no call to set a consumer back")
        }
    }
    make_anew(jetstream, stream, name).await
}

async fn make_anew(jetstream: &jetstream::Context, stream: &str, name: &str) -> Result<()> {
    let during = "make a consumer anew";
    // As JSON, so that nothing of it is lost which this version does not know.
    let call = async |call: &str, body: Value| {
        let answer = jetstream.request(format!("CONSUMER.{call}.{stream}.{name}"), &body);
        let answer: Value = answer.await.map_err(|e| Error::transient(during, &e))?;
        match answer.get("error") {
            None => Ok(answer),
            Some(error) => Err(Error::Transient(format!(
                "{during}: {call} {stream}/{name}: {error}"
            ))),
        }
    };
    let info = call("INFO", json!({})).await?;
    let config = &info["config"];
    call("DELETE", json!({})).await?;
    if config["durable_name"].as_str().is_none() {
        tracing::warn!(
            stream,
            consumer = name,
            "deleted the consumer, which is not durable: whoever made it makes another"
        );
        return Ok(());
    }
    tracing::warn!(
        stream,
        consumer = name,
        "making the consumer anew: it is delivered again what the stream holds"
    );
    let wanted = json!({ "stream_name": stream, "config": config, "action": "create" });
    call("CREATE", wanted).await.map(drop)
}
