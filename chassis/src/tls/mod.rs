//! TLS: whose certificates are trusted, which one is shown, and what went wrong in words that help.
//!
//! A client's files are read anew for each connection, a server's looked at every few seconds (see
//! [`server`]), so that a renewed certificate is taken up by itself.

pub(crate) mod der;
pub mod expiry;
mod explain;
pub(crate) mod server;
mod verify;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

pub use explain::{FAILED, explain};

use crate::config::libpq::{Roots, SslMode, Tls};
use verify::Verifier;

/// What cannot work until somebody mends a file.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    #[error("cannot read {what} {}: {why}", path.display())]
    File {
        what: &'static str,
        path: PathBuf,
        why: String,
    },
    #[error("{} holds no certificate in PEM form", .0.display())]
    Empty(PathBuf),
    #[error("the operating system's trusted certificates cannot be read: {0}")]
    System(String),
    #[error("certificate {} and key {} do not make a pair: {why}", certificate.display(), key.display())]
    Pair {
        certificate: PathBuf,
        key: PathBuf,
        why: rustls::Error,
    },
    #[error("{} holds no certificate of a CA: {why}", path.display())]
    Authority { path: PathBuf, why: String },
    #[error("this build has no usable TLS version: {0}")]
    Versions(rustls::Error),
}

/// What Postgres calls its protocol within TLS (ALPN), since 17; older servers do not look.
const POSTGRES: &[u8] = b"postgresql";
/// What gRPC's is called.
const HTTP2: &[u8] = b"h2";
/// What is asked for keys speaks HTTP's older version.
const HTTP1: &[u8] = b"http/1.1";

/// The rules of one connection to Postgres.
pub(crate) fn postgres(settings: &Tls) -> Result<ClientConfig, Invalid> {
    let roots = match (settings.mode, &settings.roots) {
        (SslMode::Disable | SslMode::Prefer | SslMode::Require, _) | (_, None) => None,
        (_, Some(roots)) => Some(roots),
    };
    let names = settings.mode == SslMode::VerifyFull;
    let trusted = roots.map(trusted).transpose()?;
    client(trusted, names, settings.identity.as_ref(), POSTGRES)
}

/// Encrypts without asking who the other side is.
pub(crate) fn unchecked() -> Result<ClientConfig, Invalid> {
    client(None, false, None, POSTGRES)
}

/// The rules of one connection to a gRPC server: its certificate must be of `roots`, and made out to the
/// host that is called.
pub(crate) fn grpc(
    roots: &Roots,
    identity: Option<&(PathBuf, PathBuf)>,
) -> Result<ClientConfig, Invalid> {
    client(Some(trusted(roots)?), true, identity, HTTP2)
}

/// The rules of one connection to an HTTPS server.
pub(crate) fn https(roots: &Roots) -> Result<ClientConfig, Invalid> {
    client(Some(trusted(roots)?), true, None, HTTP1)
}

fn client(
    trusted: Option<Vec<CertificateDer<'static>>>,
    names: bool,
    identity: Option<&(PathBuf, PathBuf)>,
    protocol: &[u8],
) -> Result<ClientConfig, Invalid> {
    let provider = provider();
    let verifier = Verifier::new(trusted, names, &provider);
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(Invalid::Versions)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = certificates("the client certificate", certificate)?;
            builder
                .with_client_auth_cert(chain, private_key(key)?)
                .map_err(|why| Invalid::Pair {
                    certificate: certificate.clone(),
                    key: key.clone(),
                    why,
                })?
        }
    };
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(config)
}

/// The one cryptography of this tree: ring, which async-nats has too.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn trusted(roots: &Roots) -> Result<Vec<CertificateDer<'static>>, Invalid> {
    match roots {
        Roots::File(path) => certificates("the CA's certificate", path),
        Roots::System => {
            let loaded = rustls_native_certs::load_native_certs();
            match (loaded.certs.is_empty(), loaded.errors.first()) {
                (true, Some(error)) => Err(Invalid::System(error.to_string())),
                (true, None) => Err(Invalid::System("there are none".to_owned())),
                (false, _) => Ok(loaded.certs),
            }
        }
    }
}

/// The certificates of a PEM file.
///
/// # Errors
/// When it cannot be read or holds none.
pub fn certificates(
    what: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, Invalid> {
    certificates_of(what, path, &read(what, path)?)
}

/// The private key of a PEM file.
///
/// # Errors
/// When it cannot be read, holds none, or is encrypted.
pub fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Invalid> {
    private_key_of(path, &read(KEY, path)?)
}

const KEY: &str = "the private key";

fn certificates_of(
    what: &'static str,
    path: &Path,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, Invalid> {
    let all = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let all = all.map_err(|error| invalid(what, path, format!("it is not PEM ({error})")))?;
    if all.is_empty() {
        return Err(Invalid::Empty(path.to_owned()));
    }
    Ok(all)
}

fn private_key_of(path: &Path, pem: &[u8]) -> Result<PrivateKeyDer<'static>, Invalid> {
    use rustls::pki_types::pem::Error;
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| {
        let why = match error {
            Error::NoItemsFound => {
                "it holds no private key in PEM form that is not encrypted".to_owned()
            }
            error => format!("it is not PEM ({error})"),
        };
        invalid(KEY, path, why)
    })
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, Invalid> {
    fs::read(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => invalid(what, path, "there is none".to_owned()),
        _ => invalid(what, path, error.to_string()),
    })
}

fn invalid(what: &'static str, path: &Path, why: String) -> Invalid {
    let path = path.to_owned();
    Invalid::File { what, path, why }
}

/// Those that can be anchors of trust; a file may hold others too.
fn store(certificates: &[CertificateDer<'static>]) -> RootCertStore {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(certificates.iter().cloned());
    store
}
