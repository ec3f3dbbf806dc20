//! Whatever is killed or restarted under load, in turn and again and again: everything settles, no
//! event is lost or stands twice, no credit is reserved past its limit (I1, I2, I4, I5, I8, I9).

use std::time::{Duration, Instant};

use harness::{Side, System};

use crate::load::Load;

/// Times that each is killed. Each time at another point of the burst.
const ROUNDS: usize = 3;
/// `SHUTDOWN_DEADLINE_SECONDS`, by default.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(25);

/// A system in which no order times out: a batch in the hand of a killed service comes back after
/// `ack_wait` each time, and what the load asserts is that it all is settled by answers.
async fn patient() -> System {
    let builder = System::builder().env("order-service", "ORDER_DEADLINE_SECONDS", "3600");
    builder.start().await.expect("the system starts")
}

fn processes() -> [&'static str; 4] {
    [
        Side::Orders.service(),
        Side::Customers.relay(),
        Side::Customers.service(),
        Side::Orders.relay(),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn each_process_killed_under_load_loses_and_doubles_nothing() {
    let system = patient().await;
    let load = Load::default();
    for round in 0..ROUNDS {
        for name in processes() {
            let burst = load.burst(&system).await.unwrap();
            burst.placed(1 + 2 * round, 2 * ROUNDS).await;
            system.process(name).restart().await.unwrap();
            burst.finished().await;
        }
    }
    load.assert_settled(&system).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_process_terminated_under_load_ends_in_time_and_loses_nothing() {
    let system = patient().await;
    let load = Load::default();
    for round in 0..ROUNDS {
        for name in processes() {
            let burst = load.burst(&system).await.unwrap();
            burst.placed(1 + 2 * round, 2 * ROUNDS).await;
            let process = system.process(name);
            let asked = Instant::now();
            let status = process.terminate().await.unwrap();
            let took = asked.elapsed();
            assert!(status.success(), "{name}: {status}");
            println!("{name} ended within {took:?}");
            assert!(took < SHUTDOWN_DEADLINE, "{name} took {took:?}");
            process.start_again().unwrap();
            process.wait_ready().await.unwrap();
            burst.finished().await;
        }
    }
    load.assert_settled(&system).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_restarted_under_load_loses_and_doubles_nothing() {
    let system = patient().await;
    let load = Load::default();
    for round in 0..ROUNDS {
        for kill in [true, false] {
            let burst = load.burst(&system).await.unwrap();
            burst.placed(1 + 2 * round, 2 * ROUNDS).await;
            let postgres = system.postgres();
            match kill {
                true => postgres.kill().await.unwrap(),
                false => postgres.stop().await.unwrap(),
            }
            postgres.start_again().await.unwrap();
            burst.finished().await;
        }
    }
    load.assert_settled(&system).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nats_restarted_under_load_loses_and_doubles_nothing() {
    let system = patient().await;
    let load = Load::default();
    for round in 0..ROUNDS {
        for kill in [true, false] {
            let burst = load.burst(&system).await.unwrap();
            burst.placed(1 + 2 * round, 2 * ROUNDS).await;
            let nats = system.nats();
            match kill {
                true => nats.kill().await.unwrap(),
                false => nats.stop().await.unwrap(),
            }
            nats.start_again().await.unwrap();
            burst.finished().await;
        }
    }
    load.assert_settled(&system).await;
}
