//! What a libpq URL says of TLS and of the wanted server, which tokio-postgres does not read: it is
//! taken out of the URL here, and the rest is left to tokio-postgres.
//!
//! Danger: a password that was not percent-encoded can look like parameters. So errors name only words
//! that libpq knows, and never a value.

use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use tokio_postgres::config::{Config, Host, SslMode as Negotiation, TargetSessionAttrs};

/// How much TLS is asked of the server, as libpq's `sslmode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SslMode {
    Disable,
    /// TLS where the server offers it, whoever the server is.
    #[default]
    Prefer,
    /// TLS, whoever the server is; with `sslrootcert` as [`SslMode::VerifyCa`].
    Require,
    /// And the server's certificate is signed by a CA of `sslrootcert`.
    VerifyCa,
    /// And it is made out to the host of the URL.
    VerifyFull,
}

/// Whose signatures are trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Roots {
    /// Those that the operating system trusts.
    System,
    File(PathBuf),
}

/// The part of a libpq URL that is about TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    pub mode: SslMode,
    pub roots: Option<Roots>,
    /// The client's own certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Parameters of libpq that nothing here understands. Others are not named in an error: they could be
/// a piece of a password.
const UNSUPPORTED: [&str; 14] = [
    "gssencmode",
    "gsslib",
    "krbsrvname",
    "passfile",
    "requirepeer",
    "require_auth",
    "service",
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
    "sslcompression",
    "sslcrl",
    "sslcrldir",
    "sslpassword",
    "sslsni",
];

/// Reads a URL.
pub(super) fn parse(url: &str) -> Result<(Config, Tls), String> {
    let (base, query) = url.split_at(query_start(url));
    let mut given = Given::default();
    let mut rest = Vec::new();
    for pair in query.trim_start_matches('?').split('&') {
        if !given.take(pair)? {
            rest.push(pair);
        }
    }
    let left = if rest.concat().is_empty() {
        base.to_owned()
    } else {
        format!("{base}?{}", rest.join("&"))
    };
    let mut config: Config = left
        .parse()
        .map_err(|_| "is not a libpq URL (is the password percent-encoded?)".to_owned())?;
    let wanted = given.target.unwrap_or_else(|| {
        // Of several servers only one takes writes; of one, let it say itself what it refuses.
        match config.get_hosts().len() {
            0 | 1 => TargetSessionAttrs::Any,
            _ => TargetSessionAttrs::ReadWrite,
        }
    });
    config.target_session_attrs(wanted);
    let tls = given.tls()?;
    config.ssl_mode(match tls.mode {
        SslMode::Disable => Negotiation::Disable,
        SslMode::Prefer => Negotiation::Prefer,
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => Negotiation::Require,
    });
    let is_local = |host: &Host| matches!(host, Host::Unix(_));
    if config.get_hosts().iter().all(is_local) {
        // As in libpq: what does not leave the machine is not encrypted.
        config.ssl_mode(Negotiation::Disable);
    }
    Ok((config, tls))
}

/// Where tokio-postgres and libpq see the parameters begin: after the first `@` and host.
fn query_start(url: &str) -> usize {
    let after_user = url.find('@').map_or(0, |at| at + 1);
    let length = url[after_user..].find('?');
    length.map_or(url.len(), |length| after_user + length)
}

/// The parameters that were taken out.
#[derive(Default)]
struct Given {
    mode: Option<SslMode>,
    roots: Option<Roots>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    target: Option<TargetSessionAttrs>,
}

impl Given {
    /// Whether `pair` was for us.
    fn take(&mut self, pair: &str) -> Result<bool, String> {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let decoded = percent_decode_str(value).decode_utf8();
        let value = decoded.map_err(|_| "holds a parameter that is not UTF-8".to_owned())?;
        let path = || Some(PathBuf::from(&*value)).filter(|_| !value.is_empty());
        match name {
            "sslmode" => self.mode = Some(mode(&value)?),
            "sslrootcert" if value == "system" => self.roots = Some(Roots::System),
            "sslrootcert" => self.roots = path().map(Roots::File),
            "sslcert" => self.certificate = path(),
            "sslkey" => self.key = path(),
            "target_session_attrs" => self.target = Some(target(&value)?),
            name if UNSUPPORTED.contains(&name) => {
                return Err(format!("has the parameter {name}, which is not supported"));
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn tls(self) -> Result<Tls, String> {
        let default = match self.roots {
            Some(Roots::System) => SslMode::VerifyFull,
            _ => SslMode::Prefer,
        };
        let mode = match (self.mode.unwrap_or(default), &self.roots) {
            // libpq's own rule, kept for those who rely on it.
            (SslMode::Require, Some(Roots::File(_))) => SslMode::VerifyCa,
            (SslMode::VerifyCa | SslMode::VerifyFull, None) => {
                return Err(
                    "asks for a certificate to be verified and does not say by which CA: \
                     add sslrootcert=/path/to/ca.pem, or sslrootcert=system"
                        .to_owned(),
                );
            }
            // Anybody can get a certificate of a public CA, for a host of their own.
            (weak, Some(Roots::System)) if weak != SslMode::VerifyFull => {
                return Err("has sslrootcert=system, which needs sslmode=verify-full".to_owned());
            }
            (mode, _) => mode,
        };
        let identity = match (self.certificate, self.key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) => return Err("has sslcert without sslkey".to_owned()),
            (None, Some(_)) => return Err("has sslkey without sslcert".to_owned()),
        };
        Ok(Tls {
            mode,
            roots: self.roots,
            identity,
        })
    }
}

fn mode(value: &str) -> Result<SslMode, String> {
    Ok(match value {
        "disable" => SslMode::Disable,
        "prefer" => SslMode::Prefer,
        "require" => SslMode::Require,
        "verify-ca" => SslMode::VerifyCa,
        "verify-full" => SslMode::VerifyFull,
        _ => {
            return Err(
                "has an unknown sslmode: it is disable, prefer, require, verify-ca or verify-full"
                    .to_owned(),
            );
        }
    })
}

fn target(value: &str) -> Result<TargetSessionAttrs, String> {
    Ok(match value {
        "any" => TargetSessionAttrs::Any,
        "read-write" | "primary" => TargetSessionAttrs::ReadWrite,
        "read-only" | "standby" => TargetSessionAttrs::ReadOnly,
        _ => {
            return Err("has an unknown target_session_attrs: it is any, read-write, primary, read-only or standby".to_owned());
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "postgres://ana@db/orders";

    fn tls(parameters: &str) -> Result<Tls, String> {
        parse(&format!("{BASE}?{parameters}")).map(|(_, tls)| tls)
    }

    #[test]
    fn the_modes_mean_what_they_mean_to_libpq() {
        let file = Some(Roots::File("/ca.pem".into()));
        for (parameters, mode, roots) in [
            ("connect_timeout=3", SslMode::Prefer, None),
            ("sslmode=disable", SslMode::Disable, None),
            ("sslmode=require", SslMode::Require, None),
            (
                "sslmode=require&sslrootcert=%2Fca.pem",
                SslMode::VerifyCa,
                file.clone(),
            ),
            (
                "sslrootcert=/ca.pem&sslmode=verify-full",
                SslMode::VerifyFull,
                file,
            ),
            (
                "sslrootcert=system",
                SslMode::VerifyFull,
                Some(Roots::System),
            ),
        ] {
            let read = tls(parameters).unwrap();
            assert_eq!((read.mode, read.roots), (mode, roots), "{parameters}");
        }
    }

    #[test]
    fn what_contradicts_itself_is_refused_by_name() {
        for (parameters, why) in [
            ("sslmode=allow", "unknown sslmode"),
            ("sslmode=verify-full", "add sslrootcert="),
            (
                "sslmode=require&sslrootcert=system",
                "needs sslmode=verify-full",
            ),
            ("sslcert=/c.pem", "sslcert without sslkey"),
            ("sslkey=/k.pem", "sslkey without sslcert"),
            ("sslcrl=/crl.pem", "sslcrl, which is not supported"),
            ("target_session_attrs=fast", "unknown target_session_attrs"),
        ] {
            let refused = tls(parameters).unwrap_err();
            assert!(refused.contains(why), "{parameters}: {refused}");
        }
    }

    #[test]
    fn what_is_not_ours_reaches_tokio_postgres_and_passwords_stay_whole() {
        let url =
            "postgres://ana:a?sslmode=disable&b@h1:1,h2:2/d?sslmode=require&connect_timeout=3";
        let (config, tls) = parse(url).unwrap();
        assert_eq!(config.get_password(), Some(&b"a?sslmode=disable&b"[..]));
        assert_eq!(config.get_connect_timeout().unwrap().as_secs(), 3);
        assert_eq!(tls.mode, SslMode::Require);
        assert_eq!(
            config.get_target_session_attrs(),
            TargetSessionAttrs::ReadWrite
        );
    }

    #[test]
    fn an_unknown_word_is_not_repeated_because_it_may_be_a_password() {
        let refused = parse("postgres://ana@db/d?password=x&hunter2=y").unwrap_err();
        assert!(!refused.contains("hunter2"), "{refused}");
    }
}
