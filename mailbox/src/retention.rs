//! Drops the days of the inbox that nothing can come back for any more (I6).
//!
//! ```text
//!  stored ─► claimed ───────── max_age ─────────► gone from its stream
//!               └─ put back by healing just before that ─► max_age once more
//!               └──────────────── kept ────────────────────────────────► its day is dropped
//! ```
//!
//! Danger: an event that is delivered when its claim is gone is applied twice. So what is kept must outlast
//! every redelivery, by JetStream's own figures; a day with a younger claim stays, and so do the days from
//! that of the oldest dead letter on, which can be redriven. What comes nevertheless, from a day that was
//! dropped, the database refuses, and it becomes a dead letter: not applied rather than applied twice.

use std::error::Error as StdError;
use std::time::Duration;

use async_nats::jetstream::{self, Context};
use deadpool_postgres::Pool;
use tokio_postgres::types::{ToSql, Type};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use crate::consumer::Config;
use crate::dead_letter::Letters;

/// Far more often than days pass.
const ROUND_EVERY: Duration = Duration::from_secs(3600);

/// After a failure, such as a lock that could not be had, or a stream that nobody has made yet.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Dead letters that are looked at. With more of them nothing is dropped: somebody has to act first.
const LETTERS_MAX: usize = 10_000;

/// Letters that are read at a time.
const PAGE: usize = 500;

/// A day that is past by `$1` seconds; days from `$2` on stay, if it is given. As the owner of the table: who
/// runs this drops none.
const RETIRE: &str = "SELECT public.inbox_forget($1, $2)::text";

/// Rows of dropped days that came when those had no partition.
const RETIRE_DEFAULT: &str = "SELECT public.inbox_forget_strays($2::date, $1)";

type BoxError = Box<dyn StdError + Send + Sync>;

/// The inbox would forget events that can still be delivered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TooShort {
    /// The stream tells no end.
    #[error(
        "the inbox cannot be kept for {}: the stream {stream} keeps its events for ever (max_age 0), and \
         can deliver them again as long; leave the inbox's retention out, or limit the stream",
        seconds(*kept)
    )]
    Unlimited {
        /// What was asked for.
        kept: Duration,
        /// The stream.
        stream: String,
    },
    /// It ends later.
    #[error(
        "the inbox cannot be kept for {}: events of the stream {stream} can be delivered again for {} \
         (twice its max_age of {}, as healing can put them back, and twice the ack_wait of {}); keep the inbox \
         for longer than that, or the stream's events for less",
        seconds(*kept), seconds(*needed), seconds(*max_age), seconds(*ack_wait)
    )]
    Outlasted {
        /// What was asked for.
        kept: Duration,
        /// The stream.
        stream: String,
        /// For how long the stream keeps an event.
        max_age: Duration,
        /// The consumer's.
        ack_wait: Duration,
        /// What would have to be kept at least.
        needed: Duration,
    },
}

fn seconds(duration: Duration) -> String {
    format!("{} s", duration.as_secs())
}

/// Whether `kept` outlasts what a stream with `max_age` can deliver again to `consumer`.
///
/// # Errors
/// [`TooShort`].
pub fn outlasts(kept: Duration, consumer: &Config, max_age: Duration) -> Result<(), TooShort> {
    let stream = consumer.stream.clone();
    if max_age.is_zero() {
        return Err(TooShort::Unlimited { kept, stream });
    }
    // A delivery may be in hand when its message goes, and one that was put back as well.
    let needed = 2 * (max_age + consumer.ack_wait);
    if kept > needed {
        return Ok(());
    }
    Err(TooShort::Outlasted {
        kept,
        stream,
        max_age,
        ack_wait: consumer.ack_wait,
        needed,
    })
}

/// Drops what is older than `kept`, now and then hourly, until `token` is cancelled; without `kept` nothing
/// ever. `consumers` are all that have claims in this database. Other failures are logged and tried again; nothing is dropped meanwhile.
///
/// # Errors
/// [`TooShort`], at the start. A stream that is given a longer life afterwards stops the dropping.
pub async fn maintain(
    pool: Pool,
    client: async_nats::Client,
    kept: Option<Duration>,
    consumers: Vec<Config>,
    token: CancellationToken,
) -> Result<(), TooShort> {
    let Some(kept) = kept else {
        token.cancelled().await;
        return Ok(());
    };
    let context = jetstream::new(client.clone());
    let mut started = false;
    while !token.is_cancelled() {
        let wait = match round(&pool, &client, &context, kept, &consumers).await {
            Ok(Ok(())) => {
                started = true;
                ROUND_EVERY
            }
            Ok(Err(short)) if !started => return Err(short),
            Ok(Err(short)) => {
                warn!(%short, "the inbox is kept");
                ROUND_EVERY
            }
            Err(error) => {
                warn!(%error, "the inbox is kept for now; trying again soon");
                RETRY_AFTER
            }
        };
        tokio::select! {
            () = token.cancelled() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
    Ok(())
}

async fn round(
    pool: &Pool,
    client: &async_nats::Client,
    context: &Context,
    kept: Duration,
    consumers: &[Config],
) -> Result<Result<(), TooShort>, BoxError> {
    let mut oldest: Option<f64> = None;
    for consumer in consumers {
        let stream = context.get_stream(&consumer.stream).await?;
        let max_age = stream.cached_info().config.max_age;
        if let Err(short) = outlasts(kept, consumer, max_age) {
            return Ok(Err(short));
        }
        let letters = Letters::new(client.clone(), &consumer.durable);
        let drawn = oldest_letter(&letters).await?;
        oldest = oldest.into_iter().chain(drawn).reduce(f64::min);
    }
    let dropped = retire(pool, kept, oldest).await?;
    if dropped > 0 {
        info!(dropped, kept = kept.as_secs(), "dropped days of the inbox");
    }
    Ok(Ok(()))
}

/// When the oldest event among the dead letters was drawn, in seconds since 1970.
async fn oldest_letter(letters: &Letters) -> Result<Option<f64>, BoxError> {
    let (mut after, mut seen, mut oldest) = (0, 0, None);
    loop {
        let page = letters.page(after, PAGE).await?;
        let Some(last) = page.last() else {
            return Ok(oldest);
        };
        after = last.sequence;
        seen += page.len();
        if seen > LETTERS_MAX {
            let durable = letters.durable();
            return Err(format!("{durable} has more than {LETTERS_MAX} dead letters").into());
        }
        let drawn = page.iter().filter_map(|letter| {
            let id = Uuid::parse_str(&letter.event_id).ok()?;
            let (seconds, _) = id.get_timestamp()?.to_unix();
            Some(seconds as f64)
        });
        oldest = oldest.into_iter().chain(drawn).reduce(f64::min);
    }
}

/// Drops, day by day, what was claimed longer than `kept` ago and belongs to days before that of `oldest`
/// (seconds since 1970), and returns how many days that were.
///
/// # Errors
/// The migrations have not run, a lock was not had within 200 ms, or the connection is lost.
pub async fn retire(pool: &Pool, kept: Duration, oldest: Option<f64>) -> Result<u32, BoxError> {
    let mut client = pool.get().await?;
    let kept = kept.as_secs_f64();
    let mut dropped = 0;
    loop {
        let tx = client.transaction().await?;
        // It reads a whole day, which may take longer than the pool lets a statement take.
        tx.batch_execute("SET LOCAL statement_timeout = 0").await?;
        let parameters: [(&(dyn ToSql + Sync), Type); 2] =
            [(&kept, Type::FLOAT8), (&oldest, Type::FLOAT8)];
        let rows = tx.query_typed(RETIRE, &parameters).await?;
        let day: Option<String> = rows.first().and_then(|row| row.get(0));
        let Some(day) = day else {
            return Ok(dropped);
        };
        tx.commit().await?;
        dropped += 1;
        let parameters: [(&(dyn ToSql + Sync), Type); 2] =
            [(&kept, Type::FLOAT8), (&day, Type::TEXT)];
        client.execute_typed(RETIRE_DEFAULT, &parameters).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn what_is_kept_outlasts_a_message_that_was_put_back() {
        let mut consumer = Config::new("ORDERS", "x", ["a"]);
        consumer.ack_wait = Duration::from_secs(30);
        let least = 2 * DAY + Duration::from_secs(60);
        assert!(outlasts(least + Duration::from_secs(1), &consumer, DAY).is_ok());
        let short = outlasts(least, &consumer, DAY).unwrap_err().to_string();
        assert!(
            short.contains("172860 s") && short.contains("ORDERS"),
            "{short}"
        );
        let unlimited = outlasts(365 * DAY, &consumer, Duration::ZERO).unwrap_err();
        assert!(unlimited.to_string().contains("for ever"), "{unlimited}");
    }
}
