//! When JetStream syncs to disk what it has acknowledged: only the server's monitoring page tells, over
//! plain HTTP.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde_json::Value as Json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// What nats-server does unless it is configured otherwise.
pub const DEFAULT: Duration = Duration::from_secs(120);

/// How long the page may take.
const PAGE_TIMEOUT: Duration = Duration::from_secs(5);
/// A page of more bytes is not the server's.
const PAGE_BYTES_MAX: u64 = 1024 * 1024;

/// For how long after its acknowledgement a message can be lost with the server's power; zero where it is
/// synced first.
///
/// # Errors
/// The page cannot be had, or does not tell.
pub async fn interval(address: &str) -> anyhow::Result<Duration> {
    let page = timeout(PAGE_TIMEOUT, varz(address)).await;
    let page = page.with_context(|| format!("{address} does not answer"))?;
    told(&page.with_context(|| address.to_owned())?)
}

fn told(page: &Json) -> anyhow::Result<Duration> {
    let settings = &page["jetstream"]["config"];
    if settings["sync_always"] == Json::Bool(true) {
        return Ok(Duration::ZERO);
    }
    match settings["sync_interval"].as_u64() {
        Some(nanos) => Ok(Duration::from_nanos(nanos)),
        None => bail!("the monitoring page does not tell it"),
    }
}

async fn varz(address: &str) -> anyhow::Result<Json> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET /varz HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(PAGE_BYTES_MAX).read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("the answer is not HTTP")?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    ensure!(status == "200", "/varz says {status}");
    serde_json::from_str(body).context("/varz is not JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn always_is_no_time_at_all_whatever_interval_stands_beside_it() {
        let page = |settings| serde_json::json!({"jetstream": {"config": settings}});
        let always = serde_json::json!({"sync_always": true, "sync_interval": 120_000_000_000_u64});
        assert_eq!(told(&page(always)).unwrap(), Duration::ZERO);
        let interval = serde_json::json!({"sync_interval": 5_000_000_000_u64});
        assert_eq!(told(&page(interval)).unwrap(), Duration::from_secs(5));
        assert!(told(&serde_json::json!({})).is_err());
    }
}
