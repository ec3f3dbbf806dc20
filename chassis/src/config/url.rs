//! URLs that may carry a password. Danger: whatever prints one must go through `Debug` or
//! `Display` here, which leave the password out.

use std::{fmt, str::FromStr};

use clap::builder::ValueParserFactory;

use super::{Value, value};

/// What stands in a printed URL where the password was.
const REDACTED: &str = "***";

/// A libpq URL of a Postgres database. `Debug` and `Display` leave the password out.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(String);

/// The URL of a NATS server, or several of one cluster, comma separated. `Debug` and `Display`
/// leave passwords and tokens out.
#[derive(Clone, PartialEq, Eq)]
pub struct NatsUrl(String);

impl DatabaseUrl {
    /// The URL with its password: for a client library, never for a log.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The connection parameters that the URL stands for.
    pub fn config(&self) -> Result<tokio_postgres::Config, tokio_postgres::Error> {
        self.0.parse()
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
        let config: tokio_postgres::Config = given
            .parse()
            .map_err(|_| "is not a libpq URL (is the password percent-encoded?)".to_owned())?;
        if config.get_hosts().is_empty() {
            return Err("names no host".to_owned());
        }
        if config.get_user().is_none() {
            return Err("names no user".to_owned());
        }
        Ok(Self(given.to_owned()))
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

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A URL may also give the password as a parameter, so all parameters are left out.
        let (url, parameters) = match self.0.split_once('?') {
            Some((url, _)) => (url, "?…"),
            None => (self.0.as_str(), ""),
        };
        write!(f, "{}{parameters}", redact(url))
    }
}

impl fmt::Display for NatsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, server) in self.0.split(',').enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{}", redact_all(server.trim()))?;
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

/// `scheme://user:password@rest` without the password. The last `@` counts: an unencoded one in
/// a password must not let its tail through.
fn redact(url: &str) -> String {
    match split(url) {
        (scheme, Some(login), rest) => match login.split_once(':') {
            Some((user, _)) => format!("{scheme}{user}:{REDACTED}@{rest}"),
            None => url.to_owned(),
        },
        _ => url.to_owned(),
    }
}

/// As [`redact`], and a login without a password is a token, so it goes too.
fn redact_all(url: &str) -> String {
    match split(url) {
        (scheme, Some(login), rest) => match login.split_once(':') {
            Some((user, _)) => format!("{scheme}{user}:{REDACTED}@{rest}"),
            None => format!("{scheme}{REDACTED}@{rest}"),
        },
        _ => url.to_owned(),
    }
}

/// Scheme with its `://`, login if any, and the rest.
fn split(url: &str) -> (&str, Option<&str>, &str) {
    let start = url.find("://").map_or(0, |at| at + 3);
    let (scheme, rest) = url.split_at(start);
    match rest.rsplit_once('@') {
        Some((login, rest)) => (scheme, Some(login), rest),
        None => (scheme, None, rest),
    }
}
