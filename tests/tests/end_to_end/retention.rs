//! How long a service may be told to remember what it has applied.

use std::time::Duration;

use anyhow::Result;
use harness::System;

const VARIABLE: &str = "INBOX_RETENTION_SECONDS";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_would_forget_too_soon_ends_and_says_both_figures() -> Result<()> {
    let max_age = |builder: harness::Builder, seconds| {
        builder.env("cdc-relay", "CDC_STREAM_MAX_AGE_SECONDS", seconds)
    };
    // Of two days and a little more than twice the life of the events, the second is enough.
    let system = max_age(System::builder(), "86400")
        .env("order-service", VARIABLE, "172900")
        .env("customer-service", VARIABLE, "172800")
        // Where it ends before it is ready, the end of its log is all there is to look at.
        .env("customer-service", "RUST_BACKTRACE", "0");
    let told = match system.start().await {
        // It ended before it was ready.
        Err(ended) => format!("{ended:?}"),
        Ok(system) => {
            let service = system.process("customer-service");
            let ended = service.wait_ended(Duration::from_secs(30)).await?;
            assert!(!ended.success(), "{ended}");
            system.process("order-service").ensure_alive()?;
            service.log().text()
        }
    };
    assert!(told.contains("172800 s"), "{told}");
    assert!(told.contains("172860 s"), "twice a day and 30 s: {told}");
    Ok(())
}
