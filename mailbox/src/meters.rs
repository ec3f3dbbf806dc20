//! The crate's metrics, by the facade `metrics`: whoever installs a recorder sees them.

use metrics::{
    Gauge, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

const APPLIED: &str = "mailbox_events_applied_total";
const DUPLICATE: &str = "mailbox_events_duplicate_total";
const RETRIED: &str = "mailbox_events_retried_total";
const BATCHES_FAILED: &str = "mailbox_batches_failed_total";
const DEAD_LETTERS: &str = "mailbox_dead_letters_total";
const BATCH_SIZE: &str = "mailbox_batch_size";
const OLDEST_IN_HAND: &str = "mailbox_oldest_in_hand_timestamp_seconds";

pub(crate) fn describe() {
    describe_counter!(APPLIED, "Events applied and committed");
    describe_counter!(
        DUPLICATE,
        "Events delivered once more after they had been applied; not applied again"
    );
    describe_counter!(
        RETRIED,
        "Failed attempts after which an event is delivered again, later"
    );
    describe_counter!(
        BATCHES_FAILED,
        "Batches, and parts of them, whose transaction failed, by the failure's kind; their events are applied in smaller parts"
    );
    describe_counter!(DEAD_LETTERS, "Events set aside as dead letters");
    describe_histogram!(BATCH_SIZE, Unit::Count, "Messages in a batch");
    describe_gauge!(
        OLDEST_IN_HAND,
        Unit::Seconds,
        "When JetStream stored the oldest of the events that are being applied, in seconds since 1970; 0 while there are none"
    );
    // A failure that has never happened shows as 0, so that a first one shows as a rise.
    for kind in ["definite", "transient"] {
        counter!(BATCHES_FAILED, "kind" => kind).increment(0);
    }
    for name in [APPLIED, DUPLICATE, RETRIED, DEAD_LETTERS] {
        counter!(name).increment(0);
    }
}

pub(crate) fn applied(events: usize) {
    counter!(APPLIED).increment(events as u64);
}

pub(crate) fn duplicate(events: usize) {
    counter!(DUPLICATE).increment(events as u64);
}

pub(crate) fn retried() {
    counter!(RETRIED).increment(1);
}

pub(crate) fn batch_failed(kind: &'static str) {
    counter!(BATCHES_FAILED, "kind" => kind).increment(1);
}

pub(crate) fn dead_letter() {
    counter!(DEAD_LETTERS).increment(1);
}

pub(crate) fn batch_size(messages: usize) {
    histogram!(BATCH_SIZE).record(messages as f64);
}

/// What is in hand, until it is dropped.
pub(crate) struct InHand(Gauge);

/// Shows that the oldest of what `durable` has in hand was stored at `stored_at`, in nanoseconds since 1970.
pub(crate) fn in_hand(durable: &str, stored_at: i128) -> InHand {
    let gauge = gauge!(OLDEST_IN_HAND, "durable" => durable.to_owned());
    gauge.set((stored_at / 1_000_000) as f64 / 1000.0);
    InHand(gauge)
}

impl Drop for InHand {
    fn drop(&mut self) {
        self.0.set(0.0);
    }
}
