//! Binding of listeners, before anything is served, so that a taken port fails the start.

use std::net::SocketAddr;

use anyhow::Context;
use tokio::net::TcpListener;

/// Binds `addr` and logs `listening` with the real address (port 0 takes a free one).
pub async fn bind(name: &str, addr: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(addr).await.with_context(|| {
        format!("cannot listen on {addr} for {name}: free that port or choose another address")
    })?;
    let address = listener
        .local_addr()
        .context("the listener has no address")?;
    tracing::info!(listener = name, %address, "listening");
    Ok(listener)
}
