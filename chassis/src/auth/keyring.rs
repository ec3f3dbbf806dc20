//! Keeps the keys as their file or URL has them, without a restart. What cannot be read, or holds no key,
//! changes nothing: the keys that were there go on being used, and the log says so.

use std::{
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use bytes::Bytes;
use hyper::Uri;
use jsonwebtoken::Algorithm;
use tokio::{
    fs::File,
    io::AsyncReadExt as _,
    sync::{Mutex, Semaphore},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{fetch, keys::Keys};
use crate::{backoff, config::libpq::Roots, failure::chain};

/// A JWKS of a hundred large keys is far smaller (I12).
const JWKS_BYTES_MAX: usize = 256 * 1024;
/// So many requests wait for such a look at a time; others are refused at once (I12).
const WAITING_MAX: usize = 64;

/// Where the keys come from.
#[derive(Debug)]
pub(super) enum Source {
    File(PathBuf),
    Url(Uri, Roots),
}

/// How often is looked.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// Without a reason.
    every: Duration,
    /// After a failure.
    again: Duration,
    /// A token that names an unknown key makes us look, but not more often than this: anybody can name one.
    asked: Duration,
}

const FILE_PACE: Pace = Pace {
    every: Duration::from_secs(2),
    again: Duration::from_secs(2),
    asked: Duration::from_secs(10),
};
const URL_PACE: Pace = Pace {
    every: Duration::from_secs(300),
    again: Duration::from_secs(30),
    ..FILE_PACE
};

#[derive(Debug)]
pub(super) struct Keyring {
    source: Source,
    pace: Pace,
    keys: RwLock<Arc<Keys>>,
    last: Mutex<Last>,
    waiting: Semaphore,
}

/// What came of the last look.
#[derive(Debug)]
struct Last {
    /// What the keys were read from.
    content: Bytes,
    at: Instant,
    /// Why it failed, which the log has said.
    failed: Option<String>,
}

impl Keyring {
    /// The keys of a file at once; those of a URL when it answers, with the reason of the wait in the log.
    ///
    /// # Errors
    /// A file that cannot be used.
    pub(super) async fn load(source: Source) -> Result<Self, String> {
        let mut attempt = 0;
        let (content, keys) = loop {
            let error = match source.read().await {
                Ok(read) => break read,
                Err(error) => error,
            };
            if matches!(source, Source::File(_)) {
                return Err(error);
            }
            failed();
            tracing::warn!(error, "the keys of AUTH_JWKS cannot be had; trying again");
            sleep(backoff::delay(attempt)).await;
            attempt += 1;
        };
        let last = Last {
            content,
            at: Instant::now(),
            failed: None,
        };
        Ok(Self {
            pace: match source {
                Source::File(_) => FILE_PACE,
                Source::Url(..) => URL_PACE,
            },
            source,
            keys: RwLock::new(Arc::new(keys)),
            last: Mutex::new(last),
            waiting: Semaphore::new(WAITING_MAX),
        })
    }

    pub(super) fn keys(&self) -> Arc<Keys> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The keys among which the named one is; none if it is unknown, also after a look.
    pub(super) async fn with(&self, id: Option<&str>, algorithm: Algorithm) -> Option<Arc<Keys>> {
        let known = |keys: &Arc<Keys>| keys.find(id, algorithm).is_some();
        let keys = self.keys();
        if known(&keys) {
            return Some(keys);
        }
        let _place = self.waiting.try_acquire().ok()?;
        self.look(self.pace.asked).await;
        Some(self.keys()).filter(known)
    }

    /// Looks, until the token is cancelled.
    pub(super) async fn watch(self: Arc<Self>, token: CancellationToken) {
        let mut pause = self.pace.every;
        while token.run_until_cancelled(sleep(pause)).await.is_some() {
            pause = match self.look(Duration::ZERO).await {
                true => self.pace.every,
                false => self.pace.again,
            };
        }
    }

    /// Takes up what is new; nothing if it was looked at within `pause`. Whether the last look succeeded; a
    /// failure is counted, and the log has one line for each reason, not for each look.
    async fn look(&self, pause: Duration) -> bool {
        let mut last = self.last.lock().await;
        if last.at.elapsed() < pause {
            return last.failed.is_none();
        }
        let read = self.source.read().await;
        // From its end on: one that waited for a slow answer is followed by no other at once.
        last.at = Instant::now();
        let (content, keys) = match read {
            Ok(read) => read,
            Err(error) => {
                failed();
                if last.failed.as_ref() != Some(&error) {
                    tracing::warn!(
                        error,
                        "AUTH_JWKS cannot be used; its keys as they were go on being used"
                    );
                    last.failed = Some(error);
                }
                return false;
            }
        };
        if last.failed.take().is_some() {
            tracing::info!("AUTH_JWKS can be used again");
        }
        if content != last.content {
            last.content = content;
            tracing::info!(keys = keys.len(), "AUTH_JWKS has changed, and is taken up");
            *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
        }
        true
    }
}

fn failed() {
    metrics::counter!("auth_keys_failures_total").increment(1);
}

impl Source {
    async fn read(&self) -> Result<(Bytes, Keys), String> {
        let content = match self {
            Self::File(path) => read(path).await,
            Self::Url(url, roots) => fetch::get(url, roots, JWKS_BYTES_MAX).await,
        };
        let read = content.and_then(|content| Ok((content.clone(), Keys::parse(&content)?)));
        read.map_err(|why| format!("{}: {why}", self.name()))
    }

    fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Url(url, _) => url.host().unwrap_or_default().to_owned(),
        }
    }
}

async fn read(path: &PathBuf) -> Result<Bytes, String> {
    let file = File::open(path).await.map_err(|error| chain(&error))?;
    let mut content = Vec::new();
    let mut limited = file.take(JWKS_BYTES_MAX as u64 + 1);
    let read = limited.read_to_end(&mut content).await;
    read.map_err(|error| chain(&error))?;
    if content.len() > JWKS_BYTES_MAX {
        return Err(format!("it is larger than {JWKS_BYTES_MAX} bytes"));
    }
    Ok(content.into())
}

#[cfg(test)]
mod tests;
