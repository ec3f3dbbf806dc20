//! Commit order. With protocol version 2 Postgres sends a large transaction in chunks while it is
//! still running; the stream takes transactions whole, one after the other. So chunks wait on disk, a
//! file for each transaction, and come out when theirs has committed, as if it had arrived then.
//!
//! ```text
//! WalReader ─┬─ whole transactions ──────────────────────────────▶ Intake
//!            └─ chunks ─▶ file ─▶ dropped at an abort             ▲
//!                            └──▶ at Stream Commit: Begin, rows, Commit
//! ```
//!
//! What passes is the same, message for message, as protocol version 1 would have brought of the
//! outbox: positions do not depend on the mode, and a session may go on where one in the other mode
//! has ended. Nothing is confirmed that waits here: its commit lies further on in the WAL than anything
//! that has ended, and Postgres keeps what it needs to send an open transaction again (I2).
//!
//! Memory is bounded (I12): one buffer to write, one to read, a few kilobytes for each transaction. So
//! is the disk; when it is full or fails, the session starts over with streaming off.

mod chunks;
mod file;
mod index;
mod relation;
mod transaction;

use std::path::PathBuf;

use tokio::task::consume_budget;

pub use chunks::Spool;

use crate::{
    error::Result,
    wal::{Event, WalReader},
};

/// Where transactions wait, and how many bytes they may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub directory: PathBuf,
    pub bytes_max: u64,
}

impl Settings {
    /// Tries whether the directory can be written.
    ///
    /// # Errors
    /// [`crate::error::Error::Spool`] when not.
    pub fn probe(&self) -> Result<()> {
        file::create(&self.directory).map(|_| ())
    }
}

/// The WAL in commit order.
#[derive(Debug)]
pub struct CommitOrder {
    reader: WalReader,
    spool: Spool,
}

impl CommitOrder {
    pub fn new(reader: WalReader, spool: Spool) -> Self {
        Self { reader, spool }
    }

    /// The next event; what is in a chunk does not show. Cancel-safe.
    ///
    /// # Errors
    /// As [`WalReader::next`], and [`crate::error::Error::Spool`] when the disk is full or fails.
    pub async fn next(&mut self) -> Result<Event> {
        loop {
            if self.spool.has_more() {
                // A large transaction comes off the disk without a wait: let the others work.
                consume_budget().await;
                if let Some(message) = self.spool.give()? {
                    return Ok(Event::Data(message));
                }
            }
            match self.reader.next().await? {
                Event::Data(message) => {
                    if let Some(message) = self.spool.take(message)? {
                        return Ok(Event::Data(message));
                    }
                }
                keepalive @ Event::Keepalive { .. } => return Ok(keepalive),
            }
        }
    }

    /// As [`WalReader::finish`].
    pub async fn finish(self) {
        self.reader.finish().await;
    }
}

#[cfg(test)]
mod tests;
