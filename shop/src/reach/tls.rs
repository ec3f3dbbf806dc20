//! TLS to the services' gRPC: whom to trust, and what to show.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use chassis::config::{Value, libpq::Roots};
use chassis::grpc::client;
use clap::Args;

/// Files, in PEM form. What is set to nothing is not set.
#[derive(Args, Clone, Debug)]
pub(crate) struct Tls {
    /// The CA's certificate by which a service at https:// is trusted; without it, those of the operating system
    #[arg(id = "SHOP_TLS_CA", long = "tls-ca", env = "SHOP_TLS_CA", value_name = "FILE",
          value_parser = file("/etc/shop/ca.crt"))]
    ca: Option<PathBuf>,
    /// The certificate to show to the services
    #[arg(id = "SHOP_TLS_CERT", long = "tls-cert", env = "SHOP_TLS_CERT", value_name = "FILE",
          value_parser = file("/etc/shop/tls.crt"))]
    cert: Option<PathBuf>,
    /// The private key of --tls-cert
    #[arg(id = "SHOP_TLS_KEY", long = "tls-key", env = "SHOP_TLS_KEY", value_name = "FILE",
          value_parser = file("/etc/shop/tls.key"))]
    key: Option<PathBuf>,
    /// To whom a service's certificate is made out, where that is not the host of its address: with a port that
    /// is forwarded
    #[arg(
        id = "SHOP_TLS_NAME",
        long = "tls-name",
        env = "SHOP_TLS_NAME",
        value_name = "HOST"
    )]
    name: Option<String>,
}

impl Tls {
    /// What is set first, by its option.
    pub(super) fn is_set(&self) -> Option<&'static str> {
        let all = [
            ("--tls-ca", set(&self.ca).is_some()),
            ("--tls-cert", set(&self.cert).is_some()),
            ("--tls-key", set(&self.key).is_some()),
            ("--tls-name", self.name().is_some()),
        ];
        all.into_iter()
            .find_map(|(option, is_set)| is_set.then_some(option))
    }

    /// The rules for calls.
    ///
    /// # Errors
    /// When a file cannot be used, or one is missing.
    pub(super) fn rules(&self) -> anyhow::Result<client::Tls> {
        let identity = match (set(&self.cert), set(&self.key)) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) => bail!("--tls-cert is set without --tls-key"),
            (None, Some(_)) => bail!("--tls-key is set without --tls-cert"),
        };
        let rules = client::Tls {
            roots: set(&self.ca).map_or(Roots::System, Roots::File),
            identity,
            name: self.name(),
            settings: ("--tls-ca or SHOP_TLS_CA", "--tls-cert and --tls-key"),
        };
        rules.check().context("TLS to the services")?;
        Ok(rules)
    }

    fn name(&self) -> Option<String> {
        self.name.clone().filter(|name| !name.is_empty())
    }
}

/// The path of a file, which is looked at only when it is used.
const fn file(example: &'static str) -> Value<PathBuf> {
    Value::new(|given| Ok(PathBuf::from(given)), example)
}

fn set(given: &Option<PathBuf>) -> Option<PathBuf> {
    given.clone().filter(|path| !path.as_os_str().is_empty())
}
