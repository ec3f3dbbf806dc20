//! Requests that take effect once: a retry gets the first answer, whatever has happened since.
//!
//! ```text
//!  record ─► first: commits with the effect (I1)
//!         └► another was: roll back; find ─► its answer
//! ```
//!
//! Where a retry might be refused on account of what has happened since, find comes before as well.
//!
//! Ids are UUIDv7, drawn by the client before its first try. They tell their age, so an id older than what
//! is kept is refused: executed again it would have a second effect. Answers go by the day, and the database
//! refuses ids of days that went, also when they are kept for longer by now, or by another replica.
//!
//! Danger: only what was granted is kept. A refusal rolls back, and a retry of it is decided anew.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use deadpool_postgres::Pool;
use prost::Message;
use ring::digest;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Error, Row, Transaction};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

mod embedded {
    refinery::embed_migrations!("requests");
}

/// How far a client's clock may be ahead of ours.
pub const AHEAD_MAX: Duration = Duration::from_secs(3600);

/// Far more often than days pass.
const MAINTAIN_EVERY: Duration = Duration::from_secs(3600);

/// After a failure, such as a lock that could not be had.
const RETRY_AFTER: Duration = Duration::from_secs(60);

const FIND: &str = "\
SELECT request_id, operation, body_hash, answer FROM public.requests WHERE request_id = ANY ($1)";

/// In the order of the ids: two transactions that share some wait for each other instead of deadlocking.
const RECORD: &str = "\
INSERT INTO public.requests (request_id, operation, body_hash, answer)
SELECT request_id, operation, body_hash, answer
FROM unnest($1, $2, $3, $4) AS request (request_id, operation, body_hash, answer)
ORDER BY request_id
ON CONFLICT DO NOTHING
RETURNING request_id";

/// A step, to be repeated until it returns 0. As the owner of the table: who runs this makes and drops none.
const MAINTAIN: &str = "SELECT public.requests_keep($1)";

/// The CHECK that refuses ids of days that went.
const FORGOTTEN: &str = "requests_forgotten";

/// What a request that has an id is known by.
#[derive(Clone, Debug)]
pub struct Key {
    id: Uuid,
    operation: &'static str,
    body_hash: Vec<u8>,
}

/// An id that cannot make a request take effect once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// It does not tell its age.
    #[error("must be a UUIDv7, drawn by the client before its first try")]
    NotV7,
    /// What was answered to it may be forgotten.
    #[error("was drawn too long ago to know whether it was used before; look whether it was")]
    TooOld,
    /// It would be kept for longer than others.
    #[error("was drawn in the future")]
    TooNew,
}

impl Unusable {
    /// What was wrong with an id that Postgres refused to record; `None` when it was something else. It takes
    /// no others with it: without that id they can be recorded.
    #[must_use]
    pub fn of(refused: &Error) -> Option<Self> {
        let constraint = refused.as_db_error()?.constraint()?;
        (constraint == FORGOTTEN).then_some(Self::TooOld)
    }
}

/// What is known of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing: it is to be executed.
    Nothing,
    /// It was granted before, with this answer.
    Answer(Vec<u8>),
    /// Another request had this id.
    Other,
}

impl Key {
    /// `body` is the request without its id: what has to be the same in a retry. Ids are taken back to
    /// `kept` before `now`.
    ///
    /// # Errors
    /// [`Unusable`].
    pub fn new<M: Message>(
        id: Uuid,
        operation: &'static str,
        body: &M,
        now: SystemTime,
        kept: Duration,
    ) -> Result<Self, Unusable> {
        let drawn = id.get_timestamp().filter(|_| id.get_version_num() == 7);
        let (seconds, nanos) = drawn.ok_or(Unusable::NotV7)?.to_unix();
        let drawn = Duration::new(seconds, nanos);
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        if drawn + kept < now {
            return Err(Unusable::TooOld);
        }
        if drawn > now + AHEAD_MAX {
            return Err(Unusable::TooNew);
        }
        let hash = digest::digest(&digest::SHA256, &body.encode_to_vec());
        Ok(Self {
            id,
            operation,
            body_hash: hash.as_ref().to_vec(),
        })
    }

    /// The id that the client drew.
    #[must_use]
    pub fn id(&self) -> Uuid {
        self.id
    }
}

/// Looks for the request. Before something is decided, to be called when the transaction holds the rows
/// that the request changes, or it misses what the one that they were waited for has recorded.
///
/// # Errors
/// Postgres refused the statement, or the connection is lost.
pub async fn find(tx: &Transaction<'_>, request: &Key) -> Result<Found, Error> {
    let rows = tx
        .query_typed(FIND, &[(&[request.id].as_slice(), Type::UUID_ARRAY)])
        .await?;
    found(rows.first(), request)
}

/// What is known of each, in their order, where nothing is decided but to refuse what is new: one statement,
/// whatever their number.
///
/// # Errors
/// Postgres refused the statement, or the connection is lost.
pub async fn find_all(client: &Client, requests: &[Key]) -> Result<Vec<Found>, Error> {
    let ids: Vec<Uuid> = requests.iter().map(Key::id).collect();
    let rows = client
        .query_typed(FIND, &[(&ids, Type::UUID_ARRAY)])
        .await?;
    let by_id = |row: Row| Ok((row.try_get::<_, Uuid>(0)?, row));
    let rows: HashMap<Uuid, Row> = rows.into_iter().map(by_id).collect::<Result<_, Error>>()?;
    let each = requests.iter();
    each.map(|request| found(rows.get(&request.id), request))
        .collect()
}

fn found(row: Option<&Row>, request: &Key) -> Result<Found, Error> {
    let Some(row) = row else {
        return Ok(Found::Nothing);
    };
    let same = row.try_get::<_, &str>(1)? == request.operation
        && row.try_get::<_, &[u8]>(2)? == request.body_hash;
    Ok(if same {
        Found::Answer(row.try_get(3)?)
    } else {
        Found::Other
    })
}

/// Records what the request is answered; it commits with the effect, or not at all. False when another
/// transaction has recorded the id: this one must be rolled back. It waits for one that is about to.
///
/// # Errors
/// Postgres refused the statement, or the connection is lost. [`Unusable::of`] tells whether the id's day is
/// forgotten.
pub async fn record(
    tx: &Transaction<'_>,
    request: &Key,
    answer: &impl Message,
) -> Result<bool, Error> {
    let recorded = record_all(tx, &[(request, answer.encode_to_vec())]).await?;
    Ok(recorded.contains(&request.id))
}

/// As [`record`], of several requests with an id each: one statement, whatever their number. Returns the ids
/// that were recorded; when one is missing, the transaction must be rolled back.
///
/// # Errors
/// Postgres refused the statement, or the connection is lost. [`Unusable::of`] tells whether an id's day is
/// forgotten.
pub async fn record_all(
    tx: &Transaction<'_>,
    answers: &[(&Key, Vec<u8>)],
) -> Result<HashSet<Uuid>, Error> {
    if answers.is_empty() {
        return Ok(HashSet::new());
    }
    let ids: Vec<Uuid> = answers.iter().map(|(key, _)| key.id).collect();
    let operations: Vec<&str> = answers.iter().map(|(key, _)| key.operation).collect();
    let hashes: Vec<&[u8]> = answers.iter().map(|(key, _)| &key.body_hash[..]).collect();
    let bodies: Vec<&[u8]> = answers.iter().map(|(_, answer)| &answer[..]).collect();
    let columns: [(&(dyn ToSql + Sync), Type); 4] = [
        (&ids, Type::UUID_ARRAY),
        (&operations, Type::TEXT_ARRAY),
        (&hashes, Type::BYTEA_ARRAY),
        (&bodies, Type::BYTEA_ARRAY),
    ];
    let recorded = tx.query_typed(RECORD, &columns).await?;
    recorded.iter().map(|row| row.try_get(0)).collect()
}

/// Keeps partitions ahead, and drops those of ids that are taken no more, now and then hourly, until
/// `token` is cancelled. Failures are logged and tried again.
pub async fn maintain(pool: Pool, kept: Duration, token: CancellationToken) {
    while !token.is_cancelled() {
        let wait = match maintain_once(&pool, kept).await {
            Ok(0) => MAINTAIN_EVERY,
            Ok(changed) => {
                info!(changed, "made and forgot days of requests");
                MAINTAIN_EVERY
            }
            Err(error) => {
                warn!(%error, "could not maintain the days of requests; trying again in a minute");
                RETRY_AFTER
            }
        };
        tokio::select! {
            () = token.cancelled() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Once; returns how many days were made and forgotten, each in a transaction of its own.
///
/// # Errors
/// The migrations have not run, a lock was not had within 200 ms, or the connection is lost.
pub async fn maintain_once(
    pool: &Pool,
    kept: Duration,
) -> Result<i32, Box<dyn std::error::Error + Send + Sync>> {
    let mut client = pool.get().await?;
    let seconds = kept.as_secs_f64();
    let mut changed = 0;
    loop {
        let tx = client.transaction().await?;
        // A new partition makes Postgres read the whole default partition. If that once took longer than
        // the pool lets a statement take, it would for ever.
        tx.batch_execute("SET LOCAL statement_timeout = 0").await?;
        let row = tx
            .query_typed(MAINTAIN, &[(&seconds, Type::FLOAT8)])
            .await?;
        tx.commit().await?;
        match row.first().map_or(0, |row| row.get::<_, i32>(0)) {
            0 => return Ok(changed),
            step => changed += step,
        }
    }
}

/// The migrations of the table, in the schema `public`: to run before those of the outbox, with a history
/// table of their own.
#[must_use]
pub fn migrations() -> refinery::Runner {
    embedded::migrations::runner()
}
