//! SCRAM's channel binding `tls-server-end-point` (RFC 5929): the hash of the server's certificate,
//! by which server and client find out that somebody sits between them.

use ring::digest::{Algorithm, SHA256, SHA384, SHA512, digest};

use crate::tls::der::{SEQUENCE, element};

const OBJECT_IDENTIFIER: u8 = 0x06;
const EXPLICIT_0: u8 = 0xa0;

/// Hashes a certificate with the hash of its own signature. `None` where that has none (Ed25519) or is
/// not known: then there is nothing to bind to.
pub(super) fn server_end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let algorithm = signature_hash(certificate)?;
    Some(digest(algorithm, certificate).as_ref().to_vec())
}

fn signature_hash(certificate: &[u8]) -> Option<&'static Algorithm> {
    // Certificate ::= SEQUENCE { tbsCertificate, signatureAlgorithm SEQUENCE { OID, … }, signature }
    let (body, _) = element(certificate, SEQUENCE)?;
    let (_to_be_signed, after) = element(body, SEQUENCE)?;
    let (algorithm, _) = element(after, SEQUENCE)?;
    let (oid, parameters) = element(algorithm, OBJECT_IDENTIFIER)?;
    match oid {
        // 1.2.840.113549.1.1.n: RSA with MD5 and SHA-1 (raised to SHA-256 by the RFC), SHA-256, -384, -512
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, n] => match n {
            4 | 5 | 11 => Some(&SHA256),
            12 => Some(&SHA384),
            13 => Some(&SHA512),
            // RSASSA-PSS names its hash in [0] of its parameters; left out, it is SHA-1.
            10 => {
                let (parameters, _) = element(parameters, SEQUENCE)?;
                match element(parameters, EXPLICIT_0) {
                    None => Some(&SHA256),
                    Some((hash, _)) => {
                        let (hash, _) = element(hash, SEQUENCE)?;
                        plain_hash(element(hash, OBJECT_IDENTIFIER)?.0)
                    }
                }
            }
            _ => None,
        },
        // 1.2.840.10045.4.1: ECDSA with SHA-1; 4.3.n: with SHA-256, -384, -512
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 1] => Some(&SHA256),
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, n] => match n {
            2 => Some(&SHA256),
            3 => Some(&SHA384),
            4 => Some(&SHA512),
            _ => None,
        },
        _ => None,
    }
}

/// 2.16.840.1.101.3.4.2.n, and 1.3.14.3.2.26, which is SHA-1.
fn plain_hash(oid: &[u8]) -> Option<&'static Algorithm> {
    match oid {
        [0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1] | [0x2b, 0x0e, 3, 2, 0x1a] => Some(&SHA256),
        [0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 2] => Some(&SHA384),
        [0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 3] => Some(&SHA512),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn der(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = u16::try_from(content.len()).unwrap().to_be_bytes();
        [&[tag, 0x82][..], &length, content].concat()
    }

    fn certificate(oid: &[u8], parameters: &[u8]) -> Vec<u8> {
        let algorithm = [der(OBJECT_IDENTIFIER, oid), parameters.to_vec()].concat();
        let body = [der(SEQUENCE, b"tbs"), der(SEQUENCE, &algorithm)].concat();
        der(SEQUENCE, &body)
    }

    #[test]
    fn the_hash_is_that_of_the_signature_and_never_weaker_than_sha256() {
        const RSA: [u8; 8] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1];
        const EC: [u8; 6] = [0x2a, 0x86, 0x48, 0xce, 0x3d, 4];
        for (oid, bytes) in [
            ([&RSA[..], &[4]].concat(), Some(32)),
            ([&RSA[..], &[5]].concat(), Some(32)),
            ([&RSA[..], &[11]].concat(), Some(32)),
            ([&RSA[..], &[13]].concat(), Some(64)),
            ([&EC[..], &[3, 2]].concat(), Some(32)),
            ([&EC[..], &[3, 3]].concat(), Some(48)),
            // Ed25519
            (vec![0x2b, 0x65, 0x70], None),
        ] {
            let hash = server_end_point(&certificate(&oid, &[]));
            assert_eq!(hash.map(|hash| hash.len()), bytes, "{oid:x?}");
        }
    }

    #[test]
    fn the_hash_of_rsa_pss_stands_in_its_parameters() {
        let pss = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 10];
        let sha512 = der(OBJECT_IDENTIFIER, &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 3]);
        let explicit = der(SEQUENCE, &der(EXPLICIT_0, &der(SEQUENCE, &sha512)));
        let hash = server_end_point(&certificate(&pss, &explicit));
        assert_eq!(hash.map(|hash| hash.len()), Some(64));
        let left_out = server_end_point(&certificate(&pss, &der(SEQUENCE, &[])));
        assert_eq!(left_out.map(|hash| hash.len()), Some(32));
    }

    #[test]
    fn what_is_cut_short_is_no_certificate() {
        let whole = certificate(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2], &[]);
        for end in 0..whole.len() {
            assert_eq!(server_end_point(&whole[..end]), None);
        }
    }
}
