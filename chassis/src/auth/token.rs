//! From a token (RFC 7519, signed after RFC 7515) to its claims, if it is good.

use std::sync::Arc;

use jsonwebtoken::{
    Algorithm, Validation, decode, decode_header,
    errors::{Error, ErrorKind},
};
use serde::Deserialize;

use super::{Refused, keyring::Keyring, signature};

/// Larger ones are not looked at (I12). Identity providers stay below 8 KiB, which is what proxies carry.
const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// How far the issuer's clock may be from ours, in seconds.
const LEEWAY_SECONDS: u64 = 30;

/// What is read of a token.
#[derive(Debug, Deserialize)]
pub(super) struct Claims {
    /// Names, separated by blanks (RFC 8693).
    #[serde(default)]
    pub(super) scope: String,
    pub(super) sub: Option<String>,
    /// The customer, where `sub` is something else, such as a login.
    pub(super) customer_id: Option<String>,
}

#[derive(Debug)]
pub(super) struct Verifier {
    keyring: Arc<Keyring>,
    rules: Validation,
}

impl Verifier {
    pub(super) fn new(keyring: Arc<Keyring>, issuer: &str, audience: &str) -> Self {
        signature::install();
        // Each token is held to the one algorithm that its key allows.
        let mut rules = Validation::new(Algorithm::ES256);
        rules.set_required_spec_claims(&["exp", "iss", "aud"]);
        rules.set_issuer(&[issuer]);
        rules.set_audience(&[audience]);
        rules.validate_nbf = true;
        rules.leeway = LEEWAY_SECONDS;
        Self { keyring, rules }
    }

    pub(super) async fn verify(&self, token: &str) -> Result<Claims, Refused> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Refused::TooLarge);
        }
        let header = decode_header(token).map_err(|_| Refused::Malformed)?;
        // Extensions that must be understood: none is (RFC 7515, 4.1.11).
        if header.crit.is_some() {
            return Err(Refused::Malformed);
        }
        let named = header.kid.as_deref();
        let keys = self.keyring.with(named, header.alg).await;
        let key = keys.as_ref().and_then(|keys| keys.find(named, header.alg));
        let key = key.ok_or(Refused::UnknownKey)?;
        let mut rules = self.rules.clone();
        rules.algorithms = vec![header.alg];
        let read = decode::<Claims>(token, &key.key, &rules);
        read.map(|read| read.claims)
            .map_err(|error| refused(&error))
    }
}

/// Without the error's own words: they may quote the token.
fn refused(error: &Error) -> Refused {
    match error.kind() {
        ErrorKind::ExpiredSignature => Refused::Expired,
        ErrorKind::ImmatureSignature => Refused::NotYetValid,
        ErrorKind::InvalidAudience => Refused::Audience,
        ErrorKind::InvalidIssuer => Refused::Issuer,
        ErrorKind::MissingRequiredClaim(_) | ErrorKind::InvalidClaimFormat(_) => Refused::Claims,
        ErrorKind::InvalidSignature => Refused::Signature,
        _ => Refused::Malformed,
    }
}
