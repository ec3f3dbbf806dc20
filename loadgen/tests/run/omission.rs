//! No coordinated omission: a service that does not answer for a second shows with all that was due meanwhile,
//! also where only a few requests could be on their way.

use std::time::{Duration, Instant};

use harness::System;

use crate::start;

const PAUSE: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_paused_for_a_second_shows_in_full() {
    let system = System::start().await.expect("the system starts");
    let options = [
        "--rate",
        "100",
        "--arrivals",
        "constant",
        "--warm-up",
        "1s",
        "--duration",
        "8s",
        "--customers",
        "20",
        "--mix",
        "create=50,get=50",
        "--in-flight",
        "4",
    ];
    let running = start(&system, "paused", &options);
    // In the middle: what was paused is seen by the clock of the service's own orders.
    wait_for_orders(&system, 150).await;
    let service = system.process("order-service");
    let begun = Instant::now();
    service.pause().expect("it is paused");
    tokio::time::sleep(PAUSE).await;
    service.resume().expect("it goes on");
    let paused = begun.elapsed();
    let ran = running.ended().await;
    assert_eq!(ran.status, Some(0), "{}", ran.said);
    assert!(paused < 2 * PAUSE, "this machine was too slow: {paused:?}");
    // Of 800 requests 100 were due in the pause, evenly: an eighth waited up to a second. Seen from when they
    // were sent, four of 800 did, since four at most were on their way.
    let ms = |pointer: &str| ran.number(pointer) / 1e3;
    let (p90, p99, max) = (ms("/request/p90"), ms("/request/p99"), ms("/request/max"));
    assert!(p99 > 700.0, "p99 {p99} ms");
    assert!(p90 > 100.0, "p90 {p90} ms");
    assert!(max >= 950.0, "max {max} ms");
    assert!(ran.count("/totals/late") >= 80, "{}", ran.said);
    assert!((ran.number("/rates/offered") - 100.0).abs() < 0.5);
}

async fn wait_for_orders(system: &System, count: i64) {
    let database = system
        .database(harness::Side::Orders)
        .await
        .expect("a database");
    let what = format!("{count} orders");
    let there = harness::eventually(&what, Duration::from_secs(30), async || {
        let row = database
            .query_one("SELECT count(*) FROM orders", &[])
            .await?;
        Ok((row.get::<_, i64>(0) >= count).then_some(()))
    });
    there.await.expect("the load has begun");
}
