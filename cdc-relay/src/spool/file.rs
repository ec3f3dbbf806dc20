//! A transaction's file: records of `length, id, message`, appended and read in blocks.
//!
//! The file has no name: it is gone when it is closed, and so when this process dies, whatever kills
//! it. There is nothing to tidy up at the next start.

use std::{fs::File, io, os::unix::fs::FileExt as _, path::Path};

use bytes::{Buf as _, Bytes, BytesMut};

use crate::error::{Error, Result};

/// Bytes that are gathered before they are written, and read at once.
pub(super) const BLOCK_BYTES: usize = 256 * 1024;

/// The length of the message, and the id of the subtransaction.
const HEADER_BYTES: usize = 8;

pub(super) fn create(directory: &Path) -> Result<File> {
    tempfile::tempfile_in(directory).map_err(|error| {
        Error::Spool(format!(
            "no file can be made in {}: {error}",
            directory.display()
        ))
    })
}

/// What is to be written at the end of the one file that a chunk is written to.
#[derive(Debug, Default)]
pub(super) struct Block(Vec<u8>);

impl Block {
    /// Adds a record; `parts` are its message. Returns how long the record is.
    pub(super) fn add(&mut self, xid: u32, parts: [&[u8]; 2]) -> Result<u64> {
        let length = parts[0].len() + parts[1].len();
        let as_u32 = u32::try_from(length);
        let as_u32 = as_u32.map_err(|_| Error::definite("a message too long for the spool"))?;
        self.0.extend_from_slice(&as_u32.to_be_bytes());
        self.0.extend_from_slice(&xid.to_be_bytes());
        self.0.extend_from_slice(parts[0]);
        self.0.extend_from_slice(parts[1]);
        Ok((HEADER_BYTES + length) as u64)
    }

    pub(super) fn is_full(&self) -> bool {
        self.0.len() >= BLOCK_BYTES
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Writes what was gathered so that it ends at `end`.
    pub(super) fn write(&mut self, file: &File, end: u64) -> Result<()> {
        let written = file.write_all_at(&self.0, end - self.0.len() as u64);
        written.map_err(|error| failed("written", &error))?;
        self.0.clear();
        // A single large row must not keep its room for ever.
        self.0.shrink_to(2 * BLOCK_BYTES);
        Ok(())
    }
}

/// Reads records one after the other.
#[derive(Debug)]
pub(super) struct Records {
    file: File,
    /// What has been read from the file and not yet given out.
    buffer: BytesMut,
    /// Where the next block begins, and where the last ends.
    next: u64,
    end: u64,
}

impl Records {
    pub(super) fn between(file: File, from: u64, end: u64) -> Self {
        Self {
            file,
            buffer: BytesMut::new(),
            next: from,
            end,
        }
    }

    /// Where the next record begins.
    pub(super) fn offset(&self) -> u64 {
        self.next - self.buffer.len() as u64
    }

    /// The next record's id and message.
    pub(super) fn next(&mut self) -> Result<Option<(u32, Bytes)>> {
        if self.buffer.is_empty() && self.next == self.end {
            return Ok(None);
        }
        self.fill(HEADER_BYTES)?;
        let length = (&self.buffer[..4]).get_u32() as usize;
        self.fill(HEADER_BYTES + length)?;
        let mut record = self.buffer.split_to(HEADER_BYTES + length);
        record.advance(4);
        let xid = record.get_u32();
        Ok(Some((xid, record.freeze())))
    }

    /// Reads on until so many bytes are here.
    fn fill(&mut self, wanted: usize) -> Result<()> {
        let here = self.buffer.len();
        if here >= wanted {
            return Ok(());
        }
        let left = usize::try_from(self.end - self.next).unwrap_or(usize::MAX);
        let more = (wanted - here).max(BLOCK_BYTES).min(left);
        if here + more < wanted {
            let error = io::Error::from(io::ErrorKind::UnexpectedEof);
            return Err(failed("read", &error));
        }
        self.buffer.resize(here + more, 0);
        let read = self.file.read_exact_at(&mut self.buffer[here..], self.next);
        read.map_err(|error| failed("read", &error))?;
        self.next += more as u64;
        Ok(())
    }
}

fn failed(what: &str, error: &io::Error) -> Error {
    Error::Spool(format!("a file of it cannot be {what}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_as_they_were_written_whatever_their_size() {
        let file = create(&std::env::temp_dir()).unwrap();
        let mut block = Block::default();
        let sizes = [0, 1, 100, BLOCK_BYTES - 9, 3 * BLOCK_BYTES, 5];
        let mut end = 0;
        let mut ends = vec![0];
        for (xid, size) in (0..).zip(sizes) {
            end += block.add(xid, [b"I", &vec![7; size]]).unwrap();
            ends.push(end);
            if block.is_full() {
                block.write(&file, end).unwrap();
            }
        }
        block.write(&file, end).unwrap();
        let mut records = Records::between(file, 0, end);
        for ((xid, size), offset) in (0..).zip(sizes).zip(ends) {
            assert_eq!(records.offset(), offset);
            let (id, message) = records.next().unwrap().unwrap();
            assert_eq!((id, message.len()), (xid, size + 1));
            assert_eq!(message[0], b'I');
        }
        assert_eq!(records.next().unwrap(), None);
    }
}
