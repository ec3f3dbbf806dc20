//! The connection to NATS, its login and TLS, and its readiness.

mod login;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, bail};
use async_nats::{
    AuthError, Client, ConnectError, ConnectErrorKind, ConnectOptions, Event, connection::State,
};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    backoff,
    config::{self, NatsTls},
    failure,
    health::Check,
    tls::{self, explain},
};
use login::Login;

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
/// Fails only on what waiting does not mend: a refused login, a certificate that is not trusted, or
/// settings that cannot work.
pub async fn connect(config: &config::Nats, name: &str) -> anyhow::Result<Client> {
    dial(config, name, None).await
}

/// The same, for a program that does not wait for ever: fails as well when NATS does not answer `within`.
pub async fn connect_within(
    config: &config::Nats,
    name: &str,
    within: Duration,
) -> anyhow::Result<Client> {
    dial(config, name, Some(within)).await
}

async fn dial(
    config: &config::Nats,
    name: &str,
    within: Option<Duration>,
) -> anyhow::Result<Client> {
    let servers = config
        .url
        .servers()
        .with_context(|| format!("NATS_URL {}", config.url))?;
    let login = Login::of(config)?;
    // Found wrong now, a file is named at once and not only when NATS answers.
    login.answer(b"")?;
    let tls = Tls::of(config)?;
    let begun = Instant::now();
    let mut attempt = 0;
    loop {
        let options = options(&login, name).custom_inbox_prefix(&config.inbox_prefix);
        let options = tls.apply(options);
        let error = match options.connect(servers.clone()).await {
            Ok(client) => {
                tracing::info!(nats = %config.url, "connected to NATS");
                return Ok(client);
            }
            Err(error) => error,
        };
        if let Some(why) = refusal(&error, &login) {
            bail!("NATS at {} refuses us: {why}", config.url);
        }
        let wait = backoff::delay(attempt);
        if within.is_some_and(|within| begun.elapsed() + wait >= within) {
            let why = failure::chain(&error);
            bail!(
                "NATS does not answer at {}: {why}; NATS_URL says where it is",
                config.url
            );
        }
        attempt += 1;
        tracing::warn!(nats = %config.url, %error, ?wait, "waiting for NATS");
        sleep(wait).await;
    }
}

/// Why waiting is in vain, and what to do.
fn refusal(error: &ConnectError, login: &Login) -> Option<String> {
    let settings = login.settings();
    let mend = match (error.kind(), login) {
        (ConnectErrorKind::AuthorizationViolation, Login::Anonymous) => {
            format!("it wants a login: set {settings}, or correct the one in NATS_URL")
        }
        (ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication, _) => {
            format!("correct {settings}")
        }
        (ConnectErrorKind::ServerParse, _) => "correct NATS_URL".to_owned(),
        _ => return explain(error, "NATS_TLS_CA", "NATS_TLS_CERT and NATS_TLS_KEY"),
    };
    Some(format!("{error}; {mend}"))
}

/// How TLS is spoken. The files are read by async-nats for each connection.
struct Tls {
    mode: NatsTls,
    roots: Option<PathBuf>,
    identity: Option<(PathBuf, PathBuf)>,
}

impl Tls {
    /// Looks at the files, so that what is wrong with them is said at once and by name.
    fn of(config: &config::Nats) -> anyhow::Result<Self> {
        let roots = config::set(&config.tls_ca);
        if let Some(path) = &roots {
            tls::certificates("the CA's certificate", path).context("NATS_TLS_CA")?;
        }
        let pair = (config::set(&config.tls_cert), config::set(&config.tls_key));
        let identity = match pair {
            (None, None) => None,
            (Some(certificate), Some(key)) => {
                tls::certificates("the client certificate", &certificate)
                    .context("NATS_TLS_CERT")?;
                tls::private_key(&key).context("NATS_TLS_KEY")?;
                Some((certificate, key))
            }
            (Some(_), None) => bail!("NATS_TLS_CERT is set without NATS_TLS_KEY"),
            (None, Some(_)) => bail!("NATS_TLS_KEY is set without NATS_TLS_CERT"),
        };
        Ok(Self {
            mode: config.tls,
            roots,
            identity,
        })
    }

    fn apply(&self, options: ConnectOptions) -> ConnectOptions {
        // Who names a certificate does not mean to go on without TLS when somebody in between says so.
        let is_meant = self.roots.is_some() || self.identity.is_some();
        let mut options = options.require_tls(is_meant || self.mode != NatsTls::Auto);
        if self.mode == NatsTls::First {
            options = options.tls_first();
        }
        if let Some(roots) = &self.roots {
            options = options.add_root_certificates(roots.clone());
        }
        if let Some((certificate, key)) = &self.identity {
            options = options.add_client_certificate(certificate.clone(), key.clone());
        }
        options
    }
}

fn options(login: &Login, name: &str) -> ConnectOptions {
    let options = match login.clone() {
        Login::Anonymous => ConnectOptions::new(),
        login => ConnectOptions::with_auth_callback(move |nonce| {
            let answer = login.answer(&nonce).map_err(AuthError::new);
            async move { answer }
        }),
    };
    options
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
