//! A clap value parser whose refusals name the variable, say why and show a right example, and
//! repeat what was given only where that cannot be a secret.

use std::{ffi::OsStr, net::SocketAddr, path::PathBuf};

use clap::{
    Arg, Command, ValueEnum,
    builder::{PossibleValue, TypedValueParser},
    error::ErrorKind,
};
use tracing_subscriber::EnvFilter;

use super::{
    DEADLINE_SECONDS_MAX, DatabaseUrl, LogFormat, NatsTls, NatsUrl, POOL_SIZE_MAX, Secret,
};

pub(super) const LOG_FILTER: Value<String> = Value::new(log_filter, "info,mailbox=debug");
pub(super) const LOG_FORMAT: Value<LogFormat> = Value::new(log_format, "json");
pub(super) const OTLP_ENDPOINT: Value<String> =
    Value::secret(otlp_endpoint, "http://127.0.0.1:4317");
pub(super) const DATABASE_URL: Value<DatabaseUrl> = Value::secret(
    |given| given.parse(),
    "postgres://user:password@127.0.0.1:5432/orders",
);
pub(super) const ROLE: Value<String> = Value::new(role, "orders_relay");
pub(super) const NATS_URL: Value<NatsUrl> =
    Value::secret(|given| given.parse(), "nats://127.0.0.1:4222");
pub(super) const NATS_TLS: Value<NatsTls> = Value::new(nats_tls, "require");
pub(super) const USER: Value<String> = Value::new(|given| Ok(given.to_owned()), "orders");
pub(super) const INBOX_PREFIX: Value<String> = Value::new(inbox_prefix, "_INBOX_orders");
pub(super) const SECRET: Value<Secret> =
    Value::secret(|given| Ok(Secret::from(given.to_owned())), "s3cr3t");
pub(super) const LISTEN: Value<SocketAddr> = Value::listen();
pub(super) const POOL_SIZE: Value<usize> = Value::new(pool_size, "8");
pub(super) const DEADLINE_SECONDS: Value<u64> = Value::new(deadline_seconds, "25");

/// A value parser for `#[arg(value_parser = …)]`; its error names the environment variable. An argument
/// without one is taken for a key of a TOML file.
#[derive(Clone, Copy, Debug)]
pub struct Value<T> {
    parse: fn(&str) -> Result<T, String>,
    example: &'static str,
    secret: bool,
}

impl<T> Value<T> {
    /// `parse` says why it refuses; `example` is a right value to copy.
    pub const fn new(parse: fn(&str) -> Result<T, String>, example: &'static str) -> Self {
        Self {
            parse,
            example,
            secret: false,
        }
    }

    /// The same for a value that may hold a password: errors do not repeat it. `parse` must not
    /// repeat it either.
    pub const fn secret(parse: fn(&str) -> Result<T, String>, example: &'static str) -> Self {
        Self {
            parse,
            example,
            secret: true,
        }
    }
}

impl Value<SocketAddr> {
    /// An address to listen on.
    pub const fn listen() -> Self {
        Self::new(listen, "0.0.0.0:9090")
    }
}

impl Value<String> {
    /// The name of a JetStream stream.
    pub const fn stream(example: &'static str) -> Self {
        Self::new(stream, example)
    }
}

impl<T: Clone + Send + Sync + 'static> TypedValueParser for Value<T> {
    type Value = T;

    fn parse_ref(
        &self,
        command: &Command,
        arg: Option<&Arg>,
        value: &OsStr,
    ) -> Result<T, clap::Error> {
        let variable = arg.and_then(Arg::get_env).map(OsStr::to_string_lossy);
        let key = arg.map_or("value", |arg| arg.get_id().as_str());
        let refuse = |given: &str, why: &str| {
            let given = if self.secret {
                String::new()
            } else {
                format!(" {given:?}:")
            };
            let example = self.example;
            let message = match &variable {
                Some(name) => format!("{name}:{given} {why}; for example {name}={example}\n"),
                None => format!("{key}:{given} {why}; for example {key} = {example:?}\n"),
            };
            clap::Error::raw(ErrorKind::ValueValidation, message).with_cmd(command)
        };
        let Some(given) = value.to_str() else {
            return Err(refuse(&value.to_string_lossy(), "is not UTF-8"));
        };
        (self.parse)(given).map_err(|why| refuse(given, &why))
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        None
    }
}

fn log_filter(given: &str) -> Result<String, String> {
    match EnvFilter::builder().parse(given) {
        Ok(_) => Ok(given.to_owned()),
        Err(error) => Err(format!("is not a log filter ({error})")),
    }
}

/// The path of a file, which is looked at only when it is used.
pub(super) const fn file(example: &'static str) -> Value<PathBuf> {
    Value::new(|given| Ok(PathBuf::from(given)), example)
}

fn nats_tls(given: &str) -> Result<NatsTls, String> {
    let given = if given.is_empty() { "auto" } else { given };
    NatsTls::from_str(given, true).map_err(|_| "must be auto, require or first".to_owned())
}

fn log_format(given: &str) -> Result<LogFormat, String> {
    LogFormat::from_str(given, true).map_err(|_| "must be text or json".to_owned())
}

fn otlp_endpoint(given: &str) -> Result<String, String> {
    // Empty is how a compose file says "not set".
    if given.is_empty() || given.starts_with("http://") {
        return Ok(given.to_owned());
    }
    Err("must be the http:// URL of an OTLP gRPC collector (TLS is not built in)".to_owned())
}

fn listen(given: &str) -> Result<SocketAddr, String> {
    given
        .parse()
        .map_err(|_| "must be an IP address and a port".to_owned())
}

fn stream(given: &str) -> Result<String, String> {
    let refused = |c: char| c.is_whitespace() || c.is_control() || ".*>/\\".contains(c);
    if given.is_empty() || given.contains(refused) {
        return Err("must be a stream's name: no blanks and none of . * > / \\".to_owned());
    }
    Ok(given.to_owned())
}

/// Subjects are subscribed to under it. Empty is how a compose file says "not set".
fn inbox_prefix(given: &str) -> Result<String, String> {
    if given.is_empty() {
        return Ok("_INBOX".to_owned());
    }
    let refused = |c: char| c.is_whitespace() || c.is_control() || "*>".contains(c);
    if given.contains(refused) || given.split('.').any(str::is_empty) {
        return Err("must be a subject without wildcards".to_owned());
    }
    Ok(given.to_owned())
}

/// Postgres cuts longer names off, and would then find another role.
fn role(given: &str) -> Result<String, String> {
    if given.is_empty() || given.len() > 63 || given.contains('\0') {
        return Err("must be a role's name, of 1 to 63 bytes".to_owned());
    }
    Ok(given.to_owned())
}

fn pool_size(given: &str) -> Result<usize, String> {
    match given.parse() {
        Ok(size) if (1..=POOL_SIZE_MAX).contains(&size) => Ok(size),
        _ => Err(format!("must be a number from 1 to {POOL_SIZE_MAX}")),
    }
}

fn deadline_seconds(given: &str) -> Result<u64, String> {
    match given.parse() {
        Ok(seconds) if (1..=DEADLINE_SECONDS_MAX).contains(&seconds) => Ok(seconds),
        _ => Err(format!("must be a number from 1 to {DEADLINE_SECONDS_MAX}")),
    }
}
