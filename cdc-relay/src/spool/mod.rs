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
mod order;
mod relation;
mod transaction;

use std::path::PathBuf;

pub use chunks::Spool;
pub use order::CommitOrder;

use crate::error::Result;

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

#[cfg(test)]
mod tests;
