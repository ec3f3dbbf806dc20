//! The HTTP of operators.

use std::time::Duration;

use anyhow::Result;
use chassis::{admin, health::Health, listen};
use harness::http;
use tokio::{io::AsyncWriteExt as _, net::TcpStream, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::echo;

const SOON: Duration = Duration::from_secs(10);
/// A socket that takes nothing for so long is full.
const STUCK: Duration = Duration::from_secs(1);

#[tokio::test]
async fn liveness_depends_on_nothing_and_readiness_on_every_check() -> Result<()> {
    let listener = listen::bind("admin", ([127, 0, 0, 1], 0).into()).await?;
    let port = listener.local_addr()?.port();
    let (health, token) = (Health::new(), CancellationToken::new());
    let metrics = echo::telemetry().metrics();
    let serving = tokio::spawn(admin::serve(
        listener,
        health.clone(),
        metrics,
        token.clone(),
    ));

    let (postgres, nats) = (health.check("postgres"), health.check("nats"));
    postgres.set(true);
    assert_eq!(http::get(port, "/livez").await?, (200, "ok\n".to_owned()));
    let (status, body) = http::get(port, "/readyz").await?;
    let body: serde_json::Value = serde_json::from_str(&body)?;
    let expected = serde_json::json!({
        "ready": false, "checks": { "nats": false, "postgres": true },
    });
    assert_eq!((status, body), (503, expected));
    nats.set(true);
    assert_eq!(http::get(port, "/readyz").await?.0, 200);

    let (status, body) = http::get(port, "/metrics").await?;
    assert_eq!(status, 200);
    for line in [
        "build_info{service=\"chassis-tests\",version=\"0.1.0\"} 1",
        "process_resident_memory_bytes ",
        "process_cpu_seconds_total ",
        "process_open_fds ",
    ] {
        assert!(body.contains(line), "{line:?} is missing: {body}");
    }

    // A client that asks and never reads does not hold up the end: the server is stuck in its
    // answers when the socket takes no more requests.
    let mut deaf = TcpStream::connect(("127.0.0.1", port)).await?;
    let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
    while let Ok(written) = timeout(STUCK, deaf.write_all(request)).await {
        written?;
    }
    token.cancel();
    timeout(SOON, serving).await???;
    Ok(())
}

#[tokio::test]
async fn a_taken_port_is_told_with_its_listener() -> Result<()> {
    let taken = listen::bind("one", ([127, 0, 0, 1], 0).into()).await?;
    let error = listen::bind("admin", taken.local_addr()?)
        .await
        .unwrap_err();
    let text = format!("{error:#}");
    assert!(text.contains(&taken.local_addr()?.to_string()), "{text}");
    assert!(text.contains("admin"), "{text}");
    Ok(())
}
