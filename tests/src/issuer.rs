//! Who signs the tokens of a test, good and bad: an identity provider, of which only the keys are there.

use std::fs;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};

use crate::guard::Guard;

const ISSUER: &str = "https://id.example.com/";
const AUDIENCE: &str = "shop";
/// Longer than any test.
const LIFE_SECONDS: i64 = 3600;

/// A key of ES256, and its name.
#[derive(Debug)]
pub struct Signer {
    id: String,
    key: EcdsaKeyPair,
}

/// An issuer with one key, which its file of keys names.
#[derive(Debug)]
pub struct Issuer {
    signer: Signer,
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
    /// Makes a key, and writes the file of keys into the guard's directory.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn new(guard: &Guard) -> Result<Self> {
        let jwks = guard.directory().join("jwks.json");
        let signer = Signer::new("first")?;
        let issuer = Self { signer, jwks };
        issuer.publish(&[&issuer.signer])?;
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

    /// The key that is there from the beginning.
    #[must_use]
    pub fn signer(&self) -> &Signer {
        &self.signer
    }

    /// Replaces the file of keys, at once.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn publish(&self, signers: &[&Signer]) -> Result<()> {
        let keys: Vec<_> = signers.iter().map(|signer| signer.jwk()).collect();
        self.publish_text(&json!({ "keys": keys }).to_string())
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
        Token {
            header: json!({ "alg": "ES256", "typ": "JWT", "kid": self.signer.id }),
            claims: json!({
                "iss": ISSUER, "aud": AUDIENCE, "sub": subject, "scope": scope,
                "iat": now, "exp": now + LIFE_SECONDS,
            }),
        }
    }

    /// The token with the first key's signature.
    ///
    /// # Panics
    /// When the machine has no randomness.
    #[must_use]
    pub fn signed(&self, token: &Token) -> String {
        self.signer.sign(token)
    }
}

impl Signer {
    /// A new key of that name.
    ///
    /// # Errors
    /// When the machine has no randomness.
    pub fn new(id: &str) -> Result<Self> {
        let (rule, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let key = EcdsaKeyPair::generate_pkcs8(rule, &random);
        let key = key.map_err(|_| anyhow!("no key can be made"))?;
        let key = EcdsaKeyPair::from_pkcs8(rule, key.as_ref(), &random);
        let key = key.map_err(|why| anyhow!("the key cannot be used: {why}"))?;
        let id = id.to_owned();
        Ok(Self { id, key })
    }

    /// Its public half.
    #[must_use]
    pub fn jwk(&self) -> Value {
        // 4, then both coordinates, of 32 bytes each.
        let (x, y) = self.point()[1..].split_at(32);
        let [x, y] = [x, y].map(|part| URL_SAFE_NO_PAD.encode(part));
        json!({ "kty": "EC", "crv": "P-256", "kid": self.id, "use": "sig", "alg": "ES256", "x": x, "y": y })
    }

    /// The point on the curve that its public half is.
    #[must_use]
    pub fn point(&self) -> &[u8] {
        self.key.public_key().as_ref()
    }

    /// The token with its signature.
    ///
    /// # Panics
    /// When the machine has no randomness.
    #[must_use]
    pub fn sign(&self, token: &Token) -> String {
        let text = token.unsigned();
        let signed = self.key.sign(&SystemRandom::new(), text.as_bytes());
        with(&text, signed.expect("there is randomness").as_ref())
    }
}

impl Token {
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
