//! The keys that tokens are signed with, one of each kind that services take.

use anyhow::{Result, anyhow};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{
    self as by, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RsaEncoding,
    RsaKeyPair,
};
use serde_json::{Value, json};

use super::{Token, with};

/// Ring makes no keys of RSA. This one is of the tests alone, and known to everybody.
const RSA: &str = include_str!("rsa.pem");

/// How a token is signed, by its name in JOSE (RFC 7518, RFC 8037).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// ECDSA on P-256.
    ES256,
    /// ECDSA on P-384.
    ES384,
    /// Ed25519.
    EdDSA,
    /// RSA by PKCS #1.
    RS256,
    /// The same, with SHA-384.
    RS384,
    /// The same, with SHA-512.
    RS512,
    /// RSA by PSS.
    PS256,
    /// The same, with SHA-384.
    PS384,
    /// The same, with SHA-512.
    PS512,
}

/// A key with its name, for one algorithm. All of RSA are the same key.
#[derive(Debug)]
pub struct Signer {
    id: String,
    algorithm: Algorithm,
    key: Key,
}

#[derive(Debug)]
enum Key {
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Rsa(RsaKeyPair),
}

impl Algorithm {
    /// Every one.
    pub const ALL: [Self; 9] = [
        Self::ES256,
        Self::ES384,
        Self::EdDSA,
        Self::RS256,
        Self::RS384,
        Self::RS512,
        Self::PS256,
        Self::PS384,
        Self::PS512,
    ];

    /// As it stands in a header.
    #[must_use]
    pub fn name(self) -> String {
        format!("{self:?}")
    }

    fn padding(self) -> Option<&'static dyn RsaEncoding> {
        match self {
            Self::ES256 | Self::ES384 | Self::EdDSA => None,
            Self::RS256 => Some(&by::RSA_PKCS1_SHA256),
            Self::RS384 => Some(&by::RSA_PKCS1_SHA384),
            Self::RS512 => Some(&by::RSA_PKCS1_SHA512),
            Self::PS256 => Some(&by::RSA_PSS_SHA256),
            Self::PS384 => Some(&by::RSA_PSS_SHA384),
            Self::PS512 => Some(&by::RSA_PSS_SHA512),
        }
    }
}

impl Signer {
    /// A new key of ES256, of that name.
    ///
    /// # Errors
    /// When the machine has no randomness.
    pub fn new(id: &str) -> Result<Self> {
        Self::of(id, Algorithm::ES256)
    }

    /// A key of that name for that algorithm; a new one, but for RSA.
    ///
    /// # Errors
    /// When the machine has no randomness.
    pub fn of(id: &str, algorithm: Algorithm) -> Result<Self> {
        let key = match algorithm {
            Algorithm::ES256 => ecdsa(&by::ECDSA_P256_SHA256_FIXED_SIGNING)?,
            Algorithm::ES384 => ecdsa(&by::ECDSA_P384_SHA384_FIXED_SIGNING)?,
            Algorithm::EdDSA => {
                let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new());
                let key = key.map_err(|_| anyhow!("no key can be made"))?;
                Key::Ed25519(usable(Ed25519KeyPair::from_pkcs8(key.as_ref()))?)
            }
            _ => {
                let encoded: String = RSA.lines().filter(|line| !line.starts_with('-')).collect();
                Key::Rsa(usable(RsaKeyPair::from_pkcs8(&STANDARD.decode(encoded)?))?)
            }
        };
        let id = id.to_owned();
        Ok(Self { id, algorithm, key })
    }

    /// Its name, the `kid` of its tokens.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What it signs by.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Its public half, for its algorithm alone.
    #[must_use]
    pub fn jwk(&self) -> Value {
        let encoded = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let mut jwk = match &self.key {
            Key::Ecdsa(key) => {
                let point = key.public_key().as_ref();
                // 4, then both coordinates.
                let (x, y) = point[1..].split_at(point.len() / 2);
                let curve = match self.algorithm {
                    Algorithm::ES256 => "P-256",
                    _ => "P-384",
                };
                json!({ "kty": "EC", "crv": curve, "x": encoded(x), "y": encoded(y) })
            }
            Key::Ed25519(key) => {
                json!({ "kty": "OKP", "crv": "Ed25519", "x": encoded(key.public_key().as_ref()) })
            }
            Key::Rsa(key) => {
                let parts = PublicKeyComponents::<Vec<u8>>::from(key.public());
                json!({ "kty": "RSA", "n": encoded(&parts.n), "e": encoded(&parts.e) })
            }
        };
        for (name, value) in [("kid", self.id.clone()), ("alg", self.algorithm.name())] {
            jwk[name] = value.into();
        }
        jwk["use"] = "sig".into();
        jwk
    }

    /// Its public half as the plain bytes that there are of it: a point on the curve, or PKCS #1 in DER.
    #[must_use]
    pub fn public(&self) -> &[u8] {
        match &self.key {
            Key::Ecdsa(key) => key.public_key().as_ref(),
            Key::Ed25519(key) => key.public_key().as_ref(),
            Key::Rsa(key) => key.public_key().as_ref(),
        }
    }

    /// The token with its signature, whatever the token's header says.
    ///
    /// # Panics
    /// When the machine has no randomness.
    #[must_use]
    pub fn sign(&self, token: &Token) -> String {
        let (text, random) = (token.unsigned(), SystemRandom::new());
        match &self.key {
            Key::Ecdsa(key) => {
                let signed = key.sign(&random, text.as_bytes());
                with(&text, signed.expect("there is randomness").as_ref())
            }
            Key::Ed25519(key) => with(&text, key.sign(text.as_bytes()).as_ref()),
            Key::Rsa(key) => {
                let padding = self.algorithm.padding().expect("it is one of RSA's");
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(padding, &random, text.as_bytes(), &mut signature)
                    .expect("there is randomness");
                with(&text, &signature)
            }
        }
    }
}

fn ecdsa(rule: &'static EcdsaSigningAlgorithm) -> Result<Key> {
    let random = SystemRandom::new();
    let key = EcdsaKeyPair::generate_pkcs8(rule, &random);
    let key = key.map_err(|_| anyhow!("no key can be made"))?;
    let key = EcdsaKeyPair::from_pkcs8(rule, key.as_ref(), &random);
    Ok(Key::Ecdsa(usable(key)?))
}

fn usable<K>(key: Result<K, ring::error::KeyRejected>) -> Result<K> {
    key.map_err(|why| anyhow!("the key cannot be used: {why}"))
}
