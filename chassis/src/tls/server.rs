//! TLS as a server. Its files are looked at every few seconds: what is renewed is shown to who connects from
//! then on, what is broken is told, and the former stays in use.
//!
//! Danger: a session that is resumed is not asked for its certificate again. Each renewal makes rules of its
//! own, which remember no session of those before.

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock, Weak},
    time::Duration,
};

use metrics::{describe_counter, describe_gauge};
use ring::digest::{SHA256, digest};
use rustls::{ServerConfig, server::WebPkiClientVerifier};
use tokio::time::sleep;

use super::{HTTP2, Invalid, KEY, certificates_of, private_key_of, provider, read, store};

/// How often the files are looked at: soon enough for who waits for a renewal, and cheap, as they are small.
const LOOK_EVERY: Duration = Duration::from_secs(2);

const CERTIFICATE: &str = "the server's certificate";
const CLIENT_CA: &str = "the callers' CA";

/// What a server shows, and whom it lets in.
pub(crate) struct Identity {
    files: Files,
    now: RwLock<Now>,
}

#[derive(Clone, Debug)]
pub(crate) struct Files {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    /// With it, who connects must show a certificate of this CA.
    pub(crate) client_ca: Option<PathBuf>,
}

struct Now {
    rules: Arc<ServerConfig>,
    /// What was looked at last, usable or not.
    seen: Seen,
}

/// What the files hold: nothing where one cannot be read.
type Seen = Option<Vec<u8>>;

impl Identity {
    /// Reads the files.
    pub(crate) fn new(files: Files) -> Result<Self, Invalid> {
        let content = files.read()?;
        let now = Now {
            rules: Arc::new(files.rules(&content)?),
            seen: Some(content.fingerprint()),
        };
        let now = RwLock::new(now);
        Ok(Self { files, now })
    }

    pub(crate) fn files(&self) -> &Files {
        &self.files
    }

    /// What is asked of who connects, in words.
    pub(crate) fn mode(&self) -> &'static str {
        match self.files.client_ca {
            Some(_) => "callers must show a certificate (mutual TLS)",
            None => "callers are not asked for a certificate",
        }
    }

    /// The rules for the next connection.
    pub(crate) fn rules(&self) -> Arc<ServerConfig> {
        let now = self.now.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&now.rules)
    }

    /// Whether the files hold something new that is in use from now on.
    ///
    /// # Errors
    /// When something new cannot be used, once for each such content.
    fn look(&self) -> Result<bool, Invalid> {
        let content = self.files.read();
        let seen = content.as_ref().ok().map(Content::fingerprint);
        let mut now = self.now.write().unwrap_or_else(PoisonError::into_inner);
        if now.seen == seen {
            return Ok(false);
        }
        now.seen = seen;
        now.rules = Arc::new(self.files.rules(&content?)?);
        Ok(true)
    }

    /// Looks again and again, until nobody uses it any more.
    pub(crate) async fn watch(identity: Weak<Self>, server: &'static str) {
        describe_gauge!(
            "tls_files_broken",
            "1 while a file cannot be used, and the former one is"
        );
        describe_counter!(
            "tls_renewals_total",
            "Changes of the files, by what came of them"
        );
        let broken = metrics::gauge!("tls_files_broken", "server" => server);
        let counted = |outcome| metrics::counter!("tls_renewals_total", "server" => server, "outcome" => outcome);
        broken.set(0);
        loop {
            sleep(LOOK_EVERY).await;
            let Some(identity) = identity.upgrade() else {
                return;
            };
            match identity.look() {
                Ok(false) => {}
                Ok(true) => {
                    broken.set(0);
                    counted("renewed").increment(1);
                    let files = identity.files();
                    tracing::info!(server, %files, "TLS: renewed, for who connects from now on");
                }
                Err(error) => {
                    broken.set(1);
                    counted("broken").increment(1);
                    tracing::error!(server, %error, "TLS: cannot be renewed: going on with what was read \
                                    before; mend the file, and it is taken up");
                }
            }
        }
    }
}

struct Content {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl Content {
    fn fingerprint(&self) -> Vec<u8> {
        let parts = [
            Some(&self.certificate),
            Some(&self.key),
            self.client_ca.as_ref(),
        ];
        let parts = parts.into_iter().flatten();
        parts
            .flat_map(|part| digest(&SHA256, part).as_ref().to_vec())
            .collect()
    }
}

impl Files {
    fn read(&self) -> Result<Content, Invalid> {
        let client_ca = self.client_ca.as_deref();
        Ok(Content {
            certificate: read(CERTIFICATE, &self.certificate)?,
            key: read(KEY, &self.key)?,
            client_ca: client_ca.map(|path| read(CLIENT_CA, path)).transpose()?,
        })
    }

    fn rules(&self, content: &Content) -> Result<ServerConfig, Invalid> {
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(Invalid::Versions)?;
        let builder = match (&self.client_ca, &content.client_ca) {
            (Some(path), Some(pem)) => {
                let roots = store(&certificates_of(CLIENT_CA, path, pem)?);
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
                let verifier = verifier.build().map_err(|error| Invalid::Authority {
                    path: path.clone(),
                    why: error.to_string(),
                })?;
                builder.with_client_cert_verifier(verifier)
            }
            _ => builder.with_no_client_auth(),
        };
        let chain = certificates_of(CERTIFICATE, &self.certificate, &content.certificate)?;
        let key = private_key_of(&self.key, &content.key)?;
        let rules = builder.with_single_cert(chain, key);
        let mut rules = rules.map_err(|why| Invalid::Pair {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            why,
        })?;
        rules.alpn_protocols = vec![HTTP2.to_vec()];
        Ok(rules)
    }
}

impl fmt::Display for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (certificate, key) = (self.certificate.display(), self.key.display());
        write!(f, "{certificate}, {key}")?;
        match &self.client_ca {
            Some(path) => write!(f, ", {}", path.display()),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Identity").field(&self.files).finish()
    }
}
