//! Where NATS is, and how to log in there.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{NatsUrl, Secret, value};
use crate::tls::expiry::Watched;

/// The NATS that the process talks to. What is set to nothing is not set.
#[derive(Args, Clone, Debug)]
pub struct Nats {
    /// The NATS to use: one URL, or several of one cluster, comma separated
    #[arg(id = "NATS_URL", long = "nats-url", env = "NATS_URL", hide_env_values = true,
          default_value = "nats://127.0.0.1:4222", value_parser = value::NATS_URL)]
    pub url: NatsUrl,

    /// A credentials file (`.creds`, with a user's JWT and seed) to log in to NATS with
    #[arg(id = "NATS_CREDS", long = "nats-creds", env = "NATS_CREDS",
          value_parser = value::file("/etc/nats/user.creds"))]
    pub creds: Option<PathBuf>,

    /// A file with the seed of a user's nkey to log in to NATS with
    #[arg(id = "NATS_NKEY", long = "nats-nkey", env = "NATS_NKEY",
          value_parser = value::file("/etc/nats/user.nk"))]
    pub nkey: Option<PathBuf>,

    /// The user to log in to NATS as, with a password
    #[arg(id = "NATS_USER", long = "nats-user", env = "NATS_USER", value_parser = value::USER)]
    pub user: Option<String>,

    /// The password of `NATS_USER`
    #[arg(id = "NATS_PASSWORD", long = "nats-password", env = "NATS_PASSWORD",
          hide_env_values = true, value_parser = value::SECRET)]
    pub password: Option<Secret>,

    /// A file that holds the password of `NATS_USER`
    #[arg(id = "NATS_PASSWORD_FILE", long = "nats-password-file", env = "NATS_PASSWORD_FILE",
          value_parser = value::file("/run/secrets/nats-password"))]
    pub password_file: Option<PathBuf>,

    /// The token to log in to NATS with
    #[arg(id = "NATS_TOKEN", long = "nats-token", env = "NATS_TOKEN",
          hide_env_values = true, value_parser = value::SECRET)]
    pub token: Option<Secret>,

    /// A file that holds the token to log in to NATS with
    #[arg(id = "NATS_TOKEN_FILE", long = "nats-token-file", env = "NATS_TOKEN_FILE",
          value_parser = value::file("/run/secrets/nats-token"))]
    pub token_file: Option<PathBuf>,

    /// The subject under which answers come, where the login may hear no other: `_INBOX` and the user's name,
    /// say, so that users do not overhear each other
    #[arg(id = "NATS_INBOX_PREFIX", long = "nats-inbox-prefix", env = "NATS_INBOX_PREFIX",
          default_value = "_INBOX", value_parser = value::INBOX_PREFIX)]
    pub inbox_prefix: String,

    /// `auto` speaks TLS to NATS where the server asks for it, `require` always, and `first` before the
    /// server has said anything (its `handshake_first`); a `tls://` URL and the settings below require it too
    #[arg(id = "NATS_TLS", long = "nats-tls", env = "NATS_TLS", default_value = "auto",
          value_parser = value::NATS_TLS)]
    pub tls: NatsTls,

    /// The CA's certificate by which NATS is trusted, as a PEM file; without it, those of the operating system
    #[arg(id = "NATS_TLS_CA", long = "nats-tls-ca", env = "NATS_TLS_CA",
          value_parser = value::file("/etc/nats/ca.pem"))]
    pub tls_ca: Option<PathBuf>,

    /// The certificate to show to NATS, as a PEM file
    #[arg(id = "NATS_TLS_CERT", long = "nats-tls-cert", env = "NATS_TLS_CERT",
          value_parser = value::file("/etc/nats/tls.crt"))]
    pub tls_cert: Option<PathBuf>,

    /// The private key of `NATS_TLS_CERT`, as a PEM file
    #[arg(id = "NATS_TLS_KEY", long = "nats-tls-key", env = "NATS_TLS_KEY",
          value_parser = value::file("/etc/nats/tls.key"))]
    pub tls_key: Option<PathBuf>,
}

/// When TLS is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum NatsTls {
    #[default]
    Auto,
    Require,
    First,
}

impl Nats {
    /// The files of certificates that it is talked to with.
    pub fn certificates(&self) -> Vec<Watched> {
        let shown = Watched::shown("NATS_TLS_CERT", &self.tls_cert);
        let trusted = Watched::trusted("NATS_TLS_CA", &self.tls_ca);
        shown.into_iter().chain(trusted).collect()
    }
}

/// A NATS that wants no login.
impl From<NatsUrl> for Nats {
    fn from(url: NatsUrl) -> Self {
        Self {
            url,
            creds: None,
            nkey: None,
            user: None,
            password: None,
            password_file: None,
            token: None,
            token_file: None,
            inbox_prefix: "_INBOX".to_owned(),
            tls: NatsTls::Auto,
            tls_ca: None,
            tls_cert: None,
            tls_key: None,
        }
    }
}
