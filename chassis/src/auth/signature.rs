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

#[cfg(test)]
mod tests {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

    use super::*;

    // Made by OpenSSL (`openssl dgst -sha256 -sign`), the second with PSS and a salt of 32 bytes.
    const MESSAGE: &[u8] = b"header.claims";
    const MODULUS: &str = "\
        6KjvY2xDgYEqAsM9O3apXH-unXo1tMNBOqfFUH0FovSXOrK1V3pwwqJ0tF7362D0WHSDCMge2UmCyLqNRHSOuwXzXnIy5ABB\
        ri5B5N6pYcMt5Fxpr0h4dpWEreYSR1_kHO5xBemmq542uupsDrDcC4DFcaR_4OVy7gonpJENSfe4w90n-U68skl8oCLhO1zR\
        dqBEJBVmzP5jfQeaMi6N1G_CaRPTdXAncZdMqrA4PgjjCLMf9hAz7VUDeZ1Npl0PH6bIoC_MjMEVfGut_9TXueTqYyebcb-5\
        BRyLBDllr9rMJd-Uwl97YCl3A95soaeCkOjsS_3qgoYeRVRESqsimQ";
    const PKCS1: &str = "\
        sQM3YIjBI_FLROml4r0bpebF9iC1DLm72KhM7UDMqc8wA8ONZU4aqRfu-qasgfk3CygzofJOBIsEoJ_PyxyYQAkG_murpU8p\
        AuaVFpEaT2rTrLEMPOkMtmRfKQrvjYbCOakB1odu2-VOys2jgOrVFybZQyYMr6tvH3oI6ab7qkEoECxmM0OGMK_qq0bUTaP7\
        PG0YJLydqEa7fanGwA60bnrA5UDqSF3zrY17bSVpdx4xzTMRj4gQxT7TDTCG6bbNsBJnlr3iQihpXmVUutNgmWqQLeZEDj4N\
        T4eE_bW7Xfs8ij--JcZeROdT7Drq0RpY2rSldYZmqI1SXeFjmarPPw";
    const PSS: &str = "\
        a9Q2NYpTFPK6oQl2mk6bjIyMA0yFWCVCsrVE5XuCIJig5H_z2LYCIiHsEe_o37t4421456BtBZ7ndnYUfzaRYAky5TV9r3QH\
        K1Vc4RXXQS9bYfB5Hrzz6oI0fH06AqmlBmmt6C7scDdTl_xOwo3JMd6kOWFWN_GzwTZe1CJzXtMECoZPIoWqqS01y0lPy1WM\
        e6PgijM8p2TRgRwzIDKdMH0pOJ3oaqNHrATPCsi4CsVg2ECx4gO_nUVIL1s0V7sRLxSKxvdhG7Zr7RX3sQsGhJ7I9l5CjJgN\
        K4giZ8_npmQksq0pmNedk-ekYicm_Mwx16Fh4T8rP90vrNqOKeaTyw";

    fn bytes(text: &str) -> Vec<u8> {
        URL_SAFE_NO_PAD.decode(text).unwrap()
    }

    #[test]
    fn an_rsa_key_verifies_what_openssl_signed() {
        // A number may come with a leading zero, or without.
        let padded = [vec![0], bytes(MODULUS)].concat();
        for modulus in [bytes(MODULUS), padded] {
            let key = rsa(&modulus, &[1, 0, 1]);
            for (algorithm, signature) in [(Algorithm::RS256, PKCS1), (Algorithm::PS256, PSS)] {
                let verifier = verifier(&algorithm, &key).unwrap();
                verifier.verify(MESSAGE, &bytes(signature)).unwrap();
                assert!(
                    verifier
                        .verify(b"header.claimz", &bytes(signature))
                        .is_err()
                );
                for other in [PKCS1, PSS].iter().filter(|other| **other != signature) {
                    assert!(verifier.verify(MESSAGE, &bytes(other)).is_err());
                }
            }
        }
    }

    #[test]
    fn a_key_is_of_use_for_its_own_kind_of_algorithm_alone() {
        let key = rsa(&bytes(MODULUS), &[1, 0, 1]);
        for algorithm in [Algorithm::ES256, Algorithm::EdDSA, Algorithm::HS256] {
            assert!(verifier(&algorithm, &key).is_err(), "{algorithm:?}");
        }
    }
}
