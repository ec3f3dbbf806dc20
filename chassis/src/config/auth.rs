//! Who may call: bearer tokens, and whose.

use std::{fmt, path::PathBuf};

use clap::{Args, ValueEnum};
use hyper::Uri;

use super::{Value, value};
use crate::tls::expiry::Watched;

/// How callers show who they are. What is set to nothing is not set.
#[derive(Args, Clone, Debug)]
pub struct Auth {
    /// `jwt` asks every request, over gRPC and NATS, for a bearer token with the scope `customer` or
    /// `operator`; `off` lets everybody do everything, which the log says at start
    #[arg(id = "AUTH", long = "auth", env = "AUTH", default_value = "jwt",
          value_parser = Value::new(mode, "jwt"))]
    pub mode: AuthMode,

    /// The public keys that tokens are signed with, as a JWKS: a file, or an `https://` (or `http://`) URL,
    /// which is asked again every 5 minutes and when a token names another key; required with `AUTH=jwt`
    #[arg(id = "AUTH_JWKS", long = "auth-jwks", env = "AUTH_JWKS", hide_env_values = true,
          value_parser = Value::secret(jwks, "https://id.example.com/.well-known/jwks.json"))]
    pub jwks: Option<Jwks>,

    /// The CA's certificate by which the URL of `AUTH_JWKS` is trusted, as a PEM file; without it, those of
    /// the operating system
    #[arg(id = "AUTH_JWKS_CA", long = "auth-jwks-ca", env = "AUTH_JWKS_CA",
          value_parser = value::file("/etc/auth/ca.crt"))]
    pub jwks_ca: Option<PathBuf>,

    /// Who signs the tokens: their claim `iss`; required with `AUTH=jwt`
    #[arg(id = "AUTH_ISSUER", long = "auth-issuer", env = "AUTH_ISSUER",
          value_parser = Value::new(text, "https://id.example.com/"))]
    pub issuer: Option<String>,

    /// For whom the tokens are meant: among their claim `aud`; required with `AUTH=jwt`
    #[arg(id = "AUTH_AUDIENCE", long = "auth-audience", env = "AUTH_AUDIENCE",
          value_parser = Value::new(text, "shop"))]
    pub audience: Option<String>,
}

impl Auth {
    /// The file of certificates by which the URL of the keys is trusted.
    pub fn certificates(&self) -> Vec<Watched> {
        Watched::trusted("AUTH_JWKS_CA", &self.jwks_ca)
            .into_iter()
            .collect()
    }
}

/// Whether callers are asked who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AuthMode {
    Jwt,
    Off,
}

/// Where the keys are.
#[derive(Clone, PartialEq, Eq)]
pub enum Jwks {
    /// Nowhere: set to nothing.
    Unset,
    File(PathBuf),
    Url(Uri),
}

/// Without the query, in which a key may stand.
impl fmt::Display for Jwks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unset => Ok(()),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Url(url) => {
                let authority = url.authority().map_or("", |authority| authority.as_str());
                let scheme = url.scheme_str().unwrap_or_default();
                write!(f, "{scheme}://{authority}{}", url.path())
            }
        }
    }
}

impl fmt::Debug for Jwks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

fn mode(given: &str) -> Result<AuthMode, String> {
    AuthMode::from_str(given, true).map_err(|_| "must be jwt or off".to_owned())
}

fn text(given: &str) -> Result<String, String> {
    Ok(given.trim().to_owned())
}

fn jwks(given: &str) -> Result<Jwks, String> {
    if given.is_empty() {
        return Ok(Jwks::Unset);
    }
    if !given.contains("://") {
        return Ok(Jwks::File(given.into()));
    }
    let why = "must be a file, or a URL that begins with https:// or http://";
    let url: Uri = given.parse().map_err(|_| why.to_owned())?;
    let scheme = url.scheme_str();
    if !matches!(scheme, Some("https" | "http")) || url.host().is_none_or(str::is_empty) {
        return Err(why.to_owned());
    }
    if url
        .authority()
        .is_some_and(|all| all.as_str().contains('@'))
    {
        return Err("must hold no user and no password".to_owned());
    }
    Ok(Jwks::Url(url))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_in_a_file_or_at_a_url() {
        assert_eq!(jwks(""), Ok(Jwks::Unset));
        assert_eq!(jwks("/a/keys.json"), Ok(Jwks::File("/a/keys.json".into())));
        let url = jwks("https://id.example.com/keys?apikey=s3cr3t").expect("it is a URL");
        assert_eq!(
            format!("{url} {url:?}"),
            "https://id.example.com/keys https://id.example.com/keys"
        );
        for wrong in [
            "ftp://a/b",
            "https://",
            "https://user:s3cr3t@a/b",
            "file:///a",
        ] {
            let why = jwks(wrong).expect_err(wrong);
            assert!(!why.contains("s3cr3t"), "{why}");
        }
    }
}
