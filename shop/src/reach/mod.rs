//! From a request to its answer, over gRPC or NATS: tried again while nobody answers, until the time is up.
//!
//! Danger: a try without an answer may have taken effect. Every request that changes something carries an id,
//! the same with each try, so that it takes effect once.

mod grpc;
mod nats;
pub(crate) mod tls;
pub(crate) mod token;

use std::time::Duration;

use prost::{Message, Name};
use rand::RngExt as _;
use tokio::time::{Instant, sleep, timeout};
use tonic::Code;
use uuid::Uuid;

pub(crate) use self::grpc::Stream;
use crate::cli::{Connection, Via};
use crate::failure::Failure;

/// One try is given this, besides what the service itself is asked to wait: a replica that died with the
/// request in hand should not take all the time there is.
const TRY_MAX: Duration = Duration::from_secs(5);
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// An operation: `orders.v1.CreateOrder` is the NATS subject, and names the gRPC method with its service.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operation {
    pub(crate) subject: &'static str,
    /// The id that makes it take effect once; none where nothing is changed.
    pub(crate) request_id: Option<Uuid>,
    /// For how long the service is asked to wait before it answers.
    pub(crate) wait: Duration,
    /// Whether it is tried again when nobody answers though it may have been heard.
    insists: bool,
}

impl Operation {
    /// One that changes nothing.
    pub(crate) fn read(subject: &'static str) -> Self {
        Self {
            subject,
            request_id: None,
            wait: Duration::ZERO,
            insists: true,
        }
    }

    /// One that changes something, once.
    pub(crate) fn change(subject: &'static str, request_id: Uuid) -> Self {
        Self {
            request_id: Some(request_id),
            ..Self::read(subject)
        }
    }

    /// The same, which the service answers after `wait` at the latest.
    pub(crate) fn waiting(self, wait: Duration) -> Self {
        Self { wait, ..self }
    }

    /// The same, not tried again once it may have been heard: it may be what ends who hears it.
    pub(crate) fn heard_once(self) -> Self {
        let insists = false;
        Self { insists, ..self }
    }

    /// Whether it needs a place among the pending orders, or among those who wait for them: others give theirs up
    /// within moments. To other operations `RESOURCE_EXHAUSTED` says that the answer is too large, and stays so.
    fn takes_room(&self) -> bool {
        let subjects = [
            "orders.v1.CreateOrder",
            "orders.v1.GetOrder",
            "orders.v1.WatchOrder",
        ];
        subjects.contains(&self.subject)
    }
}

/// Who serves a subject: `orders.v1.GetOrder`, `dead_letters.v1.order-service.GetDeadLetter`.
fn process(subject: &str) -> &'static str {
    match subject.starts_with("orders.") || subject.contains(".order-service.") {
        true => "order-service",
        false => "customer-service",
    }
}

/// Both services.
#[derive(Debug)]
pub(crate) struct Services {
    transport: Transport,
    patience: Duration,
}

#[derive(Debug)]
enum Transport {
    Grpc(Box<grpc::Channels>),
    Nats(nats::Nats),
}

/// Why a try has no answer that counts.
#[derive(Debug)]
enum Missed {
    /// The service's refusal.
    Refused { code: Code, message: String },
    /// Nobody has answered: why, what to do, and whether the request may have been heard all the same.
    Unanswered { why: String, heard: bool },
    /// The service cannot be spoken to with these settings: why, and what to do. Nothing was asked.
    Unusable(String),
    /// The answer cannot be read.
    Unreadable(anyhow::Error),
}

impl Missed {
    /// Whether another try of `operation` may be answered better.
    fn passes(&self, operation: Operation) -> bool {
        match self {
            Self::Unanswered { .. } => true,
            Self::Refused { code, .. } => match code {
                Code::Unavailable | Code::DeadlineExceeded | Code::Aborted => true,
                Code::ResourceExhausted => operation.takes_room(),
                _ => false,
            },
            Self::Unusable(_) | Self::Unreadable(_) => false,
        }
    }

    /// Whether it may have been heard, and who heard it has said nothing.
    fn was_heard(&self) -> bool {
        matches!(self, Self::Unanswered { heard: true, .. })
    }

    /// Whether the change may have been made.
    fn leaves_doubt(&self) -> bool {
        match self {
            Self::Unanswered { heard, .. } => *heard,
            // Not ResourceExhausted: it is refused before anything is done.
            Self::Refused { code, .. } => matches!(
                code,
                Code::Unavailable | Code::DeadlineExceeded | Code::Aborted
            ),
            Self::Unusable(_) => false,
            Self::Unreadable(_) => true,
        }
    }

    /// Whether no try before this one took effect either: the request is refused for what it asks, and if a
    /// try had taken effect, its answer would have come back instead. A replica that has no room, is of
    /// another version or fails says nothing about the tries before: it may not have looked so far.
    fn clears_doubt(&self) -> bool {
        let Self::Refused { code, .. } = self else {
            return false;
        };
        matches!(
            code,
            Code::InvalidArgument
                | Code::NotFound
                | Code::AlreadyExists
                | Code::FailedPrecondition
                | Code::OutOfRange
        )
    }

    fn into_failure(self, tried: Duration) -> Failure {
        match self {
            Self::Refused { code, message } => Failure::Refused { code, message },
            Self::Unanswered { why, .. } => {
                Failure::Unanswered(format!("{why}\nTried for {tried:?}"))
            }
            Self::Unusable(why) => Failure::Unanswered(why),
            Self::Unreadable(error) => Failure::Other(error),
        }
    }
}

impl Services {
    pub(crate) async fn reach(settings: &Connection, via: Via) -> Result<Self, Failure> {
        let transport = match via {
            Via::Grpc => Transport::Grpc(Box::new(grpc::Channels::new(settings)?)),
            Via::Nats => Transport::Nats(nats::Nats::connect(settings).await?),
        };
        Ok(Self {
            transport,
            patience: settings.timeout,
        })
    }

    /// Asks until there is an answer or the time is up.
    pub(crate) async fn call<Q, A>(&self, operation: Operation, request: &Q) -> Result<A, Failure>
    where
        Q: Message + Name + Clone + 'static,
        A: Message + Default + 'static,
    {
        let ask = async |try_max| self.ask(operation, request, try_max).await;
        self.until_answered(operation, ask).await
    }

    /// The stream of answers, once there is one; over gRPC alone, none over NATS.
    pub(crate) async fn stream<Q, A>(
        &self,
        operation: Operation,
        request: &Q,
    ) -> Result<Option<Stream<A>>, Failure>
    where
        Q: Message + Name + Clone + 'static,
        A: Message + Default + 'static,
    {
        let Transport::Grpc(channels) = &self.transport else {
            return Ok(None);
        };
        let ask = async |_| channels.stream(operation.subject, request.clone()).await;
        self.until_answered(operation, ask).await.map(Some)
    }

    async fn until_answered<T>(
        &self,
        operation: Operation,
        ask: impl AsyncFn(Duration) -> Result<T, Missed>,
    ) -> Result<T, Failure> {
        let deadline = Instant::now() + self.patience + operation.wait;
        let mut pause = PAUSE_FIRST;
        let mut in_doubt = false;
        let mut last = None;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let try_max = left.min(TRY_MAX + operation.wait);
            let missed = match timeout(try_max, ask(try_max)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(missed)) => missed,
                Err(_) => self.silence(operation.subject),
            };
            in_doubt |= missed.leaves_doubt();
            let next = pause.mul_f64(rand::rng().random_range(0.5..1.0));
            let again = missed.passes(operation) && (operation.insists || !missed.was_heard());
            if again && Instant::now() + next < deadline {
                sleep(next).await;
                pause = (pause * 2).min(PAUSE_MAX);
                last = Some(missed);
                continue;
            }
            in_doubt &= !missed.clears_doubt();
            // The time cut the last try short; the one before it may have been told more.
            let told = match try_max == left && missed.passes(operation) {
                true => last.unwrap_or(missed),
                false => missed,
            };
            let failure = told.into_failure(self.patience);
            return Err(match operation.request_id.filter(|_| in_doubt) {
                Some(id) => failure.of_unknown_outcome(id),
                None => failure,
            });
        }
    }

    async fn ask<Q, A>(
        &self,
        operation: Operation,
        request: &Q,
        try_max: Duration,
    ) -> Result<A, Missed>
    where
        Q: Message + Name + Clone + 'static,
        A: Message + Default + 'static,
    {
        match &self.transport {
            Transport::Grpc(channels) => channels.ask(operation.subject, request.clone()).await,
            Transport::Nats(nats) => nats.ask(operation.subject, request, try_max).await,
        }
    }

    /// A try that was cut short.
    fn silence(&self, subject: &str) -> Missed {
        let what = "an answer takes too long";
        let why = match &self.transport {
            Transport::Grpc(channels) => channels.unanswered(subject, what),
            Transport::Nats(nats) => nats.unanswered(subject, what),
        };
        Missed::Unanswered { why, heard: true }
    }
}

#[cfg(test)]
mod tests;
