//! Who signs the tokens of a test, good and bad: an identity provider, of which only the keys are there.

use std::fs;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::hmac;
use serde_json::{Value, json};

use crate::guard::Guard;

mod signer;

pub use signer::{Algorithm, Signer};

const ISSUER: &str = "https://id.example.com/";
const AUDIENCE: &str = "shop";
/// Longer than any test.
const LIFE_SECONDS: i64 = 3600;

/// An issuer with a key for each algorithm, which its file of keys names.
#[derive(Debug)]
pub struct Issuer {
    /// That of ES256 first, which signs when nothing else is said.
    signers: Vec<Signer>,
    jwks: PathBuf,
}

/// A token's header and claims, to be changed and signed.
#[derive(Clone, Debug)]
pub struct Token {
    /// `alg` and `kid`.
    pub header: Value,
    /// All of them.
    pub claims: Value,
}

impl Issuer {
    /// Makes the keys, and writes the file of keys into the guard's directory.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn new(guard: &Guard) -> Result<Self> {
        let jwks = guard.directory().join("jwks.json");
        let signers = Algorithm::ALL.map(|algorithm| Signer::of(&algorithm.name(), algorithm));
        let signers = signers.into_iter().collect::<Result<_>>()?;
        let issuer = Self { signers, jwks };
        issuer.publish(&issuer.signers.iter().collect::<Vec<_>>())?;
        Ok(issuer)
    }

    /// What a service needs to take its tokens.
    #[must_use]
    pub fn settings(&self) -> [(&'static str, String); 4] {
        [
            ("AUTH", "jwt".to_owned()),
            ("AUTH_JWKS", self.jwks.display().to_string()),
            ("AUTH_ISSUER", ISSUER.to_owned()),
            ("AUTH_AUDIENCE", AUDIENCE.to_owned()),
        ]
    }

    /// The keys that are there from the beginning, one of each algorithm, with its name.
    #[must_use]
    pub fn signers(&self) -> &[Signer] {
        &self.signers
    }

    /// The one of ES256.
    #[must_use]
    pub fn signer(&self) -> &Signer {
        &self.signers[0]
    }

    /// Replaces the file of keys, at once.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn publish(&self, signers: &[&Signer]) -> Result<()> {
        self.publish_text(&jwks(signers))
    }

    /// The same, with this content.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn publish_text(&self, text: &str) -> Result<()> {
        let draft = self.jwks.with_extension("new");
        fs::write(&draft, text).with_context(|| format!("cannot write {}", draft.display()))?;
        fs::rename(&draft, &self.jwks).context("cannot replace the keys")
    }

    /// An operator's token.
    ///
    /// # Panics
    /// When the machine has no randomness.
    #[must_use]
    pub fn operator(&self) -> String {
        self.signed(&self.token("operator", "somebody"))
    }

    /// A customer's token.
    ///
    /// # Panics
    /// When the machine has no randomness.
    #[must_use]
    pub fn customer(&self, customer_id: &str) -> String {
        self.signed(&self.token("customer", customer_id))
    }

    /// A good token, to be spoilt.
    #[must_use]
    pub fn token(&self, scope: &str, subject: &str) -> Token {
        let now = now();
        let token = Token {
            header: json!({ "typ": "JWT" }),
            claims: json!({
                "iss": ISSUER, "aud": AUDIENCE, "sub": subject, "scope": scope,
                "iat": now, "exp": now + LIFE_SECONDS,
            }),
        };
        token.by(self.signer())
    }

    /// The token with the signature of ES256's key.
    ///
    /// # Panics
    /// When the machine has no randomness.
    #[must_use]
    pub fn signed(&self, token: &Token) -> String {
        self.signer().sign(token)
    }
}

impl Token {
    /// The same token as this key signs it: with its name and its algorithm.
    #[must_use]
    pub fn by(self, signer: &Signer) -> Self {
        let named = self.head("alg", json!(signer.algorithm().name()));
        named.head("kid", json!(signer.id()))
    }

    /// Header and claims, as they are signed.
    #[must_use]
    pub fn unsigned(&self) -> String {
        let [header, claims] =
            [&self.header, &self.claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
        format!("{header}.{claims}")
    }

    /// With an HMAC for a signature, whose secret is known to everybody: a public key, say.
    #[must_use]
    pub fn with_hmac(&self, secret: &[u8]) -> String {
        let text = self.unsigned();
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        with(&text, hmac::sign(&key, text.as_bytes()).as_ref())
    }

    /// The same token with another claim; `null` takes it away.
    #[must_use]
    pub fn claim(mut self, name: &str, value: Value) -> Self {
        set(&mut self.claims, name, value);
        self
    }

    /// The same token with another field of its header; `null` takes it away.
    #[must_use]
    pub fn head(mut self, name: &str, value: Value) -> Self {
        set(&mut self.header, name, value);
        self
    }
}

/// The set of their public halves, as it is published.
#[must_use]
pub fn jwks(signers: &[&Signer]) -> String {
    let keys: Vec<_> = signers.iter().map(|signer| signer.jwk()).collect();
    json!({ "keys": keys }).to_string()
}

fn set(object: &mut Value, name: &str, value: Value) {
    if let Some(object) = object.as_object_mut() {
        match value {
            Value::Null => object.remove(name),
            value => object.insert(name.to_owned(), value),
        };
    }
}

fn with(text: &str, signature: &[u8]) -> String {
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// As tokens count it.
fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs() as i64)
}
