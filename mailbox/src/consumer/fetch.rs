//! Gets the next batch: what is there, at once; or the first message, when it comes.

use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::Message;
use async_nats::jetstream::consumer::PullConsumer;
use futures_util::StreamExt;
use tokio_util::sync::CancellationToken;

/// How long a request waits at the server for a first message before it is made anew.
const REQUEST_EXPIRES: Duration = Duration::from_secs(30);

/// The rest of a batch is on its way already when its first message arrives. If the connection breaks
/// in between, the end never comes.
const REST_WAIT: Duration = Duration::from_secs(2);

/// How soon a broken connection is noticed: the server forgets requests then, and says nothing.
const CONNECTION_POLL: Duration = Duration::from_millis(200);

/// Bounds a batch in memory, beside its count (I12). At least one message of any size must fit.
const BATCH_BYTES: usize = 8 << 20;

/// Why there will be no more messages until the consumer is set up again.
pub(super) type Lost = async_nats::Error;

/// Up to `max` messages. Empty when the request expired without any, or `token` was cancelled.
///
/// Under a backlog it returns full batches; an idle system gets each message the moment it is stored:
/// a request with both `no_wait` and `expires` is answered by the first messages there are.
pub(super) async fn fetch(
    client: &async_nats::Client,
    consumer: &PullConsumer,
    max: usize,
    token: &CancellationToken,
) -> Result<Vec<Message>, Lost> {
    let connection = client.statistics().connects.load(Ordering::Relaxed);
    let mut batch = consumer
        .fetch()
        .max_messages(max)
        .max_bytes(BATCH_BYTES.max(client.max_payload() * 2))
        .expires(REQUEST_EXPIRES)
        .messages()
        .await?;
    let first = tokio::select! {
        biased;
        first = batch.next() => first,
        () = token.cancelled() => None,
        () = disconnected(client, connection) => return Err("the connection to NATS broke".into()),
    };
    let Some(first) = first else {
        return Ok(Vec::new());
    };
    let mut messages = vec![first?];
    // Not cancelled half-way: what has been delivered to us would wait for `ack_wait` to pass.
    while let Ok(Some(next)) = tokio::time::timeout(REST_WAIT, batch.next()).await {
        match next {
            Ok(message) => messages.push(message),
            // The byte bound ends a batch so. A real error is met again by the next fetch.
            Err(_) => break,
        }
    }
    Ok(messages)
}

/// Completes when the connection is another one than `connection`, or none.
async fn disconnected(client: &async_nats::Client, connection: u64) {
    let statistics = client.statistics();
    while client.connection_state() == State::Connected
        && statistics.connects.load(Ordering::Relaxed) == connection
    {
        tokio::time::sleep(CONNECTION_POLL).await;
    }
}
