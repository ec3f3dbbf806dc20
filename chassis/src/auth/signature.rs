//! The signatures of tokens, by ring, the one cryptography of this tree. Nothing is signed here, and nothing
//! is verified by a secret: HMAC is not there to be confused with.

use ::ring::signature::{self as by, UnparsedPublicKey, VerificationAlgorithm};
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey,
    crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils},
    errors::{ErrorKind, Result},
};
use signature::{Error, Verifier};

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: signer,
    verifier_factory: verifier,
    key_utils: KeyUtils::new_unimplemented(),
};

/// To be called before a token is read; more than once does no harm.
pub(super) fn install() {
    // An error says that one is there already: ours.
    let _ = PROVIDER.install_default();
}

fn signer(_: &Algorithm, _: &EncodingKey) -> Result<Box<dyn JwtSigner>> {
    Err(ErrorKind::UnsupportedAlgorithm.into())
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>> {
    if key.family() != algorithm.family() {
        return Err(ErrorKind::InvalidAlgorithm.into());
    }
    let rule: &dyn VerificationAlgorithm = match algorithm {
        Algorithm::RS256 => &by::RSA_PKCS1_2048_8192_SHA256,
        Algorithm::RS384 => &by::RSA_PKCS1_2048_8192_SHA384,
        Algorithm::RS512 => &by::RSA_PKCS1_2048_8192_SHA512,
        Algorithm::PS256 => &by::RSA_PSS_2048_8192_SHA256,
        Algorithm::PS384 => &by::RSA_PSS_2048_8192_SHA384,
        Algorithm::PS512 => &by::RSA_PSS_2048_8192_SHA512,
        Algorithm::ES256 => &by::ECDSA_P256_SHA256_FIXED,
        Algorithm::ES384 => &by::ECDSA_P384_SHA384_FIXED,
        Algorithm::EdDSA => &by::ED25519,
        // HMAC among them.
        _ => return Err(ErrorKind::UnsupportedAlgorithm.into()),
    };
    let key = key.try_get_as_bytes()?.to_vec();
    Ok(Box::new(Ring {
        algorithm: *algorithm,
        key: UnparsedPublicKey::new(rule, key),
    }))
}

struct Ring {
    algorithm: Algorithm,
    key: UnparsedPublicKey<Vec<u8>>,
}

impl Verifier<Vec<u8>> for Ring {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), Error> {
        let verified = self.key.verify(message, signature);
        verified.map_err(|_| Error::new())
    }
}

impl JwtVerifier for Ring {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

/// An RSA key as ring takes it: the `RSAPublicKey` of PKCS #1, in DER.
pub(super) fn rsa(modulus: &[u8], exponent: &[u8]) -> DecodingKey {
    const INTEGER: u8 = 0x02;
    const SEQUENCE: u8 = 0x30;
    let parts = [modulus, exponent].map(|number| {
        let leading = number.iter().take_while(|byte| **byte == 0).count();
        let mut content = number.get(leading..).unwrap_or_default().to_vec();
        // A first bit that is set would make it negative.
        if content.first().is_none_or(|first| first & 0x80 != 0) {
            content.insert(0, 0);
        }
        der(INTEGER, &content)
    });
    DecodingKey::from_rsa_der(&der(SEQUENCE, &parts.concat()))
}

fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let mut all = vec![tag];
    match content.len() {
        short @ 0..0x80 => all.push(short as u8),
        _ => {
            let leading = length.iter().take_while(|byte| **byte == 0).count();
            let length = length.get(leading..).unwrap_or_default();
            all.push(0x80 | length.len() as u8);
            all.extend(length);
        }
    }
    all.extend(content);
    all
}
