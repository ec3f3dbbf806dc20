//! The table against the stream, inside Postgres: the ids that the stream holds go into a temporary
//! table, and the relay's own memory stays small whatever the two hold (I12).

use async_nats::{Client as Nats, jetstream};
use mailbox::envelope;
use tokio_postgres::Transaction;

use super::floor::{Removed, least_uuid};
use crate::{
    config::StreamConfig,
    error::{Error, Result},
    quarantine,
    stream::{Headers, Truth},
    window::BATCH_RECORDS_MAX,
};

const DURING: &str = "compare the table with the stream";

const PRESENT: &str = "\
    CREATE TEMPORARY TABLE present (id text PRIMARY KEY, sequence bigint NOT NULL) ON COMMIT DROP";

const ADD_PRESENT: &str = "\
    INSERT INTO present SELECT * FROM unnest($1::text[], $2::bigint[]) ON CONFLICT DO NOTHING";

/// The table as SQL names it, where it goes by `o`.
#[derive(Clone, Copy, Debug)]
pub struct Outbox<'a> {
    pub table: &'a str,
    /// The column with the event's id.
    pub id: &'a str,
}

/// Events at the end of a stream whose rows the table does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Phantoms {
    pub count: i64,
    pub from_sequence: i64,
    /// The table has rows of older events in the stream: these were not simply pruned.
    pub behind_known: bool,
}

/// Notes what the stream holds up to its end as `truth` has it, in the transaction that reads the table.
pub async fn note_present(
    transaction: &Transaction<'_>,
    nats: &Nats,
    stream: &StreamConfig,
    truth: &Truth,
) -> Result<()> {
    let created = transaction.batch_execute(PRESENT).await;
    created.map_err(|e| Error::sql(DURING, &e))?;
    // First: what is released meanwhile is in the stream by the time that this is read.
    note_absent(transaction, nats, stream).await?;
    if truth.messages == 0 {
        return Ok(());
    }
    let found = jetstream::new(nats.clone())
        .get_stream_no_info(&stream.name)
        .await;
    let found = found.map_err(|e| Error::transient(DURING, &e))?;
    let mut headers = Headers::behind(&found, 0, Vec::new(), DURING).await?;
    let (mut ids, mut sequences) = (Vec::new(), Vec::new());
    let mut is_end = false;
    while !is_end {
        match headers.next().await? {
            Some((sequence, message)) => {
                let id = message.headers.as_ref();
                if let Some(id) = id.and_then(|headers| headers.get(envelope::EVENT_ID)) {
                    ids.push(id.to_string());
                    sequences.push(i64::try_from(sequence).unwrap_or(i64::MAX));
                }
                is_end = sequence >= truth.last_sequence;
            }
            None => is_end = true,
        }
        if is_end || ids.len() >= BATCH_RECORDS_MAX {
            let added = transaction.execute(ADD_PRESENT, &[&ids, &sequences]).await;
            added.map_err(|e| Error::sql(DURING, &e))?;
            ids.clear();
            sequences.clear();
        }
    }
    Ok(())
}

/// Notes events that the stream lacks on purpose: they are in quarantine, or were discarded there.
async fn note_absent(
    transaction: &Transaction<'_>,
    nats: &Nats,
    stream: &StreamConfig,
) -> Result<()> {
    let Some(settings) = stream.quarantine() else {
        return Ok(());
    };
    let Some(store) = quarantine::find(nats, &settings).await? else {
        return Ok(());
    };
    let mut items = store.walk().await?;
    while let Some(ids) = items.absent_on_purpose().await? {
        note(transaction, &ids).await?;
    }
    Ok(())
}

/// Notes events that are not missing, wherever they are to come from.
pub async fn note(transaction: &Transaction<'_>, ids: &[String]) -> Result<()> {
    let sequences = vec![0_i64; ids.len()];
    let added = transaction.execute(ADD_PRESENT, &[&ids, &sequences]).await;
    added.map(drop).map_err(|e| Error::sql(DURING, &e))
}

/// Which rows `o` of the table are missing, as an SQL condition.
///
/// # Errors
/// [`Error::Definite`] when the stream has removed messages, and it cannot be told which rows those were.
pub async fn missing(
    transaction: &Transaction<'_>,
    outbox: &Outbox<'_>,
    removed: &Removed,
) -> Result<String> {
    let Outbox { table, id } = outbox;
    let absent = format!("NOT EXISTS (SELECT FROM present p WHERE p.id = {id}::text)");
    let (older, why) = match removed {
        Removed::Nothing => return Ok(absent),
        // The column's own type compares: numbers as numbers.
        Removed::UpToId(given) => {
            return Ok(format!(
                "{absent} AND {id} > '{}'",
                given.replace('\'', "''")
            ));
        }
        Removed::Before(unix_ms) => {
            let least = least_uuid(*unix_ms);
            let is_newer = format!("{id}::text COLLATE \"C\" >= '{least}'");
            (
                Some(is_newer),
                "its rows' ids are not UUIDv7, which tell when they were written",
            )
        }
        Removed::Unknown(why) => (None, why.as_str()),
    };
    let tells_time = match &older {
        Some(_) => format!("{id}::text ~ '^[0-9a-f]{{8}}-[0-9a-f]{{4}}-7'"),
        None => "false".to_owned(),
    };
    let unclear = format!("SELECT count(*) FROM {table} o WHERE {absent} AND NOT ({tells_time})");
    let row = transaction.query_one(&unclear, &[]).await;
    let unclear: i64 = row
        .and_then(|row| row.try_get(0))
        .map_err(|e| Error::sql(DURING, &e))?;
    if unclear > 0 {
        return Err(Error::Definite(format!(
            "{unclear} rows of {table} are not in the stream, and whether it has lost them or removed them on \
             purpose cannot be told: it has removed messages before, and {why}. Look with \
             `cdc-relay reconcile`, and publish those that are missing with \
             `cdc-relay reconcile --publish --after ID`"
        )));
    }
    let is_newer = older.unwrap_or_else(|| "true".to_owned());
    Ok(format!("{absent} AND {is_newer}"))
}

/// What the stream holds behind the last event that the table still has: events of a history that the
/// database has lost, or, where rows are deleted soon, simply the newest.
pub async fn phantoms(
    transaction: &Transaction<'_>,
    outbox: &Outbox<'_>,
) -> Result<Option<Phantoms>> {
    let Outbox { table, id } = outbox;
    let query = format!(
        "WITH known AS (SELECT coalesce(max(p.sequence), 0) AS last FROM present p \
                        JOIN {table} o ON {id}::text = p.id) \
         SELECT count(*), coalesce(min(sequence), 0), coalesce(bool_or(known.last > 0), false) \
         FROM present, known WHERE sequence > known.last"
    );
    let row = transaction.query_one(&query, &[]).await;
    let row = row.map_err(|e| Error::sql(DURING, &e))?;
    let number = |at: usize| {
        row.try_get::<_, i64>(at)
            .map_err(|e| Error::sql(DURING, &e))
    };
    let (count, from_sequence) = (number(0)?, number(1)?);
    let behind_known = row.try_get(2).map_err(|e| Error::sql(DURING, &e))?;
    Ok((count > 0).then_some(Phantoms {
        count,
        from_sequence,
        behind_known,
    }))
}
