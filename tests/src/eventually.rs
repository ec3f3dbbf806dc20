//! Awaiting a condition instead of sleeping.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use tokio::time::{sleep, timeout};

/// Short enough to cost a test nothing, long enough to leave the processors to what is awaited.
const PAUSE: Duration = Duration::from_millis(20);

/// Asks `probe` again and again until it gives a value: `Ok(None)` is "not yet", and so is `Err`,
/// which should tell the state that was found (`bail!("{approved} of 10 are approved")`).
///
/// # Errors
/// After `deadline`: says what was awaited, for how long, and the last `Err` of `probe`.
pub async fn eventually<T>(
    what: &str,
    deadline: Duration,
    mut probe: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let end = Instant::now() + deadline;
    let mut last = None;
    loop {
        // A probe that hangs must not outlive the deadline.
        let left = end.saturating_duration_since(Instant::now());
        match timeout(left.max(PAUSE), probe()).await {
            Ok(Ok(Some(value))) => return Ok(value),
            Ok(Ok(None)) => last = None,
            Ok(Err(error)) => last = Some(error),
            Err(_) => last = Some(last.unwrap_or_else(|| anyhow!("the probe did not answer"))),
        }
        if Instant::now() >= end {
            let message = format!("waited {deadline:?} in vain for {what}");
            return Err(match last {
                Some(error) => error.context(message),
                None => anyhow!(message),
            });
        }
        sleep(PAUSE).await;
    }
}
