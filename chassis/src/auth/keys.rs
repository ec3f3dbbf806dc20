//! The keys of a JWKS (RFC 7517): of those that verify signatures, which algorithms each may be used with.
//!
//! Danger: a key decides the algorithm, never the token alone. A public key that was taken for the secret of
//! an HMAC would let everybody sign.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse},
};
use serde::Deserialize;
use serde_json::Value;

use super::signature;

/// Nobody signs with more at a time (I12).
const KEYS_MAX: usize = 100;

/// What a key of unknown algorithm may be used with, by its kind.
const RSA: [Algorithm; 6] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

/// A set of keys that are good for something here.
#[derive(Debug)]
pub(super) struct Keys(Vec<Key>);

/// One of them.
#[derive(Debug)]
pub(super) struct Key {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    pub(super) key: DecodingKey,
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Value>,
}

impl Keys {
    /// Reads a set; keys that are of no use here are passed over.
    ///
    /// # Errors
    /// Why it is none, without its content.
    pub(super) fn parse(json: &[u8]) -> Result<Self, String> {
        let set: Set = serde_json::from_slice(json).map_err(|error| {
            format!(
                "it is no JWKS (line {}, column {})",
                error.line(),
                error.column()
            )
        })?;
        if set.keys.len() > KEYS_MAX {
            return Err(format!("it holds more than {KEYS_MAX} keys"));
        }
        let keys: Vec<_> = set.keys.into_iter().filter_map(Key::of).collect();
        if keys.is_empty() {
            return Err(
                "it holds no public key of RSA, P-256, P-384 or Ed25519 for signatures".to_owned(),
            );
        }
        Ok(Self(keys))
    }

    /// The key that a token names, for its algorithm. One that names none means the only key there is.
    pub(super) fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Option<&Key> {
        let mut fitting = self.0.iter().filter(|key| {
            key.algorithms.contains(&algorithm) && (id.is_none() || key.id.as_deref() == id)
        });
        let first = fitting.next()?;
        (id.is_some() || fitting.next().is_none()).then_some(first)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Key {
    fn of(json: Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(json).ok()?;
        if matches!(&jwk.common.public_key_use, Some(of) if *of != PublicKeyUse::Signature) {
            return None;
        }
        let fitting: &[Algorithm] = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => &RSA,
            AlgorithmParameters::EllipticCurve(key) => match key.curve {
                EllipticCurve::P256 => &[Algorithm::ES256],
                EllipticCurve::P384 => &[Algorithm::ES384],
                _ => return None,
            },
            AlgorithmParameters::OctetKeyPair(key) => match key.curve {
                EllipticCurve::Ed25519 => &[Algorithm::EdDSA],
                _ => return None,
            },
            // A secret, or something unknown.
            _ => return None,
        };
        let algorithms: Vec<_> = match jwk.common.key_algorithm {
            None => fitting.to_vec(),
            Some(only) => {
                let only = Algorithm::try_from(only).ok()?;
                fitting.iter().copied().filter(|one| *one == only).collect()
            }
        };
        let key = match &jwk.algorithm {
            AlgorithmParameters::RSA(key) => {
                let number = |text: &str| URL_SAFE_NO_PAD.decode(text).ok();
                signature::rsa(&number(&key.n)?, &number(&key.e)?)
            }
            _ => DecodingKey::from_jwk(&jwk).ok()?,
        };
        (!algorithms.is_empty()).then_some(Self {
            id: jwk.common.key_id,
            algorithms,
            key,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A P-256 point of the right form.
    fn p256(more: &str) -> String {
        let zero = "A".repeat(43);
        format!(r#"{{"kty":"EC","crv":"P-256","x":"{zero}","y":"{zero}"{more}}}"#)
    }

    fn parsed(keys: &[String]) -> Result<Keys, String> {
        Keys::parse(format!(r#"{{"keys":[{}]}}"#, keys.join(",")).as_bytes())
    }

    #[test]
    fn a_key_is_found_by_its_id_and_algorithm() {
        let keys = parsed(&[p256(r#","kid":"a""#), p256(r#","kid":"b","alg":"ES256""#)]).unwrap();
        assert!(keys.find(Some("a"), Algorithm::ES256).is_some());
        assert!(keys.find(Some("b"), Algorithm::ES256).is_some());
        assert!(keys.find(Some("c"), Algorithm::ES256).is_none());
        assert!(keys.find(Some("a"), Algorithm::RS256).is_none());
        assert!(keys.find(Some("a"), Algorithm::HS256).is_none());
        assert!(
            keys.find(None, Algorithm::ES256).is_none(),
            "two may be meant"
        );
        let keys = parsed(&[p256("")]).unwrap();
        assert!(keys.find(None, Algorithm::ES256).is_some());
    }

    #[test]
    fn secrets_and_keys_for_other_uses_are_passed_over() {
        let secret = r#"{"kty":"oct","k":"c2VjcmV0","kid":"a","alg":"HS256"}"#.to_owned();
        let unknown = r#"{"kty":"new"}"#.to_owned();
        let none = parsed(&[
            secret,
            unknown,
            p256(r#","use":"enc""#),
            p256(r#","alg":"HS256""#),
        ]);
        assert!(none.unwrap_err().contains("no public key"));
        let many = vec![p256(""); KEYS_MAX + 1];
        assert!(parsed(&many).unwrap_err().contains("more than"));
        assert!(
            Keys::parse(b"s3cr3t")
                .unwrap_err()
                .starts_with("it is no JWKS")
        );
    }
}
