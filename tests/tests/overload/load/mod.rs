//! Three times as many orders as the system settles: what is beyond its means is refused at once, what is not is
//! served as before, memory stays bounded, and when the load is back to what it was, so is everything else.
//!
//! Those who ask, those who refuse and those who serve share the machine here, and a build for debugging takes as
//! much of it for a refusal as for a fair part of an order. So that what is tried is the services and not the
//! processors, they have a database that takes its time: each commit waits, and each settles but a few orders.
//!
//! The rate that saturates the system is found first, by a closed load; what it is depends on the machine and on
//! what else runs there. What is asserted are ratios, and bounds that are wide: a queue without a bound exceeds
//! them by as much as one likes, if only the load lasts.
//!
//! `OVERLOAD_SECONDS=60` makes it a minute. docs/benchmark-saga.md has one.

mod open;
mod saturation;

use std::env;
use std::time::Duration;

use harness::{Process, System};

use crate::{PEAK_KIB_MAX, peak_kib};
use open::{Phases, Ran, Second};

/// Long enough for a queue to show that has no bound; the suite has no minute.
const OVERLOAD: Duration = Duration::from_secs(15);
const TIMES: f64 = 3.0;
/// It is overloaded where it settles less of what is offered. At three times what it can do it is a third.
const OVERLOADED: f64 = 0.67;
const TRIES: usize = 3;
/// Of what saturates it; before the overload, and after it.
const AT_EASE: f64 = 0.3;
/// Pending orders: so few that they are settled within seconds also here.
const PENDING_MAX: usize = 500;
/// Events that are applied in one transaction, and microseconds that its commit waits: 200 a second at most.
const BATCH_MAX: &str = "4";
const COMMIT_DELAY: &str = "20000";

/// Of the orders that the system settles at saturation, so many it still settles: the refusals cost processor time,
/// which on one machine is taken from the rest, as is the time of those who ask.
const GOODPUT_MIN: f64 = 0.3;
/// A refusal waits for nothing; but whoever refuses, and whoever asks, has to get a processor.
const REFUSED_P50_MAX: Duration = Duration::from_secs(2);
/// By when orders are settled as quickly as before: in this time, and twice what it takes to settle all that may be
/// pending.
const RECOVERED_AFTER: Duration = Duration::from_secs(4);
/// Seconds that are looked at after that.
const AFTERWARDS: usize = 4;
/// As quickly: within so many times what it took before, and what a busy machine may add.
const SLOWER: f64 = 5.0;
const SLACK: Duration = Duration::from_millis(250);

#[tokio::test(flavor = "multi_thread")]
async fn at_three_times_the_saturating_rate_it_sheds_serves_and_recovers() {
    let system = System::builder()
        .env(
            "order-service",
            "PENDING_ORDERS_MAX",
            &PENDING_MAX.to_string(),
        )
        .env("order-service", "CONSUMER_BATCH_MAX", BATCH_MAX)
        .env("customer-service", "CONSUMER_BATCH_MAX", BATCH_MAX)
        .postgres("fsync", "on")
        .postgres("commit_delay", COMMIT_DELAY)
        .postgres("commit_siblings", "0")
        .start()
        .await
        .expect("the system starts");
    let saturating = saturation::find(&system).await.expect("a closed load");
    let (saturating, ran) = overload(&system, saturating).await;
    assert_sheds(&ran, saturating);
    assert_recovers(&ran, recovered_after(saturating));
    for process in system.processes() {
        assert_bounded(process);
    }
    let books = harness::books::settled(&system, Duration::from_secs(60));
    books
        .await
        .expect("no order is pending for ever")
        .assert_clean();
}

/// Puts the load on; again where it was none, because something else had the machine while `saturating` was found:
/// what was settled meanwhile tells what the system can do.
async fn overload(system: &System, mut saturating: f64) -> (f64, Ran) {
    for _ in 0..TRIES {
        println!("saturated by {saturating:.0} orders a second");
        let phases = Phases {
            at_ease: AT_EASE * saturating,
            over: TIMES * saturating,
            lasts: lasts(),
            after: recovered_after(saturating) + AFTERWARDS,
        };
        let ran = open::run(system, &phases).await;
        ran.assert_open();
        if ran.settled() < OVERLOADED * ran.offered() {
            return (saturating, ran);
        }
        saturating = ran.settled();
    }
    panic!("the system was not overloaded: this machine is too busy to tell what it can do");
}

/// Seconds.
fn recovered_after(saturating: f64) -> usize {
    let pending = Duration::from_secs_f64(2.0 * PENDING_MAX as f64 / saturating);
    (RECOVERED_AFTER + pending).as_secs() as usize
}

fn lasts() -> Duration {
    let seconds = env::var("OVERLOAD_SECONDS").ok();
    let seconds = seconds.map(|given| given.parse().expect("OVERLOAD_SECONDS: a number"));
    seconds.map_or(OVERLOAD, Duration::from_secs)
}

/// What it cannot do it refuses quickly, and it does nearly what it can.
fn assert_sheds(ran: &Ran, saturating: f64) {
    let codes = ran.codes();
    let expected = ["RESOURCE_EXHAUSTED", "UNAVAILABLE"];
    assert!(
        codes.iter().all(|code| expected.contains(&code.as_str())),
        "{codes:?}"
    );
    assert!(!codes.is_empty(), "nothing is refused: {}", ran.said);
    let goodput = ran.settled();
    println!(
        "under overload {goodput:.0} orders a second were settled, {:.2} of what saturates it",
        goodput / saturating
    );
    assert!(goodput >= GOODPUT_MIN * saturating, "{goodput}");
    let p50 = ran.refused_p50();
    assert!(
        p50.is_some_and(|p50| p50 <= REFUSED_P50_MAX),
        "refused after {p50:?}"
    );
}

/// Soon after the overload orders are placed and settled as before, and none is refused.
fn assert_recovers(ran: &Ran, within: usize) {
    let (before, after) = (ran.before(), ran.after());
    let is_slower = |what: fn(&Second) -> Option<Duration>, second: &Second| {
        let slowest = before.iter().filter_map(what).max();
        let bound = slowest.expect("orders before").mul_f64(SLOWER) + SLACK;
        what(second).is_some_and(|took| took > bound)
    };
    let last = after.iter().rposition(|second| {
        second.failed > 0.0
            || is_slower(|second| second.request_p50, second)
            || is_slower(|second| second.settled_p50, second)
    });
    let seconds = last.map_or(0, |last| last + 1);
    println!("as before after {seconds} s, of {within} s at most");
    assert!(seconds <= within, "before: {before:#?}, after: {after:#?}");
    let settled = |second: &Second| second.settled_p50.is_some();
    assert!(after[within..].iter().any(settled), "{after:#?}");
}

fn assert_bounded(process: &Process) {
    let peak = peak_kib(process);
    println!("{} had {} MiB at most", process.name(), peak / 1024);
    assert!(peak < PEAK_KIB_MAX, "{}: {peak} KiB", process.name());
}
