//! When JetStream syncs to disk: only the server's monitoring page tells, over plain HTTP.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::Value as Json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::Report;
use crate::config::Config;

/// How long the page may take.
const PAGE_TIMEOUT: Duration = Duration::from_secs(5);
/// A page of more bytes is not the server's.
const PAGE_BYTES_MAX: u64 = 1024 * 1024;

const MEND: &str =
    "set `jetstream { sync_interval: always }` in the server's configuration, and reload it";

pub(super) async fn look(config: &Config, report: &mut Report) {
    let Some(address) = &config.monitoring.address else {
        return report.warning(
            "sync_interval",
            "cannot be seen without the server's monitoring page; by default JetStream syncs every two \
             minutes, and a power failure can take what it had acknowledged",
            "set NATS_MONITORING_URL=http://…:8222 to have it looked at",
        );
    };
    match timeout(PAGE_TIMEOUT, varz(address)).await {
        Ok(Ok(page)) => judge(&page, report),
        Ok(Err(error)) => report.warning(
            "sync_interval",
            format!("{address}: {error:#}"),
            "mend NATS_MONITORING_URL",
        ),
        Err(_) => report.warning(
            "sync_interval",
            format!("{address} does not answer"),
            "mend NATS_MONITORING_URL",
        ),
    }
}

fn judge(page: &Json, report: &mut Report) {
    let settings = &page["jetstream"]["config"];
    if settings["sync_always"] == Json::Bool(true) {
        return report.ok("sync_interval", "always: what is acknowledged is on disk");
    }
    match settings["sync_interval"].as_u64() {
        Some(nanos) => report.warning(
            "sync_interval",
            format!(
                "{:?}: a power failure of all replicas at once takes what was acknowledged since",
                Duration::from_nanos(nanos)
            ),
            MEND,
        ),
        None => report.warning(
            "sync_interval",
            "the monitoring page does not tell it",
            MEND,
        ),
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
