//! Finds the event that kills its process each time, which no error can tell of.
//!
//! The number of deliveries alone proves nothing: stops, outages and transient failures raise it too. So an
//! event that has been delivered several times is applied alone, and a mark is committed before each such
//! attempt and taken away after it, however it ended. What is left is the mark of a process that died.
//!
//! Danger: without the commit before the attempt the mark dies with the process, and the event is delivered
//! for ever. Left behind after an attempt that ended, it would set a good event aside.

use std::collections::HashMap;

use deadpool_postgres::{Object, Pool};
use tokio::time::{Instant, timeout_at};
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use super::attempt::Setback;
use super::batch::Item;
use super::config::Config;
use super::received::Received;

/// Deliveries from which on an event is applied alone. The first two are what a replica's death costs its
/// whole batch; few messages get further, and nothing is written for those that do not.
pub(super) const SUSPECT_FROM: u32 = 3;

/// So many processes in a row have died of the event, or with it: a kill from outside can hit any event, but
/// hardly the same one each time while it is applied.
pub(super) const DEATHS_MAX: i32 = 3;

const LEFT: &str = "\
SELECT sequence, stored_at, begun FROM public.inbox_marks
WHERE consumer = $1 AND stream = $2 AND sequence = ANY ($3)";

const BEGIN: &str = "\
INSERT INTO public.inbox_marks (consumer, stream, sequence, stored_at, begun) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (consumer, stream, sequence, stored_at)
DO UPDATE SET begun = excluded.begun, last_begun = now()";

const END: &str = "\
DELETE FROM public.inbox_marks
WHERE consumer = $1 AND stream = $2 AND sequence = $3 AND stored_at = $4";

/// How often each of some events has been begun without an end, by sequence and time of storage.
pub(super) type Left = HashMap<(i64, i64), i32>;

/// What the events have left behind; nothing, as a rule.
pub(super) async fn left(pool: &Pool, config: &Config, items: &[Item]) -> Result<Left, Setback> {
    let sequences: Vec<i64> = items.iter().map(|item| key(&item.received).0).collect();
    let parameters: [Parameter<'_>; 3] = [
        (&config.durable, Type::TEXT),
        (&config.stream, Type::TEXT),
        (&sequences, Type::INT8_ARRAY),
    ];
    let rows = ask(pool, config, LEFT, &parameters).await?;
    let left = |row: &Row| ((row.get(0), row.get(1)), row.get(2));
    Ok(rows.iter().map(left).collect())
}

/// Deaths that the event's marks tell of.
pub(super) fn deaths(left: &Left, received: &Received) -> i32 {
    left.get(&key(received)).copied().unwrap_or_default()
}

/// An attempt begins, after `deaths`. Ok: the mark is committed. It states a number and adds none, since it is
/// written again when the answer is lost.
pub(super) async fn begin(
    pool: &Pool,
    config: &Config,
    received: &Received,
    deaths: i32,
) -> Result<(), Setback> {
    let begun = deaths.saturating_add(1);
    execute(pool, config, BEGIN, received, &[(&begun, Type::INT4)]).await
}

/// The attempts have ended, one way or another.
pub(super) async fn end(pool: &Pool, config: &Config, received: &Received) -> Result<(), Setback> {
    execute(pool, config, END, received, &[]).await
}

type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

async fn execute(
    pool: &Pool,
    config: &Config,
    statement: &str,
    received: &Received,
    further: &[Parameter<'_>],
) -> Result<(), Setback> {
    let (sequence, stored_at) = key(received);
    let mut parameters: Vec<Parameter<'_>> = vec![
        (&config.durable, Type::TEXT),
        (&config.stream, Type::TEXT),
        (&sequence, Type::INT8),
        (&stored_at, Type::INT8),
    ];
    parameters.extend_from_slice(further);
    ask(pool, config, statement, &parameters).await?;
    Ok(())
}

async fn ask(
    pool: &Pool,
    config: &Config,
    statement: &str,
    parameters: &[Parameter<'_>],
) -> Result<Vec<Row>, Setback> {
    let deadline = Instant::now() + config.step_max();
    let client = timeout_at(deadline, pool.get()).await.map_err(late)?;
    let client = client.map_err(unavailable)?;
    match timeout_at(deadline, client.query_typed(statement, parameters)).await {
        Ok(answer) => answer.map_err(unavailable),
        Err(elapsed) => {
            // The statement may still run on it: whoever got it next would wait for that.
            drop(Object::take(client));
            Err(late(elapsed))
        }
    }
}

/// Both fit for centuries.
fn key(received: &Received) -> (i64, i64) {
    let sequence = i64::try_from(received.sequence).unwrap_or(i64::MAX);
    (
        sequence,
        i64::try_from(received.stored_at).unwrap_or(i64::MAX),
    )
}

/// These statements can fail for no reason that lies in an event.
fn unavailable(error: impl std::error::Error + Send + Sync + 'static) -> Setback {
    Setback::Unavailable(error.into())
}

fn late(_: tokio::time::error::Elapsed) -> Setback {
    Setback::Unavailable("the marks of events were not read or written in time".into())
}
