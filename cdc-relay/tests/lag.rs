//! What waits is told: in bytes, in events, and since when.

mod rig;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::{Process, eventually};
use rig::{Rig, SOON};

async fn lag(relay: &Process, of: &str) -> Result<f64> {
    let name = format!("cdc_relay_lag_{of}");
    relay
        .metric(&name)
        .await?
        .with_context(|| format!("there is no {name}"))
}

/// Waits until the lag is as it `should` be.
async fn becomes(relay: &Process, of: &str, should: impl Fn(f64) -> bool) -> Result<()> {
    eventually(&format!("the lag in {of}"), SOON, async || {
        let lag = lag(relay, of).await?;
        ensure!(should(lag), "{lag}");
        Ok(Some(()))
    })
    .await
}

#[tokio::test]
async fn what_jetstream_has_not_acknowledged_shows_as_lag() -> Result<()> {
    let rig = Rig::start().await?;
    let relay = rig.relay("relay")?;
    relay.wait_ready().await?;
    rig.insert("one").await?;
    rig.settled().await?;
    for of in ["bytes", "events", "seconds"] {
        becomes(&relay, of, |lag| lag == 0.0).await?;
    }
    rig.nats.pause()?;
    for payload in ["two", "three", "four"] {
        rig.insert(payload).await?;
    }
    let begun = std::time::Instant::now();
    becomes(&relay, "events", |lag| lag == 3.0).await?;
    becomes(&relay, "bytes", |lag| lag > 0.0).await?;
    becomes(&relay, "seconds", |lag| lag > 1.0).await?;
    ensure!(
        begun.elapsed() >= Duration::from_secs(1),
        "sooner than it can be"
    );
    rig.nats.resume()?;
    for of in ["bytes", "events", "seconds"] {
        becomes(&relay, of, |lag| lag == 0.0).await?;
    }
    assert_eq!(rig.settled().await?.len(), 4);
    Ok(())
}
