//! Where gRPC is served, and over which TLS.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;

use super::{Value, value};
use crate::tls::expiry::Watched;

/// The gRPC that the process serves. What is set to nothing is not set.
#[derive(Args, Clone, Debug)]
pub struct Grpc {
    /// Where gRPC is served; port 0 takes a free one and logs it
    #[arg(id = "GRPC_LISTEN", long = "grpc-listen", env = "GRPC_LISTEN",
          default_value = "0.0.0.0:50051", value_parser = Value::listen())]
    pub listen: SocketAddr,

    /// The certificate that gRPC is served with, and what links it to its CA, as a PEM file; without it gRPC
    /// is served without TLS
    #[arg(id = "GRPC_TLS_CERT", long = "grpc-tls-cert", env = "GRPC_TLS_CERT",
          value_parser = value::file("/etc/grpc/tls.crt"))]
    pub tls_cert: Option<PathBuf>,

    /// The private key of `GRPC_TLS_CERT`, as a PEM file
    #[arg(id = "GRPC_TLS_KEY", long = "grpc-tls-key", env = "GRPC_TLS_KEY",
          value_parser = value::file("/etc/grpc/tls.key"))]
    pub tls_key: Option<PathBuf>,

    /// The CA's certificate by which callers of gRPC are trusted, as a PEM file: with it, who shows no
    /// certificate of that CA is refused
    #[arg(id = "GRPC_TLS_CLIENT_CA", long = "grpc-tls-client-ca", env = "GRPC_TLS_CLIENT_CA",
          value_parser = value::file("/etc/grpc/client-ca.crt"))]
    pub tls_client_ca: Option<PathBuf>,
}

impl Grpc {
    /// The files of certificates that it is served by.
    pub fn certificates(&self) -> Vec<Watched> {
        let shown = Watched::shown("GRPC_TLS_CERT", &self.tls_cert);
        let trusted = Watched::trusted("GRPC_TLS_CLIENT_CA", &self.tls_client_ca);
        shown.into_iter().chain(trusted).collect()
    }
}

/// Without TLS.
impl From<SocketAddr> for Grpc {
    fn from(listen: SocketAddr) -> Self {
        Self {
            listen,
            tls_cert: None,
            tls_key: None,
            tls_client_ca: None,
        }
    }
}
