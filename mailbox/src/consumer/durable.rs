//! The durable consumer: waits for its stream, creates it, or brings it up to date.

use async_nats::jetstream::consumer::{
    AckPolicy, Config as AnyConfig, DeliverPolicy, FromConsumer, PullConsumer, pull,
};
use async_nats::jetstream::context::{ConsumerInfoErrorKind, GetStreamErrorKind};
use async_nats::jetstream::stream::{ConsumerErrorKind, Stream};
use async_nats::jetstream::{Context, ErrorCode};
use tracing::{info, warn};

use super::config::{Config, MAX_ACK_PENDING};
use super::filters;
use super::worker::Worker;
use super::{Error, Handler, RECONNECT_LONGEST};
use crate::backoff::Backoff;

/// For ever. Giving up on an event is our decision, and it ends in a dead letter (I10).
const MAX_DELIVER: i64 = -1;

/// The code of JetStream's answers to requests that cannot be granted as they are.
const BAD_REQUEST: usize = 400;

/// Why the consumer is not ready.
enum NotReady {
    /// Nobody has created the stream yet.
    NoStream,
    /// Try again.
    Transient(async_nats::Error),
    /// Trying again would not help.
    Refused(String),
}

/// The durable consumer and the dead-letter stream, ready; None if cancelled before.
pub(super) async fn ready<H: Handler>(
    context: &Context,
    worker: &Worker<H>,
) -> Result<Option<PullConsumer>, Error> {
    let config = &worker.config;
    let mut backoff = Backoff::up_to(RECONNECT_LONGEST);
    let mut told = String::new();
    loop {
        let reason = match set_up(context, worker).await {
            Ok(consumer) => return Ok(Some(consumer)),
            Err(NotReady::Refused(reason)) => {
                return Err(Error::Refused {
                    stream: config.stream.clone(),
                    durable: config.durable.clone(),
                    reason,
                });
            }
            Err(NotReady::NoStream) => {
                "the stream does not exist; the relay of its database creates it".to_owned()
            }
            Err(NotReady::Transient(error)) => error.to_string(),
        };
        // Once for each reason: a stream may be missing for hours.
        if told != reason {
            warn!(stream = %config.stream, durable = %config.durable, %reason, "waiting for JetStream");
            told = reason;
        }
        tokio::select! {
            () = worker.token.cancelled() => return Ok(None),
            () = tokio::time::sleep(backoff.next()) => {}
        }
    }
}

async fn set_up<H: Handler>(
    context: &Context,
    worker: &Worker<H>,
) -> Result<PullConsumer, NotReady> {
    let config = &worker.config;
    let stream = context
        .get_stream(&config.stream)
        .await
        .map_err(|error| match error.kind() {
            GetStreamErrorKind::JetStream(e) if e.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                NotReady::NoStream
            }
            _ => NotReady::Transient(error.into()),
        })?;
    // Before the first event, so that none can turn out to have nowhere to go.
    worker
        .dead_letters
        .create_stream(stream.cached_info().config.num_replicas)
        .await
        .map_err(NotReady::Transient)?;
    create_or_update(&stream, config).await
}

async fn create_or_update(stream: &Stream, config: &Config) -> Result<PullConsumer, NotReady> {
    let Config {
        stream: name,
        durable,
        ..
    } = config;
    let mut filters = filters::or_everything(config.filters.clone());
    let wanted = match stream.consumer_info(durable).await {
        Ok(info) if info.config.deliver_subject.is_some() => {
            return Err(NotReady::Refused(
                "a push consumer of this name exists".into(),
            ));
        }
        Ok(info) => {
            let present = filters::of(&info.config);
            let extra = filters::extra(&present, &filters);
            if !extra.is_empty() {
                warn!(stream = %name, %durable, ?extra, "the durable consumer reads more than this version asks for, as another version may need it; once none does, narrow its filters by hand");
            }
            filters = filters::union(&present, &filters);
            let changes = changes(&info.config, config, &filters);
            if changes.is_empty() {
                // Not written again: another version may have widened it since it was read.
                let consumer = stream.get_consumer(durable).await;
                return consumer.map_err(NotReady::Transient);
            }
            info!(stream = %name, %durable, ?changes, "updating the durable consumer");
            // What an operator has set besides stays as it is.
            let present = pull::Config::try_from_consumer_config(info.config);
            applied_to(present.map_err(NotReady::Transient)?, config, filters)
        }
        Err(error) if error.kind() == ConsumerInfoErrorKind::NotFound => {
            info!(stream = %name, %durable, "creating the durable consumer");
            applied_to(pull::Config::default(), config, filters)
        }
        Err(error) => return Err(NotReady::Transient(error.into())),
    };
    // Creates or updates, and does nothing if all is as wanted: replicas may do so at once.
    stream
        .create_consumer(wanted)
        .await
        .map_err(|error| match error.kind() {
            ConsumerErrorKind::JetStream(e) if e.code() == BAD_REQUEST => {
                NotReady::Refused(e.to_string())
            }
            _ => NotReady::Transient(error.into()),
        })
}

fn applied_to(present: pull::Config, config: &Config, filters: Vec<String>) -> pull::Config {
    let (filter_subject, filter_subjects) = match filters.as_slice() {
        [one] if one == filters::EVERYTHING => (String::new(), Vec::new()),
        [one] => (one.clone(), Vec::new()),
        _ => (String::new(), filters),
    };
    pull::Config {
        durable_name: Some(config.durable.clone()),
        name: Some(config.durable.clone()),
        deliver_policy: DeliverPolicy::All,
        ack_policy: AckPolicy::Explicit,
        ack_wait: config.ack_wait,
        max_deliver: MAX_DELIVER,
        max_ack_pending: MAX_ACK_PENDING as i64,
        filter_subject,
        filter_subjects,
        // It would override ack_wait.
        backoff: Vec::new(),
        ..present
    }
}

/// The names of the settings that differ from what is wanted.
fn changes(present: &AnyConfig, config: &Config, filters: &[String]) -> Vec<&'static str> {
    let settings = [
        ("filters", filters::of(present) == filters),
        ("ack_wait", present.ack_wait == config.ack_wait),
        ("max_deliver", present.max_deliver == MAX_DELIVER),
        (
            "max_ack_pending",
            present.max_ack_pending == MAX_ACK_PENDING as i64,
        ),
        ("ack_policy", present.ack_policy == AckPolicy::Explicit),
        (
            "deliver_policy",
            present.deliver_policy == DeliverPolicy::All,
        ),
        ("backoff", present.backoff.is_empty()),
    ];
    let differing = settings.into_iter().filter(|(_, same)| !same);
    differing.map(|(name, _)| name).collect()
}
