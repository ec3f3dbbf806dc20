//! URLs that may carry a password. Danger: whatever prints one must go through `Debug` or
//! `Display` here, which leave the password out.

use std::{fmt, path::PathBuf, str::FromStr, sync::Arc};

use clap::builder::ValueParserFactory;
use tokio_postgres::config::Host;

use super::{PasswordFile, Secret, Value, libpq, set, value};
use crate::postgres::PORT;

/// A libpq URL of a Postgres database. `Debug` and `Display` leave the password out.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl {
    given: String,
    config: tokio_postgres::Config,
    tls: libpq::Tls,
    password_file: Option<Arc<PasswordFile>>,
}

/// The URL of a NATS server, or several of one cluster, comma separated. `Debug` and `Display`
/// leave passwords and tokens out.
#[derive(Clone, PartialEq, Eq)]
pub struct NatsUrl(String);

impl DatabaseUrl {
    /// The URL with its password: for a client library, never for a log.
    pub fn expose(&self) -> &str {
        &self.given
    }

    /// The connection parameters that the URL stands for, but for [`DatabaseUrl::tls`]: to connect with
    /// both use [`crate::postgres`].
    pub fn parameters(&self) -> &tokio_postgres::Config {
        &self.config
    }

    /// The same, with a password that stands in a file. What is set to nothing is not set.
    ///
    /// # Errors
    /// When the URL has one as well.
    pub fn with_password_file(mut self, file: &Option<PathBuf>) -> Result<Self, String> {
        let file = set(file);
        if file.is_some() && self.config.get_password().is_some() {
            return Err("has a password, and there is a file with one: keep one".to_owned());
        }
        self.password_file = file.map(|path| Arc::new(PasswordFile::new(path)));
        Ok(self)
    }

    /// Where the password stands, if not in the URL.
    pub fn password_file(&self) -> Option<&Arc<PasswordFile>> {
        self.password_file.as_ref()
    }

    /// The password as it is now.
    ///
    /// # Errors
    /// When its file cannot be read.
    pub fn password(&self) -> Result<Option<Secret>, String> {
        if let Some(file) = &self.password_file {
            let wrong = |error| {
                format!(
                    "cannot read the file of its password, {}: {error}",
                    file.path().display()
                )
            };
            return file.read().map(Some).map_err(wrong);
        }
        let password = self.config.get_password();
        let password = password.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        Ok(password.map(Secret::from))
    }

    /// What it says of TLS.
    pub fn tls(&self) -> &libpq::Tls {
        &self.tls
    }
}

impl NatsUrl {
    /// The URL with its password: for a client library, never for a log.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The servers that it names.
    pub fn servers(&self) -> Result<Vec<async_nats::ServerAddr>, std::io::Error> {
        self.0
            .split(',')
            .map(|server| server.trim().parse())
            .collect()
    }
}

impl FromStr for DatabaseUrl {
    type Err = String;

    /// Refuses what is not a libpq URL; the error does not repeat it.
    fn from_str(given: &str) -> Result<Self, String> {
        if !given.starts_with("postgres://") && !given.starts_with("postgresql://") {
            return Err("must start with postgres://".to_owned());
        }
        let (config, tls) = libpq::parse(given)?;
        if config.get_hosts().is_empty() {
            return Err("names no host".to_owned());
        }
        if config.get_user().is_none() {
            return Err("names no user".to_owned());
        }
        Ok(Self {
            given: given.to_owned(),
            config,
            tls,
            password_file: None,
        })
    }
}

impl FromStr for NatsUrl {
    type Err = String;

    /// Refuses what names no NATS server; the error does not repeat it.
    fn from_str(given: &str) -> Result<Self, String> {
        let url = Self(given.to_owned());
        let refused = || "must be the URL of a NATS server, or several, comma separated".to_owned();
        let servers = url.servers().map_err(|_| refused())?;
        if given.trim().is_empty() || servers.iter().any(|server| server.host().is_empty()) {
            return Err(refused());
        }
        Ok(url)
    }
}

impl ValueParserFactory for DatabaseUrl {
    type Parser = Value<Self>;

    fn value_parser() -> Value<Self> {
        value::DATABASE_URL
    }
}

impl ValueParserFactory for NatsUrl {
    type Parser = Value<Self>;

    fn value_parser() -> Value<Self> {
        value::NATS_URL
    }
}

/// Put together from the parts that are no secret, rather than cut out of the URL: a password may
/// stand in the parameters, or hold what looks like the end of it.
impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = &self.config;
        write!(f, "postgres://")?;
        if let Some(user) = config.get_user() {
            write!(f, "{user}@")?;
        }
        let ports = config.get_ports();
        for (index, host) in config.get_hosts().iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            // One port stands for all hosts.
            let port = ports.get(index).or(ports.first()).unwrap_or(&PORT);
            match host {
                Host::Tcp(name) => write!(f, "{comma}{name}:{port}")?,
                Host::Unix(folder) => write!(f, "{comma}{}:{port}", folder.display())?,
            }
        }
        write!(f, "/{}", config.get_dbname().unwrap_or_default())
    }
}

/// Put together like a [`DatabaseUrl`]'s. The user is left out: alone, it is a token.
impl fmt::Display for NatsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, server) in self.servers().unwrap_or_default().iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let (scheme, host, port) = (server.scheme(), server.host(), server.port());
            write!(f, "{comma}{scheme}://{host}:{port}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DatabaseUrl({self})")
    }
}

impl fmt::Debug for NatsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NatsUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_form_of_a_database_url_prints_its_password() {
        for url in [
            "postgres://ana:hunter2@db:5433/orders",
            "postgres://ana:hunter2@db:5433/orders?connect_timeout=3",
            "postgres://ana@db:5433/orders?password=hunter2",
            "postgres://ana@db:5433/orders?password=x@hunter2",
            "postgresql://ana:x%40hunter2@db:5433/orders",
            "postgres://ana:hun?hunter2@db:5433/orders",
        ] {
            let parsed: DatabaseUrl = url.parse().unwrap();
            assert_eq!(parsed.to_string(), "postgres://ana@db:5433/orders", "{url}");
            assert_eq!(format!("{parsed:?}"), format!("DatabaseUrl({parsed})"));
            assert_eq!(parsed.expose(), url);
        }
    }

    #[test]
    fn a_refused_database_url_says_why() {
        for (url, why) in [
            ("", "must start with postgres://"),
            ("mysql://ana@db/orders", "must start with postgres://"),
            ("postgres://ana@/orders", "names no host"),
            ("postgres://db/orders", "names no user"),
            ("postgres://ana@db:port/orders", "is not a libpq URL"),
        ] {
            let refused = url.parse::<DatabaseUrl>().unwrap_err();
            assert!(refused.starts_with(why), "{url}: {refused}");
        }
    }

    #[test]
    fn no_form_of_a_nats_url_prints_a_password_or_token() {
        for (url, printed) in [
            ("nats://n1:4222", "nats://n1:4222"),
            ("n1", "nats://n1:4222"),
            ("nats://ana:hunter2@n1:4333", "nats://n1:4333"),
            ("tls://hunter2@n1", "tls://n1:4222"),
            (
                "nats://a:hunter2@n1, nats://b:hunter2@n2",
                "nats://n1:4222,nats://n2:4222",
            ),
        ] {
            let parsed: NatsUrl = url.parse().unwrap();
            assert_eq!(parsed.to_string(), printed, "{url}");
            assert_eq!(format!("{parsed:?}"), format!("NatsUrl({printed})"));
        }
    }

    #[test]
    fn what_names_no_nats_server_is_refused() {
        for url in ["", " ", "nats://", "nats://n1,", "nats://n1:port"] {
            assert!(url.parse::<NatsUrl>().is_err(), "{url:?}");
        }
    }
}
