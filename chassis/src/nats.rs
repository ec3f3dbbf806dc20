//! The connection to NATS and its readiness.

use std::time::Duration;

use anyhow::{Context as _, bail};
use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, connection::State};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{backoff, config, health::Check};

/// Messages that wait in one subscription (I12). Beyond it the client drops them and says so.
const SUBSCRIPTION_CAPACITY: usize = 4096;
/// Commands that wait for the socket (I12).
const CLIENT_CAPACITY: usize = 1024;
/// A server that went silent is noticed after two of these.
const PING_EVERY: Duration = Duration::from_secs(10);
/// How often readiness is looked at; it is a field of the client, no message.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Connects, retrying with backoff until NATS answers, and logs what happens to the connection
/// from then on; it reconnects by itself for ever.
///
/// Fails only on what waiting does not mend: a refused login, or a URL that cannot work.
pub async fn connect(config: &config::Nats, name: &str) -> anyhow::Result<Client> {
    let servers = config
        .url
        .servers()
        .with_context(|| format!("NATS_URL {}", config.url))?;
    let mut attempt = 0;
    loop {
        let error = match options(name).connect(servers.clone()).await {
            Ok(client) => {
                tracing::info!(nats = %config.url, "connected to NATS");
                return Ok(client);
            }
            Err(error) => error,
        };
        if matches!(
            error.kind(),
            ConnectErrorKind::AuthorizationViolation
                | ConnectErrorKind::Authentication
                | ConnectErrorKind::ServerParse
        ) {
            bail!(
                "NATS at {} refuses us: {error}; correct NATS_URL",
                config.url
            );
        }
        let wait = backoff::delay(attempt);
        attempt += 1;
        tracing::warn!(nats = %config.url, %error, ?wait, "waiting for NATS");
        sleep(wait).await;
    }
}

fn options(name: &str) -> ConnectOptions {
    ConnectOptions::new()
        .name(name)
        .ping_interval(PING_EVERY)
        .subscription_capacity(SUBSCRIPTION_CAPACITY)
        .client_capacity(CLIENT_CAPACITY)
        .reconnect_delay_callback(|attempts| {
            backoff::delay(u32::try_from(attempts).unwrap_or(u32::MAX))
        })
        .event_callback(|event| async move {
            match event {
                Event::Connected => tracing::info!("NATS: connected"),
                Event::Disconnected => tracing::warn!("NATS: disconnected, will reconnect"),
                Event::LameDuckMode => tracing::info!("NATS: the server is about to stop"),
                Event::Draining | Event::Closed => tracing::info!("NATS: {event}"),
                Event::SlowConsumer(_) | Event::ServerError(_) | Event::ClientError(_) => {
                    tracing::warn!("NATS: {event}");
                }
            }
        })
}

/// Keeps `check` true while NATS is connected, until the token is cancelled.
pub async fn watch(client: Client, check: Check, token: CancellationToken) -> anyhow::Result<()> {
    let watching = async {
        loop {
            check.set(client.connection_state() == State::Connected);
            sleep(LOOK_EVERY).await;
        }
    };
    token.run_until_cancelled(watching).await;
    Ok(())
}
