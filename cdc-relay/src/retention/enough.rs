//! Whether rows stay in the table for as long as the stream may have to be filled from it (I11).
//!
//! ```text
//! acknowledged ─ sync_interval ─► on disk           until then a power failure takes it from the stream
//! stored ─────────────── max_age ──────────► gone   until then it is missing where the stream was deleted
//! written ───────────────── CDC_RETENTION_SECONDS ─────────► gone from the table
//! ```

use std::{fmt, time::Duration};

use async_nats::jetstream::stream::Info;

use crate::{
    config::{Config, Create, Policy},
    error::{Error, Result},
    sync,
};

/// So many intervals of JetStream's sync a row is kept at least. One is what a power failure takes; the age of
/// a row begins before that, when its id was drawn, by another clock, and it may have waited for the relay.
const SYNCS_MIN: u32 = 10;

/// What is too short, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TooShort {
    pub text: String,
    pub mend: String,
}

impl fmt::Display for TooShort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.text, self.mend)
    }
}

/// When JetStream syncs, as far as it is known.
#[derive(Clone, Debug)]
pub struct Synced {
    pub interval: Duration,
    /// The server itself has told.
    pub is_told: bool,
}

impl Synced {
    /// As it was told, or else as it is by default.
    pub fn of(told: Option<Duration>) -> Self {
        Self {
            interval: told.unwrap_or(sync::DEFAULT),
            is_told: told.is_some(),
        }
    }
}

/// Whether old rows may be removed beside a stream, of which `found` is what there is of it yet.
///
/// # Errors
/// [`Error::Definite`] where they would go too early, and `is_first`: later on, when the stream was given a
/// longer life under a relay that runs, they stay and publishing goes on.
pub async fn permit(config: &Config, found: Option<&Info>, is_first: bool) -> Result<bool> {
    if config.retention.seconds.is_none() {
        return Ok(false);
    }
    let told = match &config.monitoring.address {
        None => None,
        Some(address) => {
            let told = sync::interval(address).await;
            told.inspect_err(|error| {
                let error = format!("{error:#}");
                tracing::warn!(
                    error,
                    "when JetStream syncs cannot be seen; taken to be every two minutes"
                );
            })
            .ok()
        }
    };
    let short = shortages(config, &Synced::of(told), max_age(config, found));
    let all: Vec<String> = short.iter().map(ToString::to_string).collect();
    match all.join("; and ") {
        none if none.is_empty() => Ok(true),
        short if is_first => Err(Error::Definite(short)),
        short => {
            tracing::warn!(short, "old rows stay in the table; publishing goes on");
            Ok(false)
        }
    }
}

/// For how long the stream keeps its events (zero: for ever), if there is one, or the relay makes it.
pub fn max_age(config: &Config, found: Option<&Info>) -> Option<Duration> {
    match found {
        Some(info) => Some(info.config.max_age),
        None if config.stream.create == Create::Missing => {
            Some(Duration::from_secs(config.stream.max_age_seconds))
        }
        None => None,
    }
}

/// Everything for which rows would go too early.
pub fn shortages(config: &Config, synced: &Synced, max_age: Option<Duration>) -> Vec<TooShort> {
    let Some(seconds) = config.retention.seconds else {
        return Vec::new();
    };
    let recreates = config.healing.deleted == Policy::Heal;
    let refilled = max_age.filter(|_| recreates);
    let all = [
        of_sync(seconds, synced),
        refilled.and_then(|max_age| of_stream(seconds, &config.stream.name, max_age)),
    ];
    all.into_iter().flatten().collect()
}

fn of_sync(seconds: u64, synced: &Synced) -> Option<TooShort> {
    let least = (synced.interval * SYNCS_MIN).as_secs();
    let by = match synced.is_told {
        true => "",
        false => " by default, and NATS_MONITORING_URL does not tell otherwise",
    };
    (seconds < least).then(|| TooShort {
        text: format!(
            "CDC_RETENTION_SECONDS={seconds} removes rows that the stream may lose yet: JetStream syncs to disk \
             every {} s{by}, and a power failure takes what it had acknowledged since",
            synced.interval.as_secs()
        ),
        mend: format!(
            "keep rows for {least} s at least ({SYNCS_MIN} times that), or set `jetstream {{ sync_interval: \
             always }}` in the server's configuration and let NATS_MONITORING_URL tell the relay"
        ),
    })
}

fn of_stream(seconds: u64, stream: &str, max_age: Duration) -> Option<TooShort> {
    let kept = max_age.as_secs();
    let (life, longer) = match kept {
        0 => ("for ever (max_age 0)".to_owned(), String::new()),
        kept if seconds > kept => return None,
        kept => (
            format!("for {kept} s (max_age)"),
            format!("keep rows for longer than {kept} s, or "),
        ),
    };
    Some(TooShort {
        text: format!(
            "CDC_RETENTION_SECONDS={seconds} is too short for CDC_STREAM_DELETED=recreate: stream {stream} keeps \
             its events {life}, and those whose rows are gone could not be published again"
        ),
        mend: format!(
            "{longer}let the stream keep its events for less (`nats stream edit {stream} --max-age` where it \
             exists, and CDC_STREAM_MAX_AGE_SECONDS), or set CDC_STREAM_DELETED=refuse, so that a person decides \
             what a new stream begins with"
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn short(flags: &[&str], told: Option<Duration>, max_age: Duration) -> String {
        let always = [
            "--database-url=postgres://nobody@127.0.0.1/none",
            "--cdc-stream=EVENTS",
        ];
        let config = Config::of(always.iter().chain(flags).copied()).unwrap();
        let all = shortages(&config, &Synced::of(told), Some(max_age));
        all.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn rows_outlast_ten_syncs_of_the_server_that_tells_or_of_the_default() {
        let kept = |seconds: u64, told| {
            let flag = format!("--cdc-retention-seconds={seconds}");
            short(&[&flag, "--cdc-stream-deleted=refuse"], told, DAY)
        };
        let found = kept(1199, None);
        assert!(
            found.contains("=1199 ") && found.contains("1200 s at least"),
            "{found}"
        );
        assert!(found.contains("every 120 s by default"), "{found}");
        assert_eq!(kept(1200, None), "");
        let found = kept(1200, Some(Duration::from_secs(121)));
        assert!(
            found.contains("every 121 s,") && found.contains("1210 s"),
            "{found}"
        );
        assert_eq!(kept(60, Some(Duration::ZERO)), "");
    }

    #[test]
    fn rows_outlast_the_stream_that_is_filled_with_them() {
        let day = "--cdc-retention-seconds=86400";
        let found = short(&[day], None, DAY);
        assert!(
            found.contains("=86400 ") && found.contains("for 86400 s"),
            "{found}"
        );
        assert!(found.contains("longer than 86400 s"), "{found}");
        assert_eq!(short(&["--cdc-retention-seconds=86401"], None, DAY), "");
        assert_eq!(short(&[day, "--cdc-stream-deleted=refuse"], None, DAY), "");
        let found = short(&[day], None, Duration::ZERO);
        assert!(
            found.contains("for ever") && !found.contains("longer than"),
            "{found}"
        );
        assert_eq!(short(&[], None, Duration::ZERO), "");
    }
}
