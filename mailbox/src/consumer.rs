//! Applies the events of a stream, each exactly once in effect.
//!
//! ```text
//!  durable ─► fetch ─► attempt: BEGIN · claim · handle · COMMIT ─► ack
//!     ▲         │         │
//!     └─ lost ──┘         └─ failed: by halves ─► definite:  dead letter, then terminate
//!                                               └► transient: deliver again, later
//! ```
//!
//! Danger: an acknowledgement before the commit loses the event when the commit fails (I4), and a
//! termination before the dead letter is stored drops it (I10). Everything else that goes wrong here
//! only leads to a repeat, which the inbox absorbs (I6).
//!
//! What has been delivered three times is applied alone, and marked in the database meanwhile: so an event
//! that kills its process each time is found, and becomes a dead letter (`marks`).
//!
//! Replicas share one durable consumer; each holds one batch at a time (I12). Events reach handlers
//! roughly in stream order, but what failed comes later, and replicas overtake each other.

mod attempt;
mod batch;
mod config;
mod durable;
mod failure;
mod faults;
mod fetch;
mod filters;
mod marks;
mod received;
mod settle;
mod worker;

use std::future::Future;
use std::time::Duration;

use async_nats::jetstream;
use deadpool_postgres::Pool;
use tokio_postgres::Transaction;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::backoff::Backoff;
use crate::coalescing::Coalescing;
use crate::dead_letter::DeadLetters;
use crate::inbox::Claimed;
use crate::meters;

pub(crate) use attempt::{Setback, attempt};
pub use config::{Config, InvalidConfig};
pub use failure::Failure;
pub(crate) use received::Received;

use worker::Worker;

/// How long the last acknowledgements may take to leave at the end.
const FLUSH_WAIT: Duration = Duration::from_secs(5);

/// The longest pause before JetStream or Postgres is tried again.
const RECONNECT_LONGEST: Duration = Duration::from_secs(2);

/// Applies events.
///
/// `handle` gets the events of one batch that are new to this consumer, in the order of delivery, and
/// the transaction that claimed them. All that it does in `tx` commits with the claims, or not at all
/// (I4). It must not touch anything outside of `tx`: what cannot be rolled back would be done again.
///
/// When it fails for several events, they are handed to it again by halves, until the one that fails
/// stands alone. So failing for the whole batch on account of one event is right, and nothing else needs
/// to be found out about which it was.
///
/// It is called concurrently by replicas, and has a quarter of [`Config::ack_wait`] to finish.
pub trait Handler: Send + Sync + 'static {
    /// Applies `events` (never empty) in `tx`.
    ///
    /// # Errors
    /// [`Failure::Definite`] sends the event to the dead letters, [`Failure::Transient`] tries again, and
    /// [`Failure::Unknown`] does that for a while first.
    fn handle(
        &self,
        tx: &Transaction<'_>,
        events: &[Claimed],
    ) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// Why a consumer cannot work at all, until somebody changes its configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration contradicts itself.
    #[error("the consumer's configuration is invalid: {0}")]
    Config(#[from] InvalidConfig),
    /// JetStream has understood the request for the durable consumer, and refuses it.
    #[error(
        "JetStream refuses the durable consumer `{durable}` on stream `{stream}`: {reason}; \
         correct the configuration, or delete the consumer that is there (`nats consumer rm`)"
    )]
    Refused {
        /// The stream that the consumer is on.
        stream: String,
        /// The consumer's name.
        durable: String,
        /// What the server said.
        reason: String,
    },
}

/// Consumes until `token` is cancelled; then finishes the batch in hand, and returns.
///
/// Waits for the stream to exist, creates the durable consumer or brings it up to date, and does so
/// again when it disappears. Neither an outage of NATS nor one of Postgres ends it.
///
/// # Errors
/// Only what waiting does not mend: [`Error`].
pub async fn run<H: Handler>(
    pool: Pool,
    client: async_nats::Client,
    config: Config,
    handler: H,
    token: CancellationToken,
) -> Result<(), Error> {
    config.validate()?;
    meters::describe();
    let context = jetstream::new(client.clone());
    let dead_letters = DeadLetters::new(context.clone(), &config.durable);
    let worker = Worker::new(pool, config, handler, dead_letters, token);
    let outcome = consume(&client, &context, &worker).await;
    // The acknowledgements are only queued so far.
    if !matches!(
        tokio::time::timeout(FLUSH_WAIT, client.flush()).await,
        Ok(Ok(()))
    ) {
        warn!("the last acknowledgements may not have reached NATS; their events will be repeated");
    }
    outcome
}

async fn consume<H: Handler>(
    client: &async_nats::Client,
    context: &jetstream::Context,
    worker: &Worker<H>,
) -> Result<(), Error> {
    let (config, token) = (&worker.config, &worker.token);
    let mut backoff = Backoff::up_to(RECONNECT_LONGEST);
    loop {
        let Some(consumer) = durable::ready(context, worker).await? else {
            return Ok(());
        };
        info!(stream = %config.stream, durable = %config.durable, filters = ?config.filters, "consuming events");
        let mut pace = Coalescing::every(config.step_every);
        let lost = loop {
            pace.rest().await;
            match fetch::fetch(client, &consumer, config.batch_max, token).await {
                Ok(messages) => {
                    backoff.reset();
                    pace.begin(messages.len(), config.batch_max);
                    worker.apply(messages).await;
                }
                Err(lost) => break lost,
            }
            if token.is_cancelled() {
                return Ok(());
            }
        };
        warn!(stream = %config.stream, durable = %config.durable, reason = %lost, "lost the durable consumer; setting it up again");
        let wait = tokio::time::sleep(backoff.next());
        tokio::select! {
            () = token.cancelled() => return Ok(()),
            () = wait => {}
        }
    }
}
