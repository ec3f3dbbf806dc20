//! Tokens that are no good, each for one reason.

use harness::{Issuer, Signer, Token};
use serde_json::{Value, json};

/// What a token is, itself, and words of its refusal.
type Bad = (&'static str, String, &'static str);

/// Tokens that are no good, each with words of its refusal.
pub(super) fn tokens(issuer: &Issuer) -> Vec<Bad> {
    let mut all = by_signature(issuer);
    all.extend(by_claims(issuer));
    all
}

fn by_claims(issuer: &Issuer) -> Vec<Bad> {
    let good = || issuer.token("operator", "somebody");
    let now = good().claims["iat"].as_i64().expect("a time");
    let signed = |token: Token| issuer.signed(&token);
    vec![
        (
            "expired",
            signed(good().claim("exp", json!(now - 60))),
            "has expired",
        ),
        (
            "no exp",
            signed(good().claim("exp", Value::Null)),
            "lacks one of the claims",
        ),
        (
            "exp as text",
            signed(good().claim("exp", json!("2099"))),
            "lacks one of the claims",
        ),
        (
            "not yet valid",
            signed(good().claim("nbf", json!(now + 600))),
            "not valid yet",
        ),
        (
            "nbf as text",
            signed(good().claim("nbf", json!("now"))),
            "lacks one of the claims",
        ),
        (
            "wrong audience",
            signed(good().claim("aud", json!(["other"]))),
            "another audience",
        ),
        (
            "no audience",
            signed(good().claim("aud", Value::Null)),
            "lacks one of the claims",
        ),
        (
            "wrong issuer",
            signed(good().claim("iss", json!("https://evil.example"))),
            "another issuer",
        ),
        (
            "no issuer",
            signed(good().claim("iss", Value::Null)),
            "lacks one of the claims",
        ),
    ]
}

fn by_signature(issuer: &Issuer) -> Vec<Bad> {
    let good = || issuer.token("operator", "somebody");
    let signed = |token: Token| issuer.signed(&token);
    let stranger = Signer::new("ES256").expect("a key");
    let spoilt = issuer.operator().replace('.', ".A");
    let unsigned = |token: Token| format!("{}.", token.unsigned());
    vec![
        ("no JWT", "s3cr3t".to_owned(), "not a signed JWT"),
        ("two parts", "a.b".to_owned(), "not a signed JWT"),
        ("spoilt", spoilt, "signature is wrong"),
        (
            "another key of the name",
            stranger.sign(&good()),
            "signature is wrong",
        ),
        (
            "alg none",
            unsigned(good().head("alg", json!("none"))),
            "not a signed JWT",
        ),
        (
            "alg none, signed",
            signed(good().head("alg", json!("none"))),
            "not a signed JWT",
        ),
        ("no signature", unsigned(good()), "signature is wrong"),
        (
            "HS256 by the public key",
            good()
                .head("alg", json!("HS256"))
                .with_hmac(issuer.signer().public()),
            "unknown key, or in a way",
        ),
        (
            "ES256's key for RS256",
            signed(good().head("alg", json!("RS256"))),
            "unknown key, or in a way",
        ),
        (
            "unknown kid",
            signed(good().head("kid", json!("other"))),
            "unknown key",
        ),
        (
            "critical extension",
            signed(good().head("crit", json!(["b64"]))),
            "not a signed JWT",
        ),
        (
            "too large",
            signed(good().claim("x", json!("x".repeat(9_000)))),
            "too large",
        ),
    ]
}
