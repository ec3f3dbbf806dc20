//! How things stand: slot, lag and stream. It asks the servers, so it needs no relay to run.

mod slot;
mod waiting;

pub use self::{
    slot::{Holder, Slot},
    waiting::Waiting,
};

use std::time::Duration;

use mailbox::envelope::Position;
use tokio::time::timeout;

use crate::{
    config::Config,
    error::{Error, Result},
    history::Stored,
    primary,
    publish::Paths,
    stream,
};

/// How long one peer may take in all.
const LOOK_TIMEOUT: Duration = Duration::from_secs(30);
/// How long NATS may take to be reached.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What was found; a peer that cannot be asked leaves its reason instead.
#[derive(Debug)]
pub struct Status {
    /// `None` where there is no slot.
    pub slot: Result<Option<Slot>>,
    /// What waits behind the slot, or why that cannot be told.
    pub waiting: Result<Waiting>,
    /// `None` where there is no stream.
    pub stream: Result<Option<Stream>>,
}

/// The stream, as far as it matters here.
#[derive(Debug)]
pub struct Stream {
    pub messages: u64,
    pub last_sequence: u64,
    pub paths: Paths,
    pub last: Option<Stored>,
    /// Why the last event cannot be told.
    pub trouble: Option<String>,
}

/// Looks at the stream, and then at the slot and what waits behind it.
pub async fn look(config: &Config) -> Status {
    let stream = Error::within("look at the stream", LOOK_TIMEOUT, streams(config)).await;
    let last = stream.as_ref().ok().and_then(Option::as_ref);
    let last = last.and_then(|stream| stream.last.as_ref());
    let (slot, waiting) = match primary::connect(&config.source.database_url).await {
        Ok((_, sql)) => {
            let during = "look at the slot";
            let slot = Error::within(during, LOOK_TIMEOUT, slot::look(&sql, config)).await;
            let waiting =
                waiting(&sql, config, slot.as_ref(), last.map(|last| last.position)).await;
            (slot, waiting)
        }
        Err(error) => {
            let also = Error::Transient("Postgres cannot be asked".to_owned());
            (Err(error), Err(also))
        }
    };
    Status {
        slot,
        waiting,
        stream,
    }
}

async fn waiting(
    sql: &tokio_postgres::Client,
    config: &Config,
    slot: Result<&Option<Slot>, &Error>,
    stored: Option<Position>,
) -> Result<Waiting> {
    match slot {
        Ok(Some(slot)) if slot.confirmed.is_some() => waiting::count(sql, config, stored).await,
        _ => Err(Error::definite("there is no slot that can be read")),
    }
}

async fn streams(config: &Config) -> Result<Option<Stream>> {
    let connecting = chassis::nats::connect(&config.nats, "cdc-relay-status");
    let client = match timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(Ok(client)) => client,
        Ok(Err(error)) => return Err(Error::Definite(format!("{error:#}"))),
        Err(_) => {
            return Err(Error::Transient(format!(
                "NATS at {} did not answer within {CONNECT_TIMEOUT:?}",
                config.nats.url
            )));
        }
    };
    let Some(look) = stream::look(&client, &config.stream).await? else {
        return Ok(None);
    };
    let (last, trouble) = match look.last {
        Ok(last) => (last, None),
        Err(error) => (None, Some(error.to_string())),
    };
    Ok(Some(Stream {
        messages: look.info.state.messages,
        last_sequence: look.info.state.last_sequence,
        paths: look.paths,
        last,
        trouble,
    }))
}
