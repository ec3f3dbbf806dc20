//! Whom the services see: a token, and a certificate over TLS.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail, ensure};
use chassis::config::{self, Secret, libpq::Roots};
use chassis::grpc::client::{Address, Tls};
use clap::Args;

/// What the services want of who calls.
#[derive(Args, Clone, Debug)]
pub(crate) struct Caller {
    /// A file that holds the token to call with, a JWT with the scope `operator`: the load creates customers
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The CA's certificate by which a service at https:// is trusted; without it, those of the operating system
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// The certificate to show to the services
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The private key of --tls-cert
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
}

impl Caller {
    /// The header `Authorization`, if there is a token. It is read once: a token has to outlast the load.
    pub(super) fn authorization(&self) -> Result<Option<Secret>> {
        config::bearer(None, self.token_file.as_deref())
    }

    /// The rules for an address that begins with `https://`; none for another one.
    pub(super) fn tls(&self, address: &Address) -> Result<Option<Tls>> {
        if !address.is_over_tls() {
            ensure!(
                self.tls_ca.is_none() && self.tls_cert.is_none(),
                "--tls-ca or --tls-cert is set, and {address} is not over TLS: let it begin with https://"
            );
            return Ok(None);
        }
        let identity = match (&self.tls_cert, &self.tls_key) {
            (Some(certificate), Some(key)) => Some((certificate.clone(), key.clone())),
            (None, None) => None,
            _ => bail!("--tls-cert and --tls-key go together"),
        };
        let rules = Tls {
            roots: self.tls_ca.clone().map_or(Roots::System, Roots::File),
            identity,
            name: None,
            settings: ("--tls-ca", "--tls-cert and --tls-key"),
        };
        rules.check().context("TLS to the services")?;
        Ok(Some(rules))
    }
}
