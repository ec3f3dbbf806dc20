//! Connections to Postgres: to which of the URL's servers, and over which TLS.
//!
//! The danger of several hosts: two connections that belong together could end at different servers.
//! A [`Target`] is narrowed to one address first, by [`Target::hosts`] and [`Target::addresses`].

mod binding;
mod connector;
mod dial;

use std::{fmt, io, net::IpAddr, sync::Arc, time::Duration};

use tokio::task::JoinHandle;
use tokio_postgres::{
    Client, Config, Error,
    config::{Host, SslMode, TargetSessionAttrs},
};

pub use connector::Connector;
pub use dial::{Dialled, Transport};

use crate::{
    config::{DatabaseUrl, PasswordFile},
    tls,
};

/// What libpq takes where a URL names no port.
pub(crate) const PORT: u16 = 5432;
/// A host that does not answer is given up after this, when the URL says nothing else.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A host that vanished sends no reset: a connection on which nothing is acknowledged for this long is
/// dead. Without it the kernel tries for a quarter of an hour, and the pool lends the dead ones.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// An idle connection is probed after this, and again as often, and given up after so many probes; the
/// kernel's two hours and 75 s would find its death too late.
const KEEPALIVE: Duration = Duration::from_secs(10);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(5);
const KEEPALIVE_PROBES: u32 = 3;
/// What a URL that says nothing of it stands for.
const KEEPALIVE_DEFAULT: Duration = Duration::from_secs(2 * 60 * 60);

/// How tokio-postgres says that a handshake failed; it has no type for it. What fails behind it, such as a
/// client certificate that the server refuses, is told and not gone around.
const HANDSHAKE_FAILED: &str = "error performing TLS handshake";

/// Where to connect, as whom, and how.
#[derive(Clone, Debug)]
pub struct Target {
    parameters: Config,
    connector: Connector,
    password_file: Option<Arc<PasswordFile>>,
}

impl Target {
    /// The URL's parameters, and ours where it says nothing.
    pub fn new(url: &DatabaseUrl, application_name: &str) -> Self {
        let mut parameters = url.parameters().clone();
        if parameters.get_application_name().is_none() {
            parameters.application_name(application_name);
        }
        if parameters.get_connect_timeout().is_none() {
            parameters.connect_timeout(CONNECT_TIMEOUT);
        }
        if parameters.get_tcp_user_timeout().is_none() {
            parameters.tcp_user_timeout(SILENCE_MAX);
        }
        if parameters.get_keepalives_idle() == KEEPALIVE_DEFAULT {
            parameters.keepalives_idle(KEEPALIVE);
        }
        if parameters.get_keepalives_interval().is_none() {
            parameters.keepalives_interval(KEEPALIVE_EVERY);
        }
        if parameters.get_keepalives_retries().is_none() {
            parameters.keepalives_retries(KEEPALIVE_PROBES);
        }
        let connector = Connector::new(url.tls().clone());
        Self {
            parameters,
            connector,
            password_file: url.password_file().cloned(),
        }
    }

    /// The parameters: user, database, and a password that stands in the URL.
    pub fn parameters(&self) -> &Config {
        &self.parameters
    }

    /// The parameters for a connection that is made now: with the password as its file has it.
    pub fn login(&self) -> Config {
        let mut parameters = self.parameters.clone();
        match self.password_file.as_ref().map(|file| (file.read(), file)) {
            None => {}
            Some((Ok(password), _)) => {
                parameters.password(password.expose());
            }
            Some((Err(error), file)) => {
                let file = file.path().display();
                tracing::error!(%file, %error, "the file of the password cannot be read: connecting without a password");
            }
        }
        parameters
    }

    /// Each of its hosts alone, in the URL's order.
    pub fn hosts(&self) -> Vec<Self> {
        let all = self.parameters.get_hosts().iter().enumerate();
        all.map(|(index, host)| {
            let ports = self.parameters.get_ports();
            let port = ports.get(index).or(ports.first()).copied().unwrap_or(PORT);
            let address = self.parameters.get_hostaddrs().get(index).copied();
            self.only(host, address, port)
        })
        .collect()
    }

    /// Each address of its first host alone: a name may stand for several servers.
    ///
    /// # Errors
    /// When the name cannot be resolved.
    pub async fn addresses(&self) -> io::Result<Vec<Self>> {
        let (host, port) = self.first();
        let Host::Tcp(name) = host else {
            return Ok(vec![self.clone()]);
        };
        if !self.parameters.get_hostaddrs().is_empty() {
            return Ok(vec![self.clone()]);
        }
        let found = tokio::net::lookup_host((name.as_str(), port)).await?;
        Ok(found
            .map(|address| self.only(host, Some(address.ip()), port))
            .collect())
    }

    /// Connects for SQL, to the first host that does and is what `target_session_attrs` wants. The
    /// task works the socket, and ends with the client.
    pub async fn connect(&self) -> Result<(Client, JoinHandle<()>), Error> {
        let login = self.login();
        let connected = login.connect(self.connector.clone()).await;
        let connected = match connected {
            // As in libpq: `prefer` promises nothing, so a server whose TLS is broken is no obstacle.
            Err(error) if self.prefers() && error.to_string() == HANDSHAKE_FAILED => {
                self.goes_on_without_tls(&error);
                let mut plain = login;
                plain.ssl_mode(SslMode::Disable);
                plain.connect(self.connector.clone()).await
            }
            connected => connected,
        };
        let (client, connection) = connected?;
        let socket = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to Postgres ended");
            }
        });
        Ok((client, socket))
    }

    fn goes_on_without_tls(&self, error: &(dyn std::error::Error + 'static)) {
        let why = explain(error);
        tracing::warn!(server = %self, why, "going on without TLS, because sslmode=prefer lets me");
    }

    fn prefers(&self) -> bool {
        self.parameters.get_ssl_mode() == SslMode::Prefer
    }

    fn first(&self) -> (&Host, u16) {
        const NOWHERE: &Host = &Host::Tcp(String::new());
        let host = self.parameters.get_hosts().first().unwrap_or(NOWHERE);
        let port = self.parameters.get_ports().first().copied();
        (host, port.unwrap_or(PORT))
    }

    /// The same but for one host, and one address if it is known.
    fn only(&self, host: &Host, address: Option<IpAddr>, port: u16) -> Self {
        let from = &self.parameters;
        let mut one = Config::new();
        one.port(port)
            .ssl_mode(from.get_ssl_mode())
            .ssl_negotiation(from.get_ssl_negotiation())
            .channel_binding(from.get_channel_binding())
            // Who narrows it down looks at the server by itself.
            .target_session_attrs(TargetSessionAttrs::Any)
            .keepalives(from.get_keepalives())
            .keepalives_idle(from.get_keepalives_idle());
        match host {
            Host::Tcp(name) => one.host(name),
            // As in libpq: what does not leave the machine is not encrypted.
            Host::Unix(folder) => one.host_path(folder).ssl_mode(SslMode::Disable),
        };
        let text =
            |set: fn(&mut Config, String) -> &mut Config, value: Option<&str>, one: &mut Config| {
                value.map(|value| set(one, value.to_owned()));
            };
        text(Config::user, from.get_user(), &mut one);
        text(Config::dbname, from.get_dbname(), &mut one);
        text(Config::options, from.get_options(), &mut one);
        text(
            Config::application_name,
            from.get_application_name(),
            &mut one,
        );
        address.map(|address| one.hostaddr(address));
        from.get_password().map(|password| one.password(password));
        from.get_connect_timeout()
            .map(|time| one.connect_timeout(*time));
        from.get_tcp_user_timeout()
            .map(|time| one.tcp_user_timeout(*time));
        from.get_keepalives_interval()
            .map(|time| one.keepalives_interval(time));
        from.get_keepalives_retries()
            .map(|count| one.keepalives_retries(count));
        Self {
            parameters: one,
            connector: self.connector.clone(),
            password_file: self.password_file.clone(),
        }
    }
}

/// The server, without user and password.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (host, port) = self.first();
        match (host, self.parameters.get_hostaddrs().first()) {
            (Host::Unix(folder), _) => write!(f, "{}:{port}", folder.display()),
            (Host::Tcp(name), Some(address)) if address.to_string() != *name => {
                write!(f, "{name}:{port} ({address})")
            }
            (Host::Tcp(name), _) => write!(f, "{name}:{port}"),
        }
    }
}

/// What tokio-postgres refuses by itself, in words that it has no type for, and the mend.
const REFUSED: [(&str, &str); 3] = [
    (
        "server does not support TLS",
        "the server does not offer TLS, and sslmode of DATABASE_URL demands it: set `ssl = on` there",
    ),
    (
        "server did not use channel binding",
        "channel_binding=require, and this connection cannot be bound: that takes TLS and a password that \
         Postgres checks by scram-sha-256",
    ),
    (
        "password missing",
        "Postgres asks for a password, and DATABASE_URL has none: put it there, or into DATABASE_PASSWORD_FILE",
    ),
];

/// Whether waiting for `error` to pass is in vain, and why: a certificate, a file with one, or settings
/// that do not go with the server's.
pub fn explain(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let said = error.to_string();
        if let Some((_, mend)) = REFUSED.iter().find(|(words, _)| said == *words) {
            return Some((*mend).to_owned());
        }
        cause = error.source();
    }
    let (trust, identity) = (
        "sslrootcert of DATABASE_URL",
        "sslcert and sslkey of DATABASE_URL",
    );
    tls::explain(error, trust, identity)
}
