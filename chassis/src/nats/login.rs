//! Who the process is to NATS. Files are read anew for each connection: credentials that are renewed, as
//! short-lived ones are, need no restart.
//!
//! Danger: errors here name files and settings, and never what they hold.

use std::{
    fs,
    path::{Path, PathBuf},
};

use async_nats::Auth;
use nkeys::KeyPair;

use crate::config::{self, Secret, set as path};

/// A way to log in.
#[derive(Clone, Debug)]
pub(super) enum Login {
    /// Whatever the URL says.
    Anonymous,
    Creds(PathBuf),
    Nkey(PathBuf),
    Password {
        user: String,
        password: Word,
    },
    Token(Word),
}

/// A secret, or where it stands.
#[derive(Clone, Debug)]
pub(super) enum Word {
    Given(Secret),
    File(PathBuf),
}

/// What cannot work until somebody mends it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Unusable(String);

impl Login {
    /// The one way that is set.
    pub(super) fn of(config: &config::Nats) -> Result<Self, Unusable> {
        let mut ways = Vec::new();
        if let Some(file) = path(&config.creds) {
            ways.push(Self::Creds(file));
        }
        if let Some(file) = path(&config.nkey) {
            ways.push(Self::Nkey(file));
        }
        let user = config.user.clone().filter(|user| !user.is_empty());
        let password = word(
            &config.password,
            &config.password_file,
            "NATS_PASSWORD and NATS_PASSWORD_FILE",
        )?;
        match (user, password) {
            (Some(user), Some(password)) => ways.push(Self::Password { user, password }),
            (None, None) => {}
            (Some(_), None) => {
                return unusable("NATS_USER is set without NATS_PASSWORD or NATS_PASSWORD_FILE");
            }
            (None, Some(_)) => return unusable("a NATS password is set without NATS_USER"),
        }
        let token = word(
            &config.token,
            &config.token_file,
            "NATS_TOKEN and NATS_TOKEN_FILE",
        )?;
        ways.extend(token.map(Self::Token));
        let servers = config.url.servers().unwrap_or_default();
        let in_url = servers.iter().any(|server| server.username().is_some());
        match (ways.len(), in_url) {
            (0, _) => Ok(Self::Anonymous),
            (1, false) => Ok(ways.remove(0)),
            _ => {
                let mut names: Vec<_> = ways.iter().map(Self::settings).collect();
                names.extend(in_url.then_some("a user or token in NATS_URL"));
                unusable(format!(
                    "NATS is to be logged in to in several ways: {}; keep one",
                    names.join(", ")
                ))
            }
        }
    }

    /// The settings that it stands in.
    pub(super) fn settings(&self) -> &'static str {
        match self {
            Self::Anonymous => "NATS_CREDS, NATS_NKEY, NATS_USER or NATS_TOKEN",
            Self::Creds(_) => "NATS_CREDS",
            Self::Nkey(_) => "NATS_NKEY",
            Self::Password { .. } => "NATS_USER and its password",
            Self::Token(Word::Given(_)) => "NATS_TOKEN",
            Self::Token(Word::File(_)) => "NATS_TOKEN_FILE",
        }
    }

    /// What to answer to a server that has sent this nonce.
    pub(super) fn answer(&self, nonce: &[u8]) -> Result<Auth, Unusable> {
        let mut auth = Auth::new();
        match self {
            Self::Anonymous => {}
            Self::Creds(file) => {
                let text = read("NATS_CREDS", file)?;
                let mut blocks = blocks(&text);
                let (Some(jwt), Some(seed)) = (blocks.next(), blocks.next()) else {
                    return unusable(format!(
                        "NATS_CREDS: {} is not a credentials file: it lacks a JWT or a seed",
                        file.display()
                    ));
                };
                let key = key("NATS_CREDS", file, seed)?;
                auth.jwt = Some(jwt.to_owned());
                auth.signature = Some(sign(&key, nonce)?);
            }
            Self::Nkey(file) => {
                let text = read("NATS_NKEY", file)?;
                let lines = text.lines().map(str::trim);
                let seed = lines.into_iter().find(|line| line.starts_with('S'));
                let key = key("NATS_NKEY", file, seed.unwrap_or_default())?;
                auth.nkey = Some(key.public_key());
                auth.signature = Some(sign(&key, nonce)?);
            }
            Self::Password { user, password } => {
                auth.username = Some(user.clone());
                auth.password = Some(password.read("NATS_PASSWORD_FILE")?);
            }
            Self::Token(token) => auth.token = Some(token.read("NATS_TOKEN_FILE")?),
        }
        Ok(auth)
    }
}

impl Word {
    fn read(&self, setting: &str) -> Result<String, Unusable> {
        match self {
            Self::Given(secret) => Ok(secret.expose().to_owned()),
            // Editors and shells end a file with a line break, which is no part of the secret.
            Self::File(file) => Ok(read(setting, file)?
                .trim_end_matches(['\r', '\n'])
                .to_owned()),
        }
    }
}

fn word(
    given: &Option<Secret>,
    file: &Option<PathBuf>,
    names: &str,
) -> Result<Option<Word>, Unusable> {
    let given = given.clone().filter(|secret| !secret.expose().is_empty());
    match (given, path(file)) {
        (Some(_), Some(_)) => unusable(format!("{names} are both set; keep one")),
        (Some(secret), None) => Ok(Some(Word::Given(secret))),
        (None, file) => Ok(file.map(Word::File)),
    }
}

fn read(setting: &str, file: &Path) -> Result<String, Unusable> {
    let text = fs::read_to_string(file);
    text.map_err(|error| {
        Unusable(format!(
            "{setting}: cannot read {}: {error}",
            file.display()
        ))
    })
}

/// What stands between the lines of dashes of a credentials file: the JWT, then the seed.
fn blocks(text: &str) -> impl Iterator<Item = &str> {
    let mut lines = text.lines().map(str::trim);
    std::iter::from_fn(move || {
        lines.find(|line| line.starts_with("---") && line.contains("BEGIN"))?;
        lines.find(|line| !line.is_empty() && !line.starts_with("---"))
    })
}

fn key(setting: &str, file: &Path, seed: &str) -> Result<KeyPair, Unusable> {
    KeyPair::from_seed(seed).map_err(|_| {
        Unusable(format!(
            "{setting}: {} holds no seed of a user's nkey (it begins with SU)",
            file.display()
        ))
    })
}

fn sign(key: &KeyPair, nonce: &[u8]) -> Result<Vec<u8>, Unusable> {
    key.sign(nonce)
        .map_err(|error| Unusable(format!("cannot sign for NATS: {error}")))
}

fn unusable<T>(why: impl Into<String>) -> Result<T, Unusable> {
    Err(Unusable(why.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(url: &str) -> config::Nats {
        url.parse::<config::NatsUrl>().unwrap().into()
    }

    #[test]
    fn two_ways_to_log_in_contradict_each_other() {
        let mut both = config("nats://n1");
        both.creds = Some("/user.creds".into());
        both.token = Some("hunter2".to_owned().into());
        let refused = Login::of(&both).unwrap_err().to_string();
        assert!(
            refused.contains("NATS_CREDS, NATS_TOKEN; keep one"),
            "{refused}"
        );

        let mut url = config("nats://ana:hunter2@n1");
        url.nkey = Some("/user.nk".into());
        let refused = Login::of(&url).unwrap_err().to_string();
        assert!(refused.contains("in NATS_URL; keep one"), "{refused}");
        assert!(!refused.contains("hunter2"), "{refused}");
    }

    #[test]
    fn halves_of_a_login_are_refused() {
        let mut half = config("n1");
        half.user = Some("ana".to_owned());
        let refused = Login::of(&half).unwrap_err().to_string();
        assert!(refused.contains("without NATS_PASSWORD"), "{refused}");
        half.password = Some("hunter2".to_owned().into());
        assert!(matches!(Login::of(&half), Ok(Login::Password { .. })));
        half.password_file = Some("/password".into());
        let refused = Login::of(&half).unwrap_err().to_string();
        assert!(refused.contains("are both set"), "{refused}");
        half.user = None;
        half.password = None;
        let refused = Login::of(&half).unwrap_err().to_string();
        assert!(refused.contains("without NATS_USER"), "{refused}");
    }

    #[test]
    fn what_is_set_to_nothing_is_not_set() {
        let mut empty = config("n1");
        empty.creds = Some(PathBuf::new());
        empty.user = Some(String::new());
        empty.password = Some(String::new().into());
        empty.token = Some(String::new().into());
        assert!(matches!(Login::of(&empty), Ok(Login::Anonymous)));
    }

    #[test]
    fn no_form_of_a_login_prints_its_secret() {
        let mut given = config("n1");
        given.user = Some("ana".to_owned());
        given.password = Some("hunter2".to_owned().into());
        assert!(!format!("{given:?}").contains("hunter2"));
        assert!(!format!("{:?}", Login::of(&given)).contains("hunter2"));
    }
}
