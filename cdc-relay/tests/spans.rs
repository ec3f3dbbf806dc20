//! Traces: each append is a span, sent to an OTLP collector.

mod rig;

use anyhow::{Result, bail};
use rig::{Rig, SOON, STREAM};
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpListener, TcpStream},
    time::timeout,
};

/// Reads until all of `parts` have come: a client of HTTP/2 need not be answered to send its first request.
async fn read_until(mut stream: TcpStream, parts: &[&str]) -> Result<()> {
    let mut bytes = Vec::new();
    while stream.read_buf(&mut bytes).await? > 0 {
        let has = |part: &&str| {
            bytes
                .windows(part.len())
                .any(|found| found == part.as_bytes())
        };
        if parts.iter().all(has) {
            return Ok(());
        }
    }
    bail!("the connection ended after {} bytes", bytes.len())
}

#[tokio::test]
async fn each_append_is_a_span_that_reaches_the_collector() -> Result<()> {
    let collector = TcpListener::bind(("127.0.0.1", 0)).await?;
    let endpoint = format!("http://{}", collector.local_addr()?);
    let rig = Rig::start().await?;
    let environment = [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str())];
    let relay = rig.relay_with("relay", &environment)?;
    relay.wait_ready().await?;
    rig.insert("one").await?;
    rig.settled().await?;
    let parts = ["append", "follows_sequence", "commits_until", STREAM];
    let exported = async {
        let (stream, _) = collector.accept().await?;
        read_until(stream, &parts).await
    };
    timeout(SOON, exported).await?
}
