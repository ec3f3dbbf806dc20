//! What comes out of quarantine, done by the active relay alone, between two batches.
//!
//! A bucket's items go in their order: what is merely held goes when it is at the head, an offender once
//! somebody has said so. They are appended like everything else, each with its own position, and with a
//! mark of where the WAL is to be resumed, which is not behind them.
//!
//! ```text
//! append(S: items a, b, c) ──▶ close a, b, c ──▶ the next append
//!                          ▲ crash: the stream ends with c, which names its place here
//! ```
//!
//! The danger is a crash between the append and the closing: releasing again would repeat the events.
//! But nothing is appended before the closing. So if the stream's last message was released from
//! quarantine, then a session that begins closes it and the open items before it in its bucket, which
//! went with it. And if it was not, then all that ever was released is closed. A relay that woke up late
//! changes nothing in this: its append is refused by the stream's sequence, its closing by the session.

use std::time::Instant;

use async_nats::jetstream::message::StreamMessage;
use mailbox::envelope::{self, Position};
use metrics::counter;

use super::{
    desk::{Desk, POLL},
    item::{Meta, Role, State},
    key::{Bucket, Key, Place},
    request::{Action, Request},
    store::Store,
};
use crate::{
    error::{Error, Result},
    history::Stored,
    publish::Appender,
    record::Record,
    window::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX},
};

/// Appends from quarantine before the next batch of the WAL. More than one, so that a bucket empties
/// faster than a batch can fill it; and few, so that the others do not wait for long.
const APPENDS_MAX: usize = 4;

/// Items that go in one append.
#[derive(Debug, Default)]
struct Run {
    records: Vec<Record>,
    items: Vec<(Place, Meta)>,
    bytes: usize,
}

impl Run {
    fn is_full(&self) -> bool {
        self.records.len() >= BATCH_RECORDS_MAX || self.bytes >= BATCH_BYTES_MAX / 2
    }

    fn add(&mut self, place: Place, meta: Meta, record: Record) {
        self.bytes += record.bytes();
        self.records.push(record);
        self.items.push((place, meta));
    }
}

/// What is to happen with an item at the head of its bucket.
#[derive(Debug)]
enum Verdict {
    Publish(Box<Record>),
    Discard {
        with_held: bool,
    },
    /// A relay before this one had published it.
    Stands(u64),
    /// Somebody has to decide.
    Wait,
}

impl Desk<'_> {
    /// Does what is asked for and can be done now.
    pub async fn work(&mut self, appender: &mut Appender) -> Result<()> {
        // What comes out now would stand before earlier events of its aggregate that the WAL is to bring
        // again.
        if self.store.is_err() || !self.has_open() || !self.has_caught_up() {
            return Ok(());
        }
        if self.polled.elapsed() >= POLL {
            self.poll().await?;
        }
        for _ in 0..APPENDS_MAX {
            let Some((bucket, key)) = self.ready.pop() else {
                break;
            };
            self.advance(bucket, key, appender).await?;
            self.show();
        }
        Ok(())
    }

    /// Whether [`Self::work`] has something to do at once.
    pub fn has_work(&self) -> bool {
        !self.ready.is_empty() && self.has_caught_up()
    }

    async fn poll(&mut self) -> Result<()> {
        self.polled = Instant::now();
        let store = store(&self.store)?;
        let requests = store.subjects().requests();
        while !self.ready.is_full() {
            let Some(message) = store.next(&requests, self.requests_from).await? else {
                break;
            };
            self.requests_from = message.sequence + 1;
            if let Some(place) = Place::parse(&message.subject) {
                self.ready.add(place.bucket, &place.key);
            }
        }
        Ok(())
    }

    /// Publishes from the head of a bucket what may go.
    async fn advance(
        &mut self,
        bucket: Bucket,
        key: Option<Key>,
        appender: &mut Appender,
    ) -> Result<()> {
        let mut run = Run::default();
        if let Some(key) = key {
            // It stands for itself.
            let place = Place { bucket, key };
            let item = store(&self.store)?.item(&place).await?;
            if let Some((meta, message)) = item.filter(|(meta, _)| meta.is_open()) {
                self.take(place, meta, message, &mut run).await?;
            }
            return self.append(run, appender).await;
        }
        let mut from = self.holds.first(bucket);
        while let Some((meta, message)) = store(&self.store)?.next_of(bucket, from).await? {
            let behind = message.sequence + 1;
            if let Some(place) = Place::parse(&message.subject).filter(|_| meta.is_open()) {
                if run.is_full() {
                    self.ready.add(bucket, &place.key);
                    break;
                }
                if !self.take(place, meta, message, &mut run).await? {
                    break;
                }
            }
            from = behind;
        }
        self.append(run, appender).await?;
        self.holds.passed(bucket, from);
        Ok(())
    }

    /// Adds the item to what is appended, or discards it. False: it has to wait, and so do those behind.
    async fn take(
        &mut self,
        place: Place,
        mut meta: Meta,
        message: StreamMessage,
        run: &mut Run,
    ) -> Result<bool> {
        let mut verdict = self.verdict(&place, &mut meta, message).await?;
        if !matches!(verdict, Verdict::Wait)
            && let Some(sequence) = self.standing(&meta).await?
        {
            verdict = Verdict::Stands(sequence);
        }
        match verdict {
            Verdict::Publish(record) => run.add(place, meta, *record),
            Verdict::Discard { with_held } => {
                if with_held {
                    self.discard_held(&place).await?;
                }
                self.close(&place, meta, State::Discarded).await?;
            }
            Verdict::Stands(sequence) => {
                tracing::warn!(
                    item = place.key.short(),
                    sequence,
                    "an event in quarantine stands in the stream already: a relay before this one had it on its way; nothing is published"
                );
                meta.released = Some(sequence);
                self.close(&place, meta, State::Released).await?;
            }
            Verdict::Wait => return Ok(false),
        }
        Ok(true)
    }

    /// Where the event stands in the stream already, if it does.
    async fn standing(&mut self, meta: &Meta) -> Result<Option<u64>> {
        let client = store(&self.store)?.client();
        self.behind.find(client, &self.stream, meta).await
    }

    async fn verdict(
        &self,
        place: &Place,
        meta: &mut Meta,
        message: StreamMessage,
    ) -> Result<Verdict> {
        let store = store(&self.store)?;
        let mut why = None;
        if meta.role == Role::Held {
            let body = store.body(place, meta, message.payload.clone()).await?;
            match self.maker.make(meta, &body, None) {
                Ok(record) => return Ok(self.publish(record)),
                // The limits have changed since: now it is an offender itself.
                Err(reason) => why = Some(reason),
            }
        }
        let Some(request) = store.request(place).await? else {
            if let Some(why) = why {
                self.refuse(place, Request::by_the_relay(), why).await?;
            }
            return Ok(Verdict::Wait);
        };
        if request.refused.is_some() {
            return Ok(Verdict::Wait);
        }
        meta.decision = Some(request.decision.clone());
        if let Action::Discard { with_held } = request.action {
            return Ok(Verdict::Discard { with_held });
        }
        let fix = store.fix(place).await?;
        let body = store.body(place, meta, message.payload).await?;
        match self.maker.make(meta, &body, fix.as_ref()) {
            Ok(record) => Ok(self.publish(record)),
            Err(why) => {
                self.refuse(place, request, why).await?;
                Ok(Verdict::Wait)
            }
        }
    }

    /// Marks the event as one that does not stand at its place.
    fn publish(&self, mut record: Record) -> Verdict {
        let start = Stored::row(
            Position {
                system: self.maker.system.id,
                timeline: self.maker.system.timeline,
                lsn: 0,
                index: 0,
            },
            None,
        );
        let resume = self.done().unwrap_or(&start).to_string();
        record.headers.push_own(envelope::RESUME, resume);
        Verdict::Publish(Box::new(record))
    }

    async fn refuse(&self, place: &Place, request: Request, why: String) -> Result<()> {
        tracing::warn!(item = place.key.short(), why, "cannot be released");
        let refused = Request {
            refused: Some(why),
            ..request
        };
        store(&self.store)?.ask(place, &refused).await
    }

    async fn append(&mut self, mut run: Run, appender: &mut Appender) -> Result<()> {
        if run.records.is_empty() {
            return Ok(());
        }
        for (record, (place, _)) in run.records.iter_mut().zip(&run.items) {
            record.headers.push_own(envelope::QUARANTINE, place);
        }
        let first = appender.last_sequence() + 1;
        appender.append(run.records).await?;
        for (sequence, (place, mut meta)) in (first..).zip(run.items) {
            meta.released = Some(sequence);
            self.close(&place, meta, State::Released).await?;
        }
        Ok(())
    }

    async fn close(&mut self, place: &Place, mut meta: Meta, state: State) -> Result<()> {
        meta.state = state;
        store(&self.store)?.close(place, &meta).await?;
        self.holds.closed(place.bucket);
        let (id, position) = (meta.names.id.as_deref().unwrap_or("(none)"), meta.position);
        let item = place.key.short();
        let decision = meta.decision.unwrap_or_default();
        let (by, why) = (decision.by, decision.why);
        match state {
            State::Released => {
                counter!("cdc_relay_quarantine_closed_total", "as" => "released").increment(1);
                tracing::info!(id, %position, item, by, why, "released from quarantine");
            }
            _ => {
                counter!("cdc_relay_quarantine_closed_total", "as" => "discarded").increment(1);
                tracing::warn!(id, %position, item, by, why, "discarded from quarantine: it is never published");
            }
        }
        Ok(())
    }

    /// Discards what is held behind an item, up to the next offender. The item itself goes last: after a
    /// crash the request still stands, and this begins again.
    async fn discard_held(&mut self, head: &Place) -> Result<()> {
        let Some((_, message)) = store(&self.store)?.item(head).await? else {
            return Ok(());
        };
        let request = store(&self.store)?.request(head).await?;
        let mut from = message.sequence + 1;
        while let Some((mut meta, message)) = store(&self.store)?.next_of(head.bucket, from).await?
        {
            from = message.sequence + 1;
            let Some(place) = Place::parse(&message.subject).filter(|_| meta.is_open()) else {
                continue;
            };
            if meta.role == Role::Offender {
                break;
            }
            meta.decision = request.as_ref().map(|request| request.decision.clone());
            self.close(&place, meta, State::Discarded).await?;
        }
        Ok(())
    }

    /// Closes what an earlier session released and had no time to close: the item at `place`, which is
    /// the stream's last message, at `sequence`, and what went before it.
    pub(super) async fn finish(&mut self, place: &Place, sequence: u64) -> Result<()> {
        let Ok(store) = self.store.clone() else {
            return Ok(());
        };
        if place.bucket.is_alone() {
            let item = store.item(place).await?;
            if let Some((mut meta, _)) = item.filter(|(meta, _)| meta.is_open()) {
                meta.released = Some(sequence);
                self.close(place, meta, State::Released).await?;
            }
            return Ok(());
        }
        let last = store.item(place).await?;
        let Some((_, last)) = last.filter(|(meta, _)| meta.is_open()) else {
            return Ok(());
        };
        let mut from = self.holds.first(place.bucket);
        while let Some((mut meta, message)) = store.next_of(place.bucket, from).await? {
            if message.sequence > last.sequence {
                break;
            }
            from = message.sequence + 1;
            let Some(item) = Place::parse(&message.subject).filter(|_| meta.is_open()) else {
                continue;
            };
            if item == *place {
                meta.released = Some(sequence);
            }
            self.close(&item, meta, State::Released).await?;
        }
        Ok(())
    }
}

fn store(store: &Result<Store, String>) -> Result<&Store> {
    store.as_ref().map_err(Error::definite)
}
