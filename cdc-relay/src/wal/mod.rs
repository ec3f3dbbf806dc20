//! The replication protocol, spoken on `postgres-protocol` and tokio: connect and authenticate, a few
//! commands, then one copy-both stream that is split into a reader of the WAL and a writer of status.
//!
//! ```text
//! Connection ── identify_system, create_temporary_slot
//!     └─ start_replication ─┬─ WalReader   XLogData, keepalives
//!                           └─ WalWriter   standby status
//! ```

mod authenticate;
mod connection;
mod frame;
mod gather;
mod stream;

pub use connection::{Connection, Snapshot, System};
pub(crate) use connection::{literal, quote};
pub use stream::{Event, WalReader, WalWriter};
