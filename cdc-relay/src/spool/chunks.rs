//! Keeps track of chunks: what is in none passes, what is in one waits, and a transaction that has
//! committed comes back whole. Works on messages alone; its only waiting is for the local disk.

use std::collections::HashMap;

use bytes::Bytes;
use metrics::{counter, gauge};

use super::{
    Settings,
    file::{Block, Records},
    relation::{Description, Descriptions},
    transaction::Transaction,
};
use crate::{
    config::Table,
    error::{Error, Result},
    pgoutput::{self, MISPLACED, Mark, StreamCommit, mark, within_chunk},
};

/// How many transactions may wait at once: each has an open file. Postgres streams only what exceeds
/// its `logical_decoding_work_mem`, so this many are out of the ordinary.
const TRANSACTIONS_MAX: usize = 256;

/// What waits, by transaction, and what is on its way out.
#[derive(Debug)]
pub struct Spool {
    settings: Settings,
    waiting: HashMap<u32, Transaction>,
    /// The transaction whose chunk is arriving.
    chunk: Option<u32>,
    block: Block,
    disk_bytes: u64,
    descriptions: Descriptions,
    /// The description that holds for what comes outside of chunks.
    current: Option<Description>,
    /// Which one was passed on last, by its order; 0 when it is not known to be one of these.
    passed_on: u64,
    replay: Option<Replay>,
    /// Goes on after a description.
    next: Option<Bytes>,
}

/// A committed transaction on its way out.
#[derive(Debug)]
struct Replay {
    begin: Option<Bytes>,
    rows: Option<Records>,
    commit: Option<Bytes>,
    disk_bytes: u64,
}

impl Spool {
    pub fn new(settings: Settings, table: Table) -> Self {
        Self {
            settings,
            waiting: HashMap::new(),
            chunk: None,
            block: Block::default(),
            disk_bytes: 0,
            descriptions: Descriptions::of(table),
            current: None,
            passed_on: 0,
            replay: None,
            next: None,
        }
    }

    /// Takes a message, once there is nothing more to come out; gives it back if it is to pass.
    ///
    /// # Errors
    /// [`Error::Spool`] when the disk is full or fails; [`Error::Definite`] when chunks are not as
    /// the protocol has them.
    pub fn take(&mut self, message: Bytes) -> Result<Option<Bytes>> {
        let tag = message.first().copied().unwrap_or_default();
        if let Some(xid) = self.chunk {
            return self.take_in_chunk(xid, tag, &message).map(|()| None);
        }
        match tag {
            b'S' | b'E' | b'c' | b'A' => self.take_mark(&message).map(|()| None),
            b'I' if self.is_behind(&message) => Ok(self.catch_up(message)),
            b'R' => self.describe(&message).map(|()| Some(message)),
            _ => Ok(Some(message)),
        }
    }

    /// Whether something is on its way out, which goes before the next message is taken.
    pub fn has_more(&self) -> bool {
        self.next.is_some() || self.replay.is_some()
    }

    /// The next message that is on its way out.
    ///
    /// # Errors
    /// [`Error::Spool`] when the disk fails.
    pub fn give(&mut self) -> Result<Option<Bytes>> {
        if let Some(message) = self.next.take() {
            return Ok(Some(message));
        }
        let Some(replay) = &mut self.replay else {
            return Ok(None);
        };
        if let Some(begin) = replay.begin.take() {
            return Ok(Some(begin));
        }
        if let Some(rows) = &mut replay.rows {
            if let Some((_, message)) = rows.next()? {
                return Ok(Some(message));
            }
            replay.rows = None;
        }
        let commit = replay.commit.take();
        self.disk_bytes -= replay.disk_bytes;
        self.replay = None;
        self.report();
        Ok(commit)
    }

    fn take_mark(&mut self, message: &[u8]) -> Result<()> {
        match mark(message).map_err(Error::definite)? {
            Some(Mark::Start { xid, is_first }) => self.start(xid, is_first),
            Some(Mark::Commit(commit)) => self.commit(&commit),
            Some(Mark::Abort { xid, subxid }) => self.abort(xid, subxid),
            Some(Mark::Stop) | None => Err(Error::definite(MISPLACED)),
        }
    }

    fn start(&mut self, xid: u32, is_first: bool) -> Result<()> {
        if is_first {
            // What there is of this id is another one's, which ended with its server.
            self.drop_transaction(xid);
            if self.waiting.len() == TRANSACTIONS_MAX {
                return Err(Error::Spool(format!(
                    "more than {TRANSACTIONS_MAX} large transactions are in progress"
                )));
            }
            self.waiting.insert(xid, Transaction::default());
        } else if !self.waiting.contains_key(&xid) {
            return Err(Error::definite(MISPLACED));
        }
        self.chunk = Some(xid);
        Ok(())
    }

    fn take_in_chunk(&mut self, top: u32, tag: u8, message: &[u8]) -> Result<()> {
        let known = self.current.as_ref().map(|current| current.id);
        let Some(transaction) = self.waiting.get_mut(&top) else {
            return Err(Error::definite(MISPLACED));
        };
        match tag {
            b'E' => {
                pgoutput::mark(message).map_err(Error::definite)?;
                self.chunk = None;
                return self.write(top);
            }
            b'S' | b'c' | b'A' | b'B' | b'C' => return Err(Error::definite(MISPLACED)),
            b'I' | b'M' => {
                let (xid, rest) = within_chunk(message).map_err(Error::definite)?;
                let outbox = transaction.description.as_ref().map(|own| own.id).or(known);
                // A logical message is of no table.
                if tag == b'M' || relation_of(rest).is_some_and(|id| Some(id) == outbox) {
                    transaction.add(&mut self.block, xid, [&[tag], rest])?;
                }
            }
            b'R' => {
                let (_, rest) = within_chunk(message).map_err(Error::definite)?;
                let whole = [&b"R"[..], rest].concat();
                let own = transaction.description.as_ref().map(|own| own.id);
                if let Some(description) = self.descriptions.read(&whole, own.or(known))? {
                    transaction.describe(description);
                }
            }
            // Other changes, types, origins: nothing to an outbox.
            _ => {}
        }
        if self.block.is_full() {
            self.write(top)?;
        }
        Ok(())
    }

    fn write(&mut self, xid: u32) -> Result<()> {
        let Some(transaction) = self.waiting.get_mut(&xid) else {
            return Ok(());
        };
        self.disk_bytes += transaction.write(&mut self.block, &self.settings.directory)?;
        if self.disk_bytes > self.settings.bytes_max {
            return Err(Error::Spool(format!(
                "large transactions in progress take more than the {} bytes that they may",
                self.settings.bytes_max
            )));
        }
        self.report();
        Ok(())
    }

    fn abort(&mut self, xid: u32, subxid: u32) -> Result<()> {
        if xid == subxid {
            self.drop_transaction(xid);
            return Ok(());
        }
        match self.waiting.get_mut(&xid) {
            Some(transaction) => transaction.roll_back(subxid),
            None => Ok(()),
        }
    }

    fn commit(&mut self, commit: &StreamCommit) -> Result<()> {
        let Some(transaction) = self.waiting.remove(&commit.xid) else {
            return Err(Error::definite(MISPLACED));
        };
        self.replay = Some(Replay {
            begin: Some(commit.begin_message().into()),
            rows: transaction.replay()?,
            commit: Some(commit.commit_message().into()),
            disk_bytes: transaction.disk_bytes,
        });
        counter!("cdc_relay_spool_replayed_total").increment(1);
        let is_described = transaction.is_described();
        if transaction.has_described {
            self.passed_on = 0;
        }
        if let Some(own) = transaction.description
            && self
                .current
                .as_ref()
                .is_none_or(|current| current.order < own.order)
        {
            if is_described {
                self.passed_on = own.order;
            }
            self.current = Some(own);
        }
        Ok(())
    }

    fn drop_transaction(&mut self, xid: u32) {
        if let Some(transaction) = self.waiting.remove(&xid) {
            self.disk_bytes -= transaction.disk_bytes;
            self.report();
        }
    }

    /// Outside of a chunk.
    fn describe(&mut self, message: &[u8]) -> Result<()> {
        let known = self.current.as_ref().map(|current| current.id);
        if let Some(description) = self.descriptions.read(message, known)? {
            self.passed_on = description.order;
            self.current = Some(description);
        }
        Ok(())
    }

    /// Whether the row is the outbox's, and what was passed on last does not describe it.
    fn is_behind(&self, insert: &[u8]) -> bool {
        self.current.as_ref().is_some_and(|current| {
            current.order != self.passed_on && relation_of(&insert[1..]) == Some(current.id)
        })
    }

    fn catch_up(&mut self, insert: Bytes) -> Option<Bytes> {
        let current = self.current.as_ref()?;
        self.passed_on = current.order;
        self.next = Some(insert);
        Some(current.message.clone())
    }

    /// How many transactions wait, and the bytes on disk.
    pub(super) fn held(&self) -> (usize, u64) {
        (self.waiting.len(), self.disk_bytes)
    }

    fn report(&self) {
        let (transactions, bytes) = self.held();
        gauge!("cdc_relay_spool_bytes").set(bytes as f64);
        gauge!("cdc_relay_spool_transactions").set(transactions as f64);
    }
}

fn relation_of(fields: &[u8]) -> Option<u32> {
    fields.first_chunk().map(|id| u32::from_be_bytes(*id))
}

impl Drop for Spool {
    fn drop(&mut self) {
        // The files go with it.
        gauge!("cdc_relay_spool_bytes").set(0.0);
        gauge!("cdc_relay_spool_transactions").set(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spool() -> Spool {
        let settings = Settings {
            directory: std::env::temp_dir(),
            bytes_max: 1 << 20,
        };
        let table = Table {
            schema: "public".to_owned(),
            name: "outbox".to_owned(),
        };
        Spool::new(settings, table)
    }

    fn start(xid: u32, is_first: bool) -> Bytes {
        let xid = xid.to_be_bytes();
        [&b"S"[..], &xid, &[u8::from(is_first)]].concat().into()
    }

    #[test]
    fn chunks_out_of_their_order_are_an_error_and_never_events() {
        let commit = [&b"c"[..], &[0; 29]].concat();
        let wrong: [&[&[u8]]; 6] = [
            &[b"E"],
            &[&start(7, false)],
            &[&commit],
            &[&start(7, true), &start(8, true)],
            &[&start(7, true), b"B01234567890123456789"],
            &[&start(7, true), b"I\0\0"],
        ];
        for messages in wrong {
            let mut spool = spool();
            let (last, before) = messages.split_last().unwrap();
            for message in before {
                assert_eq!(spool.take(Bytes::copy_from_slice(message)).unwrap(), None);
            }
            let taken = spool.take(Bytes::copy_from_slice(last));
            assert!(
                matches!(taken, Err(Error::Definite(_))),
                "{messages:?}: {taken:?}"
            );
        }
    }

    #[test]
    fn more_transactions_than_may_wait_end_the_session() {
        let mut spool = spool();
        for xid in 0..u32::try_from(TRANSACTIONS_MAX).unwrap() {
            spool.take(start(100 + xid, true)).unwrap();
            spool.take(Bytes::from_static(b"E")).unwrap();
        }
        assert!(matches!(spool.take(start(99, true)), Err(Error::Spool(_))));
        assert_eq!(spool.held().0, TRANSACTIONS_MAX);
    }
}
