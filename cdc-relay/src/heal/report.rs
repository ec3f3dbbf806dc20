//! The table against the stream, for a person to read: nothing is changed, and a relay may run beside it.

use std::time::Duration;

use async_nats::Client as Nats;
use tokio_postgres::IsolationLevel;

use super::{
    compare::{self, Outbox, Phantoms},
    floor::Removed,
    verify::{self, Verdict},
};
use crate::{
    config::Config,
    error::{Error, Result},
    primary,
    slot::{self, Slot},
    stream::{Missing, read_truth},
    wal::quote,
};

const DURING: &str = "compare the table with the stream";

/// How long a running relay may take to come past the snapshot.
const CATCH_UP_MAX: Duration = Duration::from_secs(20);

/// What was found.
#[derive(Debug)]
pub struct Report {
    /// The slot, as it is.
    pub slot: String,
    /// A relay has published all that the table held when it was looked at: what is missing is missing.
    /// Otherwise some of it may only be waiting for the relay.
    pub is_caught_up: bool,
    pub messages: u64,
    pub verdict: Verdict,
    /// At the end of the stream, behind events whose rows are still there.
    pub phantoms: Option<Phantoms>,
}

/// Looks; only rows with ids greater than `after` count as missing, where that is said.
pub async fn report(config: &Config, nats: &Nats, after: Option<&str>) -> Result<Report> {
    let (_, mut sql) = primary::connect(&config.source.database_url).await?;
    let (slot, waits) = match slot::find(&sql, &config.source.slot).await {
        Ok(Slot::Ready { .. }) => ("free".to_owned(), false),
        Ok(Slot::Missing) => ("missing".to_owned(), false),
        Ok(Slot::Lost(why)) => (why, false),
        Err(Error::SlotHeld(holder)) => (holder, true),
        Err(error) => return Err(error),
    };
    let mut truth = read_truth(nats, &config.stream, Missing::Heal).await?;
    let begin = sql
        .build_transaction()
        .isolation_level(IsolationLevel::RepeatableRead);
    let transaction = begin.start().await.map_err(|e| Error::sql(DURING, &e))?;
    let hold = if waits {
        CATCH_UP_MAX
    } else {
        Duration::from_millis(1)
    };
    let is_caught_up = verify::passed(&transaction, &config.source.slot, hold).await?;
    if is_caught_up {
        truth = read_truth(nats, &config.stream, Missing::Heal).await?;
    }
    if let Some(after) = after {
        truth.removed = Removed::UpToId(after.to_owned());
    }
    compare::note_present(&transaction, nats, &config.stream, &truth).await?;
    let table = config.source.table.quoted();
    let id = format!("o.{}", quote(&config.columns.id));
    let outbox = Outbox {
        table: &table,
        id: &id,
    };
    let phantoms = compare::phantoms(&transaction, &outbox).await?;
    let verdict = match verify::count(&transaction, &outbox, &truth.removed).await {
        Err(Error::Definite(why)) => Verdict::Unclear(why),
        verdict => verdict?,
    };
    Ok(Report {
        slot,
        is_caught_up,
        messages: truth.messages,
        verdict,
        phantoms: phantoms.filter(|found| found.behind_known),
    })
}
