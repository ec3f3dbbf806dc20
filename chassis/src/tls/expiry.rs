//! Until when the certificates are good that a process shows and trusts: a metric, and a warning in the log
//! every day, soon enough for somebody to renew them.
//!
//! Files are looked at again and again, as connections do: what was renewed is told of no more.

use std::{
    collections::HashMap,
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use metrics::{Unit, describe_gauge, gauge};
use rustls::pki_types::CertificateDer;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{
    certificates,
    der::{self, SEQUENCE, element},
};
use crate::config::{libpq, set};

/// How often the files are looked at: soon enough for who waits for the end of an alert.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// How often the same is told.
const TELL_EVERY: Duration = Duration::from_secs(24 * 3600);
/// Told from here on, or from the last fifth of a certificate's life, where that is shorter: issuers renew
/// when a third is left, and some certificates live for hours.
const SOON_SECONDS: i64 = 14 * 24 * 3600;
const LAST_FIFTH: i64 = 5;

/// A file of certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// What names it: the value of the label `setting`.
    setting: &'static str,
    file: PathBuf,
    use_of: Use,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    /// A chain: it is as good as its first certificate to expire.
    Shown,
    /// CAs, of which the old stands beside the new for a while: as good as the last one.
    Trusted,
}

/// From and until when, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Validity {
    not_before: i64,
    not_after: i64,
}

impl Watched {
    /// What is shown to the other side; none if it is not set.
    pub fn shown(setting: &'static str, file: &Option<PathBuf>) -> Option<Self> {
        let (file, use_of) = (set(file)?, Use::Shown);
        Some(Self {
            setting,
            file,
            use_of,
        })
    }

    /// By what the other side is trusted; none if it is not set.
    pub fn trusted(setting: &'static str, file: &Option<PathBuf>) -> Option<Self> {
        let (file, use_of) = (set(file)?, Use::Trusted);
        Some(Self {
            setting,
            file,
            use_of,
        })
    }

    /// Those of a libpq URL, whose settings for the certificate and the CA are named so.
    pub fn of_postgres(tls: &libpq::Tls, settings: [&'static str; 2]) -> Vec<Self> {
        let shown = tls.identity.as_ref().map(|(file, _)| file.clone());
        let trusted = match &tls.roots {
            Some(libpq::Roots::File(file)) => Some(file.clone()),
            _ => None,
        };
        let [shown_by, trusted_by] = settings;
        let shown = Self::shown(shown_by, &shown);
        shown
            .into_iter()
            .chain(Self::trusted(trusted_by, &trusted))
            .collect()
    }

    /// None where the file cannot be read, which who needs it tells.
    fn validity(&self) -> Option<Validity> {
        let all = certificates("the certificate", &self.file).ok()?;
        let all = all.iter().filter_map(validity);
        match self.use_of {
            Use::Shown => all.min_by_key(|one| one.not_after),
            Use::Trusted => all.max_by_key(|one| one.not_after),
        }
    }
}

/// Looks at the files until the token is cancelled.
pub async fn watch(files: Vec<Watched>, token: CancellationToken) {
    describe_gauge!(
        "tls_certificate_not_after_seconds",
        Unit::Seconds,
        "When a certificate expires, in seconds since 1970: of what is shown the first of its chain, of the \
         CAs that are trusted the last"
    );
    describe_gauge!(
        "tls_certificate_not_before_seconds",
        Unit::Seconds,
        "From when the same certificate is good, in seconds since 1970"
    );
    let mut told = HashMap::new();
    loop {
        for watched in &files {
            look(watched, &mut told);
        }
        if token.run_until_cancelled(sleep(LOOK_EVERY)).await.is_none() {
            return;
        }
    }
}

/// What was told of each, and when.
type Told = HashMap<&'static str, (State, Validity, Instant)>;

fn look(watched: &Watched, told: &mut Told) {
    let setting = watched.setting;
    let Some(validity) = watched.validity() else {
        return;
    };
    gauge!("tls_certificate_not_after_seconds", "setting" => setting)
        .set(validity.not_after as f64);
    gauge!("tls_certificate_not_before_seconds", "setting" => setting)
        .set(validity.not_before as f64);
    let now = now();
    let state = validity.state(now);
    let is_news = told.get(setting).is_none_or(|(before, of, at)| {
        *before != state || *of != validity || at.elapsed() >= TELL_EVERY
    });
    if state == State::Good || !is_news {
        if state == State::Good {
            told.remove(setting);
        }
        return;
    }
    told.insert(setting, (state, validity, Instant::now()));
    let file = watched.file.display();
    let hours = (validity.not_after - now) / 3600;
    match state {
        State::Expired => tracing::error!(
            setting, %file, hours_ago = -hours, "TLS: a certificate has expired: renew it"
        ),
        _ => tracing::warn!(
            setting, %file, hours_left = hours, "TLS: a certificate is about to expire: renew it"
        ),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Good,
    Expiring,
    Expired,
}

impl Validity {
    fn state(self, now: i64) -> State {
        let left = self.not_after - now;
        let life = self.not_after - self.not_before;
        match left {
            ..=0 => State::Expired,
            _ if left < SOON_SECONDS.min(life / LAST_FIFTH) => State::Expiring,
            _ => State::Good,
        }
    }
}

fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs() as i64)
}

fn validity(certificate: &CertificateDer<'_>) -> Option<Validity> {
    const VERSION: u8 = 0xa0;
    const INTEGER: u8 = 0x02;
    // Certificate ::= SEQUENCE { tbsCertificate SEQUENCE { [0] version, serialNumber, signature, issuer,
    // validity SEQUENCE { notBefore, notAfter }, … }, … }
    let (body, _) = element(certificate, SEQUENCE)?;
    let (body, _) = element(body, SEQUENCE)?;
    let after_version = element(body, VERSION).map_or(body, |(_, rest)| rest);
    let (_serial, rest) = element(after_version, INTEGER)?;
    let (_signature, rest) = element(rest, SEQUENCE)?;
    let (_issuer, rest) = element(rest, SEQUENCE)?;
    let (validity, _) = element(rest, SEQUENCE)?;
    let (tag, from, rest) = der::any(validity)?;
    let not_before = seconds(tag, from)?;
    let (tag, until, _) = der::any(rest)?;
    let not_after = seconds(tag, until)?;
    Some(Validity {
        not_before,
        not_after,
    })
}

/// Of `YYMMDDHHMMSSZ`, or with a year of four digits (RFC 5280, 4.1.2.5): seconds since 1970.
fn seconds(tag: u8, time: &[u8]) -> Option<i64> {
    const UTC: u8 = 0x17;
    const GENERALIZED: u8 = 0x18;
    let digits = time.strip_suffix(b"Z")?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = |digits: &[u8]| {
        let fold = |sum: i64, digit: &u8| sum * 10 + i64::from(*digit - b'0');
        digits.iter().fold(0, fold)
    };
    let (year, rest) = match (tag, digits.len()) {
        (UTC, 12) => match number(&digits[..2]) {
            year @ 50.. => (1900 + year, &digits[2..]),
            year => (2000 + year, &digits[2..]),
        },
        (GENERALIZED, 14) => (number(&digits[..4]), &digits[4..]),
        _ => return None,
    };
    let mut parts = rest.chunks(2).map(number);
    let (month, day) = (parts.next()?, parts.next()?);
    let (hour, minute, second) = (parts.next()?, parts.next()?, parts.next()?);
    Some(((days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second)
}

/// From 1970-01-01 to that day of the Gregorian calendar. A year is taken to begin in March, so that the day
/// that not every year has is its last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    const DAYS_TO_1970: i64 = 719_468;
    let (year, month) = match month {
        3.. => (year, month - 3),
        _ => (year - 1, month + 9),
    };
    let leaps = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    365 * year + leaps + (153 * month + 2) / 5 + day - 1 - DAYS_TO_1970
}

#[cfg(test)]
mod tests;
