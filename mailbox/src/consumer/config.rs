//! What a consumer reads, under which name, and its bounds.

use std::time::Duration;

use crate::coalescing::STEP_EVERY;

/// One transaction's worth of events: set-based SQL gains little beyond it, and a replica that dies
/// leaves this many to be delivered again.
const BATCH_DEFAULT: usize = 256;

/// Messages delivered and not acknowledged, over all replicas: the batches of sixteen replicas, or
/// that many events waiting for another attempt. At the bound JetStream delivers no new ones.
pub(super) const MAX_ACK_PENDING: usize = 4096;

/// How long JetStream waits for an acknowledgement before it delivers again: what a replica's death
/// adds to the latency of the events in its hands.
const ACK_WAIT_DEFAULT: Duration = Duration::from_secs(60);

/// Below this, an ordinary pause of Postgres would cause repeats.
const ACK_WAIT_LEAST: Duration = Duration::from_secs(1);

/// Deliveries after which an event that this version does not know is a dead letter: about an hour of
/// them, in which an upgrade has rolled.
const UNKNOWN_DELIVERIES_MAX: u32 = 250;

/// A consumer's configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The stream to read. It need not exist yet.
    pub stream: String,
    /// The name of the durable consumer, and of this consumer in the inbox. Changing it means applying
    /// the whole stream once more.
    pub durable: String,
    /// The subjects to read; all of the stream's if empty.
    pub filters: Vec<String>,
    /// The most events in one transaction, and in memory.
    pub batch_max: usize,
    /// How long after the begin of a batch of several events, but fewer than `batch_max`, the next is
    /// fetched at the earliest ([`crate::coalescing`]).
    pub step_every: Duration,
    /// How long JetStream waits before it delivers an unacknowledged event again. An attempt to apply a
    /// batch is given up after a quarter of it.
    pub ack_wait: Duration,
    /// After so many deliveries an event of a type that no replica knows ([`super::Failure::Unknown`])
    /// goes to the dead letters.
    pub unknown_deliveries_max: u32,
}

/// What is wrong with a [`Config`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidConfig {
    /// The name cannot be one in NATS.
    #[error("{field} `{name}` must be 1 to 255 characters without white space and `.*>/\\`")]
    Name {
        /// Which name.
        field: &'static str,
        /// The name.
        name: String,
    },
    /// The filter cannot be a subject in NATS.
    #[error("filter `{0}` is not a subject")]
    Filter(String),
    /// No batch, or one larger than what JetStream will hand out.
    #[error("batch_max is {0}, and must be 1 to {MAX_ACK_PENDING}")]
    BatchMax(usize),
    /// Too short to apply anything in.
    #[error("ack_wait is {0:?}, and must be {ACK_WAIT_LEAST:?} or more")]
    AckWait(Duration),
}

impl Config {
    /// The configuration with the default bounds: batches of 256, `ack_wait` of 60 s.
    #[must_use]
    pub fn new(
        stream: impl Into<String>,
        durable: impl Into<String>,
        filters: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        Self {
            stream: stream.into(),
            durable: durable.into(),
            filters: filters.into_iter().map(Into::into).collect(),
            batch_max: BATCH_DEFAULT,
            step_every: STEP_EVERY,
            ack_wait: ACK_WAIT_DEFAULT,
            unknown_deliveries_max: UNKNOWN_DELIVERIES_MAX,
        }
    }

    /// The longest that an attempt to apply a batch may take.
    #[must_use]
    pub fn attempt_max(&self) -> Duration {
        self.step_max()
    }

    /// The longest that anything may take while messages are in hand: an attempt, or a pause before the
    /// next. Leases are looked after in between and renewed when as old as this, so that none reaches
    /// more than half of `ack_wait`.
    pub(super) fn step_max(&self) -> Duration {
        self.ack_wait / 4
    }

    pub(super) fn validate(&self) -> Result<(), InvalidConfig> {
        for (field, name) in [("stream", &self.stream), ("durable", &self.durable)] {
            let forbidden = |c: char| c.is_whitespace() || c.is_control() || ".*>/\\".contains(c);
            if name.is_empty() || name.len() > 255 || name.contains(forbidden) {
                let name = name.clone();
                return Err(InvalidConfig::Name { field, name });
            }
        }
        if let Some(filter) = self.filters.iter().find(|filter| !is_subject(filter)) {
            return Err(InvalidConfig::Filter(filter.clone()));
        }
        if !(1..=MAX_ACK_PENDING).contains(&self.batch_max) {
            return Err(InvalidConfig::BatchMax(self.batch_max));
        }
        if self.ack_wait < ACK_WAIT_LEAST {
            return Err(InvalidConfig::AckWait(self.ack_wait));
        }
        Ok(())
    }
}

fn is_subject(text: &str) -> bool {
    !text.contains(char::is_whitespace) && text.split('.').all(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_that_cannot_work_is_refused_by_name() {
        let good = Config::new("ORDERS", "customer-service", ["events.orders.v1.>"]);
        assert_eq!(good.validate(), Ok(()));
        let refused = |change: fn(&mut Config)| {
            let mut config = good.clone();
            change(&mut config);
            config.validate().unwrap_err().to_string()
        };
        assert!(refused(|c| c.stream.clear()).starts_with("stream `` must"));
        assert!(refused(|c| c.durable = "a.b".into()).starts_with("durable `a.b` must"));
        assert!(refused(|c| c.filters.push("a..b".into())).contains("`a..b`"));
        assert!(refused(|c| c.batch_max = 0).contains("batch_max is 0"));
        assert!(refused(|c| c.batch_max = 4097).contains("4097"));
        assert!(refused(|c| c.ack_wait = Duration::ZERO).contains("ack_wait"));
    }
}
