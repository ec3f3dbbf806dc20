//! What happened, in numbers: counts, histograms, and both over time. Latency runs from when a request was
//! due, never from when it was sent: what it waited for here, because the services were slow before, counts.
//!
//! What was not sent or not answered in time is recorded as having taken the whole time that it was given, so
//! that a percentile cannot look better for what is missing. Refusals have a count by code, and a latency of their
//! own: a quick no must not make the answers look quick.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use proto::orders::v1::OrderState;
use tonic::Code;

use crate::mix::Operation;
use chassis::code::name;

/// The longest time that is told apart, in microseconds: an hour.
const LATENCY_MAX: u64 = 3_600_000_000;
/// Points of a chart: more would not be seen, and each holds two small histograms (I12).
const INTERVALS_MAX: u32 = 300;
/// A request that was sent later than this after it was due is late.
const LATE: Duration = Duration::from_millis(10);

/// Microseconds, to three digits.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_MAX, 3).expect("the bounds are in order")
}

fn note<C: hdrhistogram::Counter>(histogram: &mut Histogram<C>, time: Duration) {
    let microseconds = u64::try_from(time.as_micros()).unwrap_or(LATENCY_MAX);
    histogram.saturating_record(microseconds);
}

/// One operation, of requests that were due after the warm-up.
#[derive(Debug)]
pub(crate) struct OfOperation {
    pub(crate) offered: u64,
    pub(crate) ok: u64,
    pub(crate) late: u64,
    pub(crate) unsent: u64,
    pub(crate) errors: BTreeMap<String, u64>,
    pub(crate) latency: Histogram<u64>,
}

impl OfOperation {
    fn new() -> Self {
        Self {
            offered: 0,
            ok: 0,
            late: 0,
            unsent: 0,
            errors: BTreeMap::new(),
            latency: histogram(),
        }
    }

    pub(crate) fn failed(&self) -> u64 {
        self.errors.values().sum()
    }
}

/// What became of the orders, those of the warm-up included.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Orders {
    pub(crate) created: u64,
    pub(crate) approved: u64,
    pub(crate) cancelled: u64,
    /// Awaited in vain.
    pub(crate) unsettled: u64,
    /// Not awaited.
    pub(crate) untracked: u64,
}

/// A point of the charts. Latency stands where the request was due; answers and outcomes where they came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interval {
    pub(crate) offered: u64,
    pub(crate) ok: u64,
    pub(crate) failed: u64,
    pub(crate) unsent: u64,
    pub(crate) settled: u64,
    pub(crate) request: Option<Histogram<u32>>,
    pub(crate) settling: Option<Histogram<u32>>,
}

/// Everything so far.
#[derive(Debug)]
pub(crate) struct Numbers {
    pub(crate) operations: [OfOperation; 4],
    /// Of all operations but watches, which last by nature.
    pub(crate) request: Histogram<u64>,
    /// From when an order was due to its outcome.
    pub(crate) settled: Histogram<u64>,
    /// From when a request was due to when it was sent.
    pub(crate) sending: Histogram<u64>,
    /// From when a request was due to when it was refused.
    pub(crate) refused: Histogram<u64>,
    pub(crate) orders: Orders,
    pub(crate) intervals: Vec<Interval>,
    /// Answers and outcomes that came between the warm-up and the end, whenever they were due.
    pub(crate) answered_within: u64,
    pub(crate) settled_within: u64,
    pub(crate) on_their_way: u64,
}

#[derive(Debug)]
pub(crate) struct Record {
    numbers: Mutex<Numbers>,
    start: Instant,
    warm_up: Duration,
    end: Duration,
    request_timeout: Duration,
    interval: Duration,
}

impl Record {
    /// `warm_up` and `end` since the start.
    pub(crate) fn new(
        start: Instant,
        (warm_up, end): (Duration, Duration),
        request_timeout: Duration,
    ) -> Self {
        let numbers = Numbers {
            operations: Operation::ALL.map(|_| OfOperation::new()),
            request: histogram(),
            settled: histogram(),
            sending: histogram(),
            refused: histogram(),
            orders: Orders::default(),
            intervals: Vec::new(),
            answered_within: 0,
            settled_within: 0,
            on_their_way: 0,
        };
        let seconds = (end.as_secs_f64() / f64::from(INTERVALS_MAX)).ceil();
        Self {
            numbers: Mutex::new(numbers),
            start,
            warm_up,
            end,
            request_timeout,
            interval: Duration::from_secs_f64(seconds.max(1.0)),
        }
    }

    pub(crate) fn numbers(&self) -> MutexGuard<'_, Numbers> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn interval(&self) -> Duration {
        self.interval
    }

    pub(crate) fn start(&self) -> Instant {
        self.start
    }

    fn counts(&self, due: Instant) -> bool {
        due >= self.start + self.warm_up
    }

    fn is_within(&self, at: Instant) -> bool {
        self.counts(at) && at < self.start + self.end
    }

    /// The point of the charts at that time. Whatever comes after the end belongs to the last one but for a few.
    fn at<'a>(&self, numbers: &'a mut Numbers, at: Instant) -> &'a mut Interval {
        let since = at.saturating_duration_since(self.start).as_secs_f64();
        let index = (since / self.interval.as_secs_f64()) as usize;
        let index = index.min(2 * INTERVALS_MAX as usize);
        if index >= numbers.intervals.len() {
            numbers.intervals.resize(index + 1, Interval::default());
        }
        &mut numbers.intervals[index]
    }

    pub(crate) fn offered(&self, operation: Operation, due: Instant) {
        let mut numbers = self.numbers();
        self.at(&mut numbers, due).offered += 1;
        if self.counts(due) {
            numbers.operations[operation as usize].offered += 1;
        }
    }

    pub(crate) fn unsent(&self, operation: Operation, due: Instant) {
        let mut numbers = self.numbers();
        self.at(&mut numbers, due).unsent += 1;
        if self.counts(due) {
            numbers.operations[operation as usize].unsent += 1;
        }
        self.took(&mut numbers, operation, due, self.request_timeout);
    }

    pub(crate) fn sent(&self, operation: Operation, due: Instant, sent: Instant) {
        let mut numbers = self.numbers();
        numbers.on_their_way += 1;
        if self.counts(due) {
            let waited = sent.saturating_duration_since(due);
            note(&mut numbers.sending, waited);
            numbers.operations[operation as usize].late += u64::from(waited > LATE);
        }
    }

    pub(crate) fn answered(&self, operation: Operation, due: Instant, at: Instant, code: Code) {
        let mut numbers = self.numbers();
        numbers.on_their_way -= 1;
        let interval = self.at(&mut numbers, at);
        match code {
            Code::Ok => interval.ok += 1,
            _ => interval.failed += 1,
        }
        numbers.answered_within += u64::from(code == Code::Ok && self.is_within(at));
        if self.counts(due) {
            let of_operation = &mut numbers.operations[operation as usize];
            match code {
                Code::Ok => of_operation.ok += 1,
                _ => {
                    *of_operation
                        .errors
                        .entry(name(code).to_owned())
                        .or_default() += 1
                }
            }
        }
        let took = at.saturating_duration_since(due);
        match code {
            Code::Ok => self.took(&mut numbers, operation, due, took),
            Code::DeadlineExceeded => {
                let took = took.max(self.request_timeout);
                self.took(&mut numbers, operation, due, took);
            }
            _ if self.counts(due) => note(&mut numbers.refused, took),
            _ => {}
        }
    }

    fn took(&self, numbers: &mut Numbers, operation: Operation, due: Instant, took: Duration) {
        let is_request = operation != Operation::Watch;
        if is_request {
            let interval = self.at(numbers, due);
            note(interval.request.get_or_insert_with(small), took);
        }
        if self.counts(due) {
            note(&mut numbers.operations[operation as usize].latency, took);
            if is_request {
                note(&mut numbers.request, took);
            }
        }
    }

    pub(crate) fn created(&self, tracked: bool) {
        let mut numbers = self.numbers();
        numbers.orders.created += 1;
        numbers.orders.untracked += u64::from(!tracked);
    }

    /// None: awaited in vain.
    pub(crate) fn settled(&self, due: Instant, at: Instant, state: Option<OrderState>) {
        let mut numbers = self.numbers();
        match state {
            Some(OrderState::Approved) => numbers.orders.approved += 1,
            Some(_) => numbers.orders.cancelled += 1,
            None => numbers.orders.unsettled += 1,
        }
        let took = at.saturating_duration_since(due);
        if state.is_some() {
            self.at(&mut numbers, at).settled += 1;
            numbers.settled_within += u64::from(self.is_within(at));
        }
        let interval = self.at(&mut numbers, due);
        note(interval.settling.get_or_insert_with(small), took);
        if self.counts(due) {
            note(&mut numbers.settled, took);
        }
    }
}

/// To two digits: a chart shows no more.
fn small() -> Histogram<u32> {
    Histogram::new_with_bounds(1, LATENCY_MAX, 2).expect("the bounds are in order")
}
