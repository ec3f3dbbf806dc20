//! One transaction that arrives in chunks, and where it waits.

use std::{fs::File, path::Path};

use super::{
    file::{self, Block, Records},
    index::{Cut, Index, precedes},
    relation::Description,
};
use crate::error::{Error, Result};

/// What is kept of a transaction until it ends.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    /// Made for the first row.
    file: Option<File>,
    /// Where the records end; what the file has beyond was rolled back.
    end: u64,
    /// The most that the file has held: what it takes on the disk.
    pub(super) disk_bytes: u64,
    index: Index,
    /// The outbox's latest description in this transaction.
    pub(super) description: Option<Description>,
    /// Where the file has that description; not yet, or no longer, when `None`.
    written: Option<u64>,
    /// The file has held any.
    pub(super) has_described: bool,
}

impl Transaction {
    /// Takes the outbox's description. It is written with the next row: one that was rolled back with
    /// all its rows is nobody's business.
    pub(super) fn describe(&mut self, description: Description) {
        let is_same = |last: &Description| last.message == description.message;
        if !self.description.as_ref().is_some_and(is_same) {
            self.written = None;
        }
        self.description = Some(description);
    }

    /// Whether the file has the latest description.
    pub(super) fn is_described(&self) -> bool {
        self.written.is_some()
    }

    /// Adds a message of the (sub)transaction `xid`, tag and rest.
    pub(super) fn add(&mut self, block: &mut Block, xid: u32, parts: [&[u8]; 2]) -> Result<()> {
        self.index.note(xid, self.end);
        if let (Some(description), None) = (&self.description, self.written) {
            self.written = Some(self.end);
            self.has_described = true;
            self.end += block.add(xid, [&description.message, b""])?;
        }
        self.end += block.add(xid, parts)?;
        Ok(())
    }

    /// Writes what was gathered; returns by how much the file has grown on the disk.
    pub(super) fn write(&mut self, block: &mut Block, directory: &Path) -> Result<u64> {
        if block.is_empty() {
            return Ok(0);
        }
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(file::create(directory)?),
        };
        block.write(file, self.end)?;
        let grown = self.end.saturating_sub(self.disk_bytes);
        self.disk_bytes += grown;
        Ok(grown)
    }

    /// Takes back what belongs to the subtransaction, or began after it. Only between chunks: all has
    /// been written.
    pub(super) fn roll_back(&mut self, xid: u32) -> Result<()> {
        let (end, highest) = match self.index.cut(xid) {
            Cut::Nowhere => return Ok(()),
            Cut::At(offset) => (offset, None),
            Cut::Between { from, to } => self.search(xid, from, to)?,
        };
        self.index.was_cut(xid, highest);
        self.end = end;
        self.written = self.written.filter(|&written| written < end);
        Ok(())
    }

    /// Where the first row begins whose id is `xid` or higher, and the highest id before it.
    fn search(&self, xid: u32, from: u64, to: u64) -> Result<(u64, Option<(u32, u64)>)> {
        let mut records = self.records(from, to)?;
        let mut highest: Option<(u32, u64)> = None;
        loop {
            let offset = records.offset();
            match records.next()? {
                Some((id, _)) if precedes(id, xid) => {
                    if highest.is_none_or(|(highest, _)| precedes(highest, id)) {
                        highest = Some((id, offset));
                    }
                }
                _ => return Ok((offset, highest)),
            }
        }
    }

    /// All that was not rolled back, in the order of its arrival; `None` when nothing is left.
    pub(super) fn replay(&self) -> Result<Option<Records>> {
        if self.end == 0 {
            return Ok(None);
        }
        self.records(0, self.end).map(Some)
    }

    fn records(&self, from: u64, to: u64) -> Result<Records> {
        let file = self.file.as_ref().map(File::try_clone);
        match file {
            Some(Ok(file)) => Ok(Records::between(file, from, to)),
            Some(Err(error)) => Err(Error::Spool(format!(
                "a file of it cannot be read: {error}"
            ))),
            None => Err(Error::definite("a transaction in chunks has lost its file")),
        }
    }
}
