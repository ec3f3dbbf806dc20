//! Certificates for a test: an authority of its own, and what it signs, as PEM files.

use std::fs;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair,
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, SignatureAlgorithm, date_time_ymd,
};

use crate::guard::Guard;
use crate::user::Server;

/// Characters in a line of PEM.
const LINE: usize = 64;

/// A certificate authority that nobody else trusts.
#[derive(Debug)]
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: PathBuf,
    certificate: PathBuf,
}

/// A certificate and its key.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The certificate, as a PEM file.
    pub certificate: PathBuf,
    /// Its private key, as a PEM file.
    pub key: PathBuf,
}

impl Authority {
    /// Makes an authority with a folder of that name in the guard's directory.
    ///
    /// # Errors
    /// When the folder exists or cannot be made.
    pub fn new(guard: &Guard, name: &str) -> Result<Self> {
        Self::with(guard, name, &PKCS_ECDSA_P256_SHA256)
    }

    /// The same, but it signs with SHA-384.
    ///
    /// # Errors
    /// As [`Authority::new`].
    pub fn with_sha384(guard: &Guard, name: &str) -> Result<Self> {
        Self::with(guard, name, &PKCS_ECDSA_P384_SHA384)
    }

    fn with(guard: &Guard, name: &str, algorithm: &'static SignatureAlgorithm) -> Result<Self> {
        let directory = guard.make_directory(name)?;
        let mut params = params(name, &[])?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate_for(algorithm)?)?;
        let certificate = directory.join("ca.pem");
        write(&certificate, "CERTIFICATE", issuer.der(), 0o644)?;
        Ok(Self {
            issuer,
            directory,
            certificate,
        })
    }

    /// Its own certificate, as a PEM file.
    #[must_use]
    pub fn certificate(&self) -> &Path {
        &self.certificate
    }

    /// A certificate made out to these names and addresses; its subject, which Postgres takes for the
    /// user, is the first.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn sign(&self, names: &[&str]) -> Result<Identity> {
        let subject = names.first().context("a certificate without a name")?;
        self.signed(subject, params(subject, names)?)
    }

    /// The same, but its time is over.
    ///
    /// # Errors
    /// As [`Authority::sign`].
    pub fn sign_expired(&self, names: &[&str]) -> Result<Identity> {
        // The January of 2020.
        self.sign_as("expired", names, 1_577_836_800..1_580_428_800)
    }

    /// The same, but good from and until then, in seconds since 1970.
    ///
    /// # Errors
    /// As [`Authority::sign`].
    pub fn sign_for(&self, names: &[&str], time: Range<i64>) -> Result<Identity> {
        self.sign_as("limited", names, time)
    }

    fn sign_as(&self, what: &str, names: &[&str], time: Range<i64>) -> Result<Identity> {
        let subject = names.first().context("a certificate without a name")?;
        let mut params = params(subject, names)?;
        let epoch = date_time_ymd(1970, 1, 1);
        let at = |seconds: i64| anyhow::Ok(epoch + Duration::from_secs(seconds.try_into()?));
        params.not_before = at(time.start)?;
        params.not_after = at(time.end)?;
        self.signed(&format!("{subject}-{what}"), params)
    }

    fn signed(&self, file: &str, params: CertificateParams) -> Result<Identity> {
        let key = KeyPair::generate()?;
        let signed = params.signed_by(&key, &self.issuer)?;
        let identity = Identity {
            certificate: self.directory.join(format!("{file}.pem")),
            key: self.directory.join(format!("{file}.key")),
        };
        write(&identity.certificate, "CERTIFICATE", signed.der(), 0o644)?;
        write(&identity.key, "PRIVATE KEY", &key.serialize_der(), 0o600)?;
        // Postgres wants the key of its server to be its own.
        Server::user()?.own(&identity.key)?;
        Ok(identity)
    }
}

impl Identity {
    /// Puts it in the place of another, as a renewal does: by renaming, so that no half of it is seen.
    ///
    /// # Errors
    /// When it cannot be written there.
    pub fn replace(&self, other: &Self) -> Result<()> {
        replace(&self.certificate, &other.certificate)?;
        replace(&self.key, &other.key)?;
        Server::user()?.own(&other.key)
    }
}

/// Puts a file in the place of another, at once.
///
/// # Errors
/// When it cannot be written there.
pub fn replace(new: &Path, old: &Path) -> Result<()> {
    let beside = old.with_extension("new");
    fs::copy(new, &beside).with_context(|| format!("cannot copy {}", new.display()))?;
    fs::rename(&beside, old).with_context(|| format!("cannot replace {}", old.display()))
}

fn params(subject: &str, names: &[&str]) -> Result<CertificateParams> {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, subject);
    Ok(params)
}

fn write(path: &Path, kind: &str, der: &[u8], mode: u32) -> Result<()> {
    let encoded = STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {kind}-----\n");
    for line in encoded.as_bytes().chunks(LINE) {
        pem.push_str(&String::from_utf8_lossy(line));
        pem.push('\n');
    }
    pem.push_str(&format!("-----END {kind}-----\n"));
    fs::write(path, pem).with_context(|| format!("cannot write {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    Ok(())
}
