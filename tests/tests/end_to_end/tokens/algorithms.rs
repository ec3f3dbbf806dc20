//! How tokens are signed: by each algorithm that is taken, from end to end, and by no other.

use harness::{Algorithm, Issuer, Signer, System, jwks};
use serde_json::{Value, json};

use super::{asked, issuer, with};
use crate::client::Transport;
use crate::shared::on_system_with_tokens;

const UNKNOWN: &str = "unknown key, or in a way";

async fn is_taken(system: &System, what: &str, token: &str) {
    for transport in [Transport::Grpc, Transport::NatsJson] {
        let (code, message) = asked(&with(system, transport, token).await).await;
        assert_eq!(code, "NOT_FOUND", "{what} over {transport:?}: {message}");
    }
}

async fn is_refused(system: &System, what: &str, token: &str, words: &str) {
    for transport in [Transport::Grpc, Transport::NatsJson] {
        let (code, message) = asked(&with(system, transport, token).await).await;
        assert_eq!(
            code, "UNAUTHENTICATED",
            "{what} over {transport:?}: {message}"
        );
        assert!(
            message.contains(words),
            "{what} over {transport:?}: {message}"
        );
    }
}

fn signed(issuer: &Issuer, signer: &Signer, algorithm: &str) -> String {
    let token = issuer.token("operator", "somebody").by(signer);
    signer.sign(&token.head("alg", json!(algorithm)))
}

#[test]
fn each_algorithm_is_taken_with_a_key_that_is_for_it() {
    on_system_with_tokens(async |system| {
        let issuer = issuer(system);
        assert_eq!(issuer.signers().len(), 9);
        for signer in issuer.signers() {
            let name = signer.algorithm().name();
            let good = signed(issuer, signer, &name);
            is_taken(system, &name, &good).await;
            // Another's claims under this signature.
            let (head, signature) = (good.split('.').next(), good.rsplit('.').next());
            let other = issuer.token("operator", "other").by(signer).unsigned();
            let claims = other.split('.').nth(1);
            let [head, claims, signature] = [head, claims, signature].map(Option::unwrap);
            let swapped = format!("{head}.{claims}.{signature}");
            is_refused(system, &name, &swapped, "signature is wrong").await;
        }
    });
}

#[test]
fn a_key_is_taken_for_its_own_algorithm_alone() {
    on_system_with_tokens(async |system| {
        let issuer = issuer(system);
        for signer in issuer.signers() {
            let name = signer.algorithm().name();
            let others = Algorithm::ALL.map(Algorithm::name);
            let others = others.iter().filter(|other| **other != name);
            for other in others
                .map(String::as_str)
                .chain(["HS256", "HS384", "HS512"])
            {
                let what = format!("{name}'s key for {other}");
                is_refused(system, &what, &signed(issuer, signer, other), UNKNOWN).await;
            }
            // The signature of another key of the same kind: RSA by another padding or digest.
            for other in issuer.signers() {
                if other.algorithm() != signer.algorithm() {
                    let token = issuer.token("operator", "somebody").by(signer);
                    let what = format!("{name} signed by {:?}", other.algorithm());
                    is_refused(system, &what, &other.sign(&token), "signature is wrong").await;
                }
            }
        }
    });
}

#[test]
fn what_is_public_is_no_secret_of_an_hmac() {
    on_system_with_tokens(async |system| {
        let issuer = issuer(system);
        for signer in issuer.signers() {
            let name = signer.algorithm().name();
            let set = jwks(&[signer]);
            let key = signer.jwk().to_string();
            let secrets: [&[u8]; 4] = [signer.public(), set.as_bytes(), key.as_bytes(), b""];
            for secret in secrets {
                let token = issuer.token("operator", "somebody").by(signer);
                for (what, algorithm) in [("HS256", "HS256"), ("an HMAC as the key's own", &name)] {
                    let forged = token
                        .clone()
                        .head("alg", json!(algorithm))
                        .with_hmac(secret);
                    let words = if algorithm == "HS256" {
                        UNKNOWN
                    } else {
                        "signature is wrong"
                    };
                    is_refused(system, &format!("{what}, by {name}'s key"), &forged, words).await;
                    let unnamed = token.clone().head("kid", Value::Null);
                    let unnamed = unnamed.head("alg", json!("HS256")).with_hmac(secret);
                    is_refused(system, what, &unnamed, UNKNOWN).await;
                }
            }
        }
    });
}

#[test]
fn a_token_without_a_kid_means_the_only_key_of_its_algorithm() {
    on_system_with_tokens(async |system| {
        let issuer = issuer(system);
        for signer in issuer.signers() {
            let token = issuer.token("operator", "somebody").by(signer);
            let unnamed = signer.sign(&token.head("kid", Value::Null));
            is_taken(system, &signer.algorithm().name(), &unnamed).await;
            let stranger = Signer::of("x", Algorithm::ES256).expect("a key");
            let token = issuer.token("operator", "somebody").by(&stranger);
            let strangers = stranger.sign(&token.head("kid", Value::Null));
            is_refused(system, "a stranger's", &strangers, "signature is wrong").await;
        }
    });
}

#[test]
fn clocks_may_differ_by_half_a_minute() {
    on_system_with_tokens(async |system| {
        let issuer = issuer(system);
        let good = || issuer.token("operator", "somebody");
        let now = good().claims["iat"].as_i64().expect("a time");
        for (what, token) in [
            ("just expired", good().claim("exp", json!(now - 15))),
            ("about to be valid", good().claim("nbf", json!(now + 15))),
            ("for several", good().claim("aud", json!(["other", "shop"]))),
        ] {
            is_taken(system, what, &issuer.signed(&token)).await;
        }
    });
}
