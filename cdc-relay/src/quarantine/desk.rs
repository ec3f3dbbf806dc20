//! One session's side of the quarantine: what goes in, in the order of the WAL.
//!
//! ```text
//! batch ─▶ offenders, and rows of held aggregates ─▶ stored in quarantine ─▶ the rest ─▶ appended
//! ```
//!
//! The danger is in the order. The items of a batch are stored before its events are appended, and the
//! ledger acknowledges after both. A crash in between brings the batch again: what stands here already
//! is known and passed over, and the rest is appended then.

use std::time::{Duration, Instant};

use mailbox::envelope;
use metrics::{counter, gauge};
use tokio_postgres::types::PgLsn;

use super::{
    doubt::Behind,
    holds::{Holds, Known, Ready},
    item::{Form, Item, Meta, Names, Role, State, encode_message},
    key::Key,
    make::Maker,
    open::{Settings, find, find_or_create},
    request::now_ms,
    scan::{Found, Start, scan},
    store::Store,
};
use crate::{
    error::{Error, Result},
    history::{Stored, place},
    publish::Limits,
    record::{Layout, Record},
    stream::Truth,
    wal::System,
    window::Batch,
};

/// How often the relay looks for requests while something stands in quarantine.
pub const POLL: Duration = Duration::from_millis(500);

/// A quarantine that no other relay stores in any more.
#[derive(Debug)]
pub struct Claimed {
    store: Result<Store, String>,
    mark: u64,
}

impl Claimed {
    /// Shuts out every other relay. Comes before the stream is read: what was stored until now is seen,
    /// and nothing can follow.
    ///
    /// # Errors
    /// When a quarantine exists that cannot be used. One that cannot be made is an error only once a
    /// row needs it.
    pub async fn claim(client: &async_nats::Client, settings: Option<&Settings>) -> Result<Self> {
        let without = |why: String| Self {
            store: Err(why),
            mark: 0,
        };
        let Some(settings) = settings else {
            return Ok(without("CDC_QUARANTINE_STREAM is `none`".to_owned()));
        };
        let found = match find(client, settings).await? {
            Some(store) => Ok(store),
            None => find_or_create(client, settings).await,
        };
        let mut store = match found {
            Ok(store) => store,
            Err(Error::Definite(why)) => {
                tracing::warn!(
                    why,
                    "without a quarantine, a row that cannot be published will stop the relay"
                );
                return Ok(without(why));
            }
            Err(error) => return Err(error),
        };
        let mark = store.claim().await?;
        Ok(Self {
            store: Ok(store),
            mark,
        })
    }
}

/// Sorts what cannot be published, or has to wait, out of the batches of one session.
#[derive(Debug)]
pub struct Desk<'a> {
    pub(super) store: Result<Store, String>,
    pub(super) maker: Maker<'a>,
    pub(super) holds: Holds,
    pub(super) ready: Ready,
    pub(super) requests_from: u64,
    pub(super) polled: Instant,
    pub(super) behind: Behind,
    known: Known,
    origin: u64,
    /// The stream, and its last sequence when the session began.
    pub(super) stream: String,
    began_at: u64,
    /// The row up to which all is done, and the one up to which it will be after the batch in hand.
    done: Option<Stored>,
    in_hand: Option<Stored>,
}

impl<'a> Desk<'a> {
    /// Reads what stands in quarantine; the slot brings every commit from `confirmed` on. What was
    /// released in the last moment of an earlier session is noted as such.
    pub async fn open(
        claimed: Claimed,
        maker: Maker<'a>,
        truth: &Truth,
        confirmed: PgLsn,
    ) -> Result<Self> {
        let start = Start {
            system: maker.system.id,
            sequence: truth.last_sequence,
            done: truth.last.clone(),
            confirmed: confirmed.into(),
        };
        let found = match &claimed.store {
            Ok(store) => scan(store, claimed.mark, &start).await?,
            Err(_) => Found {
                done: start.done.clone(),
                ..Found::default()
            },
        };
        let mut desk = Self {
            store: claimed.store,
            maker,
            holds: found.holds,
            ready: found.ready,
            requests_from: found.requests_from,
            polled: Instant::now(),
            behind: Behind::default(),
            known: found.known,
            origin: found.origin,
            stream: truth.stream.clone(),
            began_at: truth.last_sequence,
            done: found.done,
            in_hand: None,
        };
        if let Some(place) = &truth.released {
            desk.finish(place, truth.last_sequence).await?;
        }
        desk.show();
        Ok(desk)
    }

    /// The row after which the WAL has to be resumed.
    pub fn done(&self) -> Option<&Stored> {
        self.in_hand.as_ref().or(self.done.as_ref())
    }

    /// Whether there is a quarantine; and if not, why.
    pub fn is_available(&self) -> Result<(), &str> {
        self.store.as_ref().map(|_| ()).map_err(String::as_str)
    }

    /// The server whose rows these are.
    pub fn system(&self) -> System {
        self.maker.system
    }

    /// What rows become.
    pub fn layout(&self) -> &'a Layout {
        self.maker.layout
    }

    /// What a message may be.
    pub fn limits(&self) -> Limits {
        self.maker.limits.clone()
    }

    /// The quarantine itself, if there is one.
    pub fn store(&self) -> Option<&Store> {
        self.store.as_ref().ok()
    }

    /// From now on, what stands here says nothing any more about where the WAL is to be resumed: all of
    /// the table is in the stream or here, and a new slot goes on from there.
    pub async fn begin_anew(&mut self) -> Result<()> {
        if let Ok(store) = &self.store {
            self.origin = store.mark_origin().await?;
        }
        Ok(())
    }

    /// Whether people may have something to decide.
    pub fn has_open(&self) -> bool {
        self.holds.open() > 0
    }

    /// Whether all is done up to the last row that stood here when the session began. A relay that was
    /// killed stored it before it had appended what was committed before it.
    pub(super) fn has_caught_up(&self) -> bool {
        let is_past = |end| {
            self.done()
                .is_some_and(|done| place(done.position) >= place(end))
        };
        self.known.end().is_none_or(is_past)
    }

    /// Whether every batch without an offender passes as it is.
    pub fn is_idle(&self) -> bool {
        self.holds.is_empty() && self.known.is_empty()
    }

    /// A batch passes as it is, that ends with this row; the one before it is appended.
    pub fn pass(&mut self, last: Stored) {
        self.follow(Some(last));
    }

    fn follow(&mut self, last: Option<Stored>) {
        self.done = self.in_hand.take().or_else(|| self.done.take());
        self.in_hand = last;
    }

    /// Takes out of the batch what cannot be appended now, and stores it. The stream stands at
    /// `sequence`, and the batch before this one is appended.
    pub async fn settle(&mut self, batch: &mut Batch, sequence: u64) -> Result<()> {
        self.follow(last_of(batch));
        if batch.offenders.is_empty() && self.is_idle() {
            return Ok(());
        }
        let mut offenders = std::mem::take(&mut batch.offenders).into_iter().peekable();
        let records = std::mem::take(&mut batch.records);
        for (at, record) in records.into_iter().enumerate() {
            while let Some((_, item)) = offenders.next_if(|(before, _)| *before <= at) {
                self.set_aside(*item, sequence).await?;
            }
            if let Some(record) = self.judge(record, batch, sequence).await? {
                batch.records.push(record);
            }
        }
        for (_, item) in offenders {
            self.set_aside(*item, sequence).await?;
        }
        Ok(())
    }

    /// Gives the record back if it may be appended.
    async fn judge(
        &mut self,
        mut record: Record,
        batch: &mut Batch,
        sequence: u64,
    ) -> Result<Option<Record>> {
        let names = names_of(&record);
        if !self.known.is_empty() {
            let key = Key::of(record.position, names.id.as_deref());
            if self.known.contains(&key, record.position) {
                return Ok(None);
            }
        }
        if self.holds.is_empty() || !self.holds.holds(names.bucket(), record.position) {
            return Ok(Some(record));
        }
        if let Some(end) = record.headers.remove(envelope::COMMIT) {
            // The transaction ends with the event before it.
            let lsn = record.position.lsn;
            let before = batch.records.last_mut();
            if let Some(before) = before.filter(|before| before.position.lsn == lsn) {
                before.headers.push_own(envelope::COMMIT, end);
            }
        }
        let body = encode_message(&record.subject, &record.headers, &record.payload);
        let why = "an earlier event of its aggregate is in quarantine";
        let form = (Form::Message, body);
        let item = Item::new(Role::Held, why, record.position, names, form);
        self.set_aside(item, sequence).await?;
        Ok(None)
    }

    async fn set_aside(&mut self, item: Item, sequence: u64) -> Result<()> {
        let (place, position) = (item.place.clone(), item.position);
        if self.known.contains(&place.key, position) {
            return Ok(());
        }
        self.holds.room_for(place.bucket)?;
        let mut meta = self.meta(&item, sequence);
        let store = self.store.as_ref().map_err(Error::definite)?;
        let at = store.put(&place, &mut meta, &item.body).await?;
        self.holds.opened(place.bucket, position, at);
        let id = item.names.id.as_deref().unwrap_or("(none)");
        match item.role {
            Role::Offender => {
                counter!("cdc_relay_quarantined_total", "role" => "offender").increment(1);
                tracing::error!(
                    id, %position, reason = item.reason, item = place.key.short(),
                    "an event cannot be published: it stands in quarantine, and holds the later ones of its \
                     aggregate; see `cdc-relay quarantine list`"
                );
            }
            Role::Held => {
                counter!("cdc_relay_quarantined_total", "role" => "held").increment(1);
                tracing::info!(id, %position, item = place.key.short(), "held: an earlier event of its aggregate is in quarantine");
            }
        }
        self.show();
        Ok(())
    }

    fn meta(&self, item: &Item, sequence: u64) -> Meta {
        Meta {
            state: State::Open,
            role: item.role,
            reason: item.reason.clone(),
            position: item.position,
            names: item.names.clone(),
            table: self.maker.table(),
            stored_at_ms: now_ms(),
            form: item.form,
            bytes: item.body.len(),
            parts: 0,
            upload: String::new(),
            sequence,
            after: self.done.as_ref().map(ToString::to_string),
            origin: self.origin,
            in_doubt: sequence == self.began_at,
            decision: None,
            released: None,
        }
    }

    /// Tells the metrics how much waits.
    pub(super) fn show(&self) {
        gauge!("cdc_relay_quarantine_open").set(self.holds.open() as f64);
        gauge!("cdc_relay_held_aggregates").set(self.holds.held() as f64);
    }
}

/// The columns of a row that made a message.
fn names_of(record: &Record) -> Names {
    let header = |name: &str| {
        let value = record.headers.get(name);
        value.map(str::to_owned)
    };
    Names {
        id: header(envelope::EVENT_ID),
        aggregate_type: header(envelope::AGGREGATE_TYPE),
        aggregate_id: header(envelope::AGGREGATE_ID),
        event_type: header(envelope::EVENT_TYPE),
    }
}

/// The last row of a batch, published or not.
fn last_of(batch: &Batch) -> Option<Stored> {
    let record = batch.records.last();
    let offender = batch.offenders.last().map(|(_, item)| item);
    match (record, offender) {
        (Some(record), Some(item)) if place(record.position) < place(item.position) => {
            Some(Stored::row(item.position, item.names.id.as_deref()))
        }
        (None, Some(item)) => Some(Stored::row(item.position, item.names.id.as_deref())),
        (Some(record), _) => Some(Stored::row(record.position, Some(record.id()))),
        (None, None) => None,
    }
}
