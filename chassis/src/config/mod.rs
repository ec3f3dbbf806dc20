//! Configuration from the environment: groups of arguments that a binary flattens into its own.
//!
//! Every flag has an environment variable of the same name in capitals; the docstrings here are
//! the table that `--help` prints. Danger: clap prints refused values and the current values of
//! variables, passwords included. So everything here is parsed by [`Value`], whose errors never
//! repeat a secret, and what may carry one is marked `hide_env_values`.

mod auth;
mod bearer;
mod grpc;
pub mod libpq;
mod nats;
mod password;
mod secret;
mod url;
mod value;

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, ValueEnum};

use crate::tls::expiry::Watched;

pub use self::{
    auth::{Auth, AuthMode, Jwks},
    bearer::bearer,
    grpc::Grpc,
    nats::{Nats, NatsTls},
    password::PasswordFile,
    secret::Secret,
    url::{DatabaseUrl, NatsUrl},
    value::Value,
};

/// More connections than this to one Postgres belong behind a pooler.
const POOL_SIZE_MAX: usize = 1024;
/// An orchestrator that waits longer than an hour for one process has lost patience long before.
const DEADLINE_SECONDS_MAX: u64 = 3600;

/// What is set to nothing is not set.
pub(crate) fn set(given: &Option<PathBuf>) -> Option<PathBuf> {
    given.clone().filter(|path| !path.as_os_str().is_empty())
}

/// What the process tells about itself.
#[derive(Args, Clone, Debug)]
pub struct Telemetry {
    /// What is logged: a level, or levels by target, such as `info,mailbox=debug`
    #[arg(id = "LOG_FILTER", long = "log-filter", env = "LOG_FILTER", default_value = "info,async_nats=warn",
          value_parser = value::LOG_FILTER)]
    pub log_filter: String,

    /// The form of the log lines on standard error, `text` or `json`
    #[arg(id = "LOG_FORMAT", long = "log-format", env = "LOG_FORMAT", default_value = "text",
          value_parser = value::LOG_FORMAT)]
    pub log_format: LogFormat,

    /// Where spans are sent, by OTLP over gRPC; without it none are sent, and trace ids still travel
    #[arg(id = "OTEL_EXPORTER_OTLP_ENDPOINT", long = "otel-exporter-otlp-endpoint",
          env = "OTEL_EXPORTER_OTLP_ENDPOINT", hide_env_values = true, value_parser = value::OTLP_ENDPOINT)]
    pub otlp_endpoint: Option<String>,
}

/// The form of the log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The Postgres that the process owns.
#[derive(Args, Clone, Debug)]
pub struct Database {
    /// The Postgres to use, as a libpq URL: `postgres://user:password@host:5432/database`
    #[arg(id = "DATABASE_URL", long = "database-url", env = "DATABASE_URL", required = true,
          hide_env_values = true, value_parser = value::DATABASE_URL)]
    pub url: DatabaseUrl,

    /// A file that holds the password of `DATABASE_URL`'s user, which then has none itself; it is read for each
    /// new connection
    #[arg(id = "DATABASE_PASSWORD_FILE", long = "database-password-file", env = "DATABASE_PASSWORD_FILE",
          value_parser = value::file("/run/secrets/database-password"))]
    pub password_file: Option<PathBuf>,

    /// How many connections to Postgres at most
    #[arg(id = "DATABASE_POOL_SIZE", long = "database-pool-size", env = "DATABASE_POOL_SIZE",
          default_value = "8", value_parser = value::POOL_SIZE)]
    pub pool_size: usize,
}

/// Who owns the tables of that Postgres, and who else uses them.
#[derive(Args, Clone, Debug, Default)]
pub struct Owner {
    /// The same Postgres as its owner, who migrates and grants when the process starts, and is then
    /// disconnected; without it, the user of `DATABASE_URL` owns and runs
    #[arg(id = "MIGRATIONS_DATABASE_URL", long = "migrations-database-url", env = "MIGRATIONS_DATABASE_URL",
          hide_env_values = true, value_parser = value::DATABASE_URL)]
    pub url: Option<DatabaseUrl>,

    /// A file that holds the password of `MIGRATIONS_DATABASE_URL`'s user, which then has none itself
    #[arg(id = "MIGRATIONS_DATABASE_PASSWORD_FILE", long = "migrations-database-password-file",
          env = "MIGRATIONS_DATABASE_PASSWORD_FILE",
          value_parser = value::file("/run/secrets/owner-password"))]
    pub password_file: Option<PathBuf>,

    /// The role that the relay of this database logs in as: the owner grants it what a relay needs
    #[arg(id = "DATABASE_RELAY_ROLE", long = "database-relay-role", env = "DATABASE_RELAY_ROLE",
          value_parser = value::ROLE)]
    pub relay_role: Option<String>,

    /// The role that an auditor logs in as: the owner grants it to read what the books are made of
    #[arg(id = "DATABASE_AUDITOR_ROLE", long = "database-auditor-role", env = "DATABASE_AUDITOR_ROLE",
          value_parser = value::ROLE)]
    pub auditor_role: Option<String>,
}

impl Database {
    /// The files of certificates that it is talked to with.
    pub fn certificates(&self) -> Vec<Watched> {
        let settings = ["sslcert of DATABASE_URL", "sslrootcert of DATABASE_URL"];
        Watched::of_postgres(self.url.tls(), settings)
    }

    /// Where to connect, with the password from its file.
    ///
    /// # Errors
    /// When there are two passwords.
    pub fn url(&self) -> Result<DatabaseUrl, String> {
        self.url.clone().with_password_file(&self.password_file)
    }
}

/// The HTTP of operators and orchestrators: `/livez`, `/readyz`, `/metrics`.
#[derive(Args, Clone, Debug)]
pub struct Admin {
    /// Where `/livez`, `/readyz` and `/metrics` are served; port 0 takes a free one and logs it
    #[arg(id = "ADMIN_LISTEN", long = "admin-listen", env = "ADMIN_LISTEN",
          default_value = "0.0.0.0:9090", value_parser = value::LISTEN)]
    pub listen: SocketAddr,
}

/// How the process ends.
#[derive(Args, Clone, Debug)]
pub struct Shutdown {
    /// How many seconds what is in hand may take to finish after SIGTERM
    #[arg(id = "SHUTDOWN_DEADLINE_SECONDS", long = "shutdown-deadline-seconds",
          env = "SHUTDOWN_DEADLINE_SECONDS", default_value = "25",
          value_parser = value::DEADLINE_SECONDS)]
    pub deadline_seconds: u64,
}
