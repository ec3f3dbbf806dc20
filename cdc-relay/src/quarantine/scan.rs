//! What stands in quarantine when a session begins, read once in the order of the stream.
//!
//! It decides where to resume together with the stream. Of a batch, the items are stored first and the
//! events after them. So with the stream at the sequence that the newest items name, all up to what
//! they name as done *is* done, and the rows that are behind that and stand here are of the one batch
//! that was in hand. With the stream further on, that batch is whole, and the stream's end tells more.

use std::time::Duration;

use async_nats::jetstream::consumer::{DeliverPolicy, pull::OrderedConfig};
use futures_util::StreamExt as _;

use super::{
    holds::{Holds, Known, Ready},
    item::{Meta, Role},
    key::Place,
    request::read_request,
    store::Store,
};
use crate::{
    error::{Error, Result},
    history::{Stored, place as order},
};

const DURING: &str = "read the quarantine";

/// What a session goes on from.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) holds: Holds,
    pub(super) known: Known,
    pub(super) ready: Ready,
    /// The row up to which all is done, wherever it stands.
    pub(super) done: Option<Stored>,
    /// Items of an earlier history of the database do not say where to resume.
    pub(super) origin: u64,
    /// Requests from this sequence on have not been looked at.
    pub(super) requests_from: u64,
}

/// How long the next item may take to come.
const ITEM_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the stream of events and the slot stand when a session begins.
#[derive(Clone, Debug)]
pub(super) struct Start {
    /// The server's identifier.
    pub(super) system: u64,
    /// The stream's last sequence.
    pub(super) sequence: u64,
    /// Where its last event says that the WAL is to be resumed.
    pub(super) done: Option<Stored>,
    /// The WAL brings no commit before this one.
    pub(super) confirmed: u64,
}

/// Reads everything up to the session's own mark at sequence `mark`.
pub(super) async fn scan(store: &Store, mark: u64, start: &Start) -> Result<Found> {
    let subjects = store.subjects();
    let origin = store.last(&subjects.origin()).await?;
    let mut found = Found {
        done: start.done.clone(),
        origin: origin.map_or(0, |message| message.sequence),
        requests_from: 1,
        ..Found::default()
    };
    let config = OrderedConfig {
        deliver_policy: DeliverPolicy::All,
        filter_subjects: vec![subjects.session(), subjects.items(), subjects.requests()],
        headers_only: true,
        ..OrderedConfig::default()
    };
    let consumer = store.stream().create_consumer(config).await;
    let consumer = consumer.map_err(|e| Error::transient(DURING, &e))?;
    let messages = consumer.messages().await;
    let mut messages = messages.map_err(|e| Error::transient(DURING, &e))?;
    let mut requests_left = false;
    loop {
        let next = async { Ok(messages.next().await) };
        let Some(message) = Error::within(DURING, ITEM_TIMEOUT, next).await? else {
            return Err(Error::Transient(format!("{DURING}: it ended early")));
        };
        let message = message.map_err(|e| Error::transient(DURING, &e))?;
        let info = message
            .info()
            .map_err(|e| Error::Transient(e.to_string()))?;
        let at = info.stream_sequence;
        if at >= mark {
            break;
        }
        let (Some(place), Some(headers)) = (Place::parse(&message.subject), &message.headers)
        else {
            continue;
        };
        if let Some(meta) = Meta::read(headers) {
            found.item(place, &meta, at, start)?;
        } else if let Some(request) = read_request(headers) {
            requests_left |= found.ready.is_full();
            if !requests_left && request.refused.is_none() {
                found.ready.add(place.bucket, &place.key);
            }
            if !requests_left {
                found.requests_from = at + 1;
            }
        }
    }
    if let Some(done) = &found.done {
        found.known.forget(done.position);
    }
    Ok(found)
}

impl Found {
    fn item(&mut self, place: Place, meta: &Meta, at: u64, start: &Start) -> Result<()> {
        if meta.is_open() {
            let is_head = !self.holds.is_held(place.bucket);
            if is_head && meta.role == Role::Held {
                // What it waited for is decided: it was on its way.
                self.ready.add(place.bucket, &place.key);
            }
            self.holds.opened(place.bucket, meta.position, at);
        }
        let is_of_another = meta.origin != self.origin || meta.position.system != start.system;
        if is_of_another || meta.position.lsn < start.confirmed {
            return Ok(());
        }
        let after = meta
            .after
            .as_ref()
            .and_then(|text| text.parse::<Stored>().ok());
        if let Some(after) = after.filter(|_| meta.sequence == start.sequence) {
            let is_further = |done: &Stored| order(done.position) < order(after.position);
            if self.done.as_ref().is_none_or(is_further) {
                self.known.forget(after.position);
                self.done = Some(after);
            }
        }
        let is_behind = |done: &Stored| order(meta.position) > order(done.position);
        if self.done.as_ref().is_none_or(is_behind) {
            self.known.add(place.key, meta.position)?;
        }
        Ok(())
    }
}
