//! Hears of orders that were approved or cancelled, by whichever replica: this service's own events, as its
//! relay has published them.
//!
//! The consumer is an ephemeral one of this replica, without acknowledgements, and there only while somebody
//! waits. Nothing has to be kept: when it is lost, with whatever it had on its way, a new one is made, and
//! then every watched order is looked at. While NATS is away the clock does it (`reader`).

use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull};
use async_nats::jetstream::{self, Context, Message};
use futures_util::StreamExt as _;
use mailbox::envelope;
use rand::RngExt as _;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Hub;

/// What the hub is signalled of.
const SUBJECTS: [&str; 2] = [
    "events.orders.v1.OrderApproved",
    "events.orders.v1.OrderCancelled",
];

/// On their way to this replica at most (I12).
const MESSAGES_MAX: usize = 512;

/// A request that waits at the server is made anew after this.
const EXPIRES: Duration = Duration::from_secs(30);

/// A consumer that says nothing for twice as long is taken for lost.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// The server removes a consumer whose replica has gone without a word.
const ABANDONED_AFTER: Duration = Duration::from_secs(60);

/// How often it is asked whether anybody still waits. A new consumer costs a millisecond or two.
const IDLE: Duration = Duration::from_secs(30);

/// How soon a broken connection is noticed. What was sent over it is lost, and no error tells.
const CONNECTION_POLL: Duration = Duration::from_millis(200);

/// After a failure; the clock looks meanwhile.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Until `token` is cancelled. `stream` has this service's own events, and need not exist yet.
pub async fn run(hub: Hub, client: async_nats::Client, stream: String, token: CancellationToken) {
    let listening = async {
        let context = jetstream::new(client.clone());
        let mut told = String::new();
        loop {
            hub.watched().await;
            match listen(&hub, &client, &context, &stream, &mut told).await {
                Ok(()) => {}
                Err(error) => {
                    let reason = error.to_string();
                    // Once for each reason: NATS may be away for hours.
                    if told != reason {
                        tracing::warn!(%stream, %reason, "watched orders are looked at by the clock for now");
                        told = reason;
                    }
                    let jitter = rand::rng().random_range(0.5..1.5);
                    tokio::time::sleep(RETRY_AFTER.mul_f64(jitter)).await;
                }
            }
        }
    };
    token.run_until_cancelled(listening).await;
}

/// Signals until nobody waits any more; forgets what was `told` when it begins.
async fn listen(
    hub: &Hub,
    client: &async_nats::Client,
    context: &Context,
    stream: &str,
    told: &mut String,
) -> Result<(), async_nats::Error> {
    let connection = client.statistics().connects.load(Ordering::Relaxed);
    let stream = context.get_stream(stream).await?;
    let consumer: PullConsumer = stream.create_consumer(ephemeral()).await?;
    let name = consumer.cached_info().name.clone();
    let mut messages = consumer
        .stream()
        .max_messages_per_batch(MESSAGES_MAX)
        .expires(EXPIRES)
        .heartbeat(HEARTBEAT)
        .messages()
        .await?;
    told.clear();
    // What happened before there was a consumer.
    hub.look_at_all();
    let mut idle = tokio::time::interval(IDLE);
    let mut broken = std::pin::pin!(disconnected(client, connection));
    loop {
        tokio::select! {
            message = messages.next() => match message {
                Some(message) => {
                    if let Some(order_id) = order_of(&message?) {
                        hub.signal(order_id.into());
                    }
                }
                None => return Err("the consumer's messages ended".into()),
            },
            _ = idle.tick() => if hub.watchers() == 0 {
                break;
            },
            () = &mut broken => return Err("the connection to NATS broke".into()),
        }
    }
    drop(messages);
    // It would go by itself.
    let _ = stream.delete_consumer(&name).await;
    Ok(())
}

fn ephemeral() -> pull::Config {
    pull::Config {
        description: Some("wakes those who watch orders at one replica".to_owned()),
        deliver_policy: DeliverPolicy::New,
        ack_policy: AckPolicy::None,
        filter_subjects: SUBJECTS.map(str::to_owned).to_vec(),
        // The order's id stands in the headers.
        headers_only: true,
        memory_storage: true,
        num_replicas: 1,
        inactive_threshold: ABANDONED_AFTER,
        ..pull::Config::default()
    }
}

fn order_of(message: &Message) -> Option<Uuid> {
    let id = message.headers.as_ref()?.get(envelope::AGGREGATE_ID)?;
    Uuid::try_parse(id.as_str()).ok()
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
