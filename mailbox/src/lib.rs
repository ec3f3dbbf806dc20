//! Transactional outbox and idempotent inbox between Postgres and NATS JetStream.
//!
//! A service that must change its database *and* tell others cannot write to both: one of the two
//! writes can be lost. With this crate it writes to Postgres alone. The state change and the
//! [`outbox`] rows commit together; a change-data-capture relay publishes the rows to JetStream; and
//! the [`consumer`] at the other end claims each event in its own [`inbox`], in the transaction that
//! applies it, so that an event delivered twice is applied once.
//!
//! The modules stand in the order in which the data flows.

pub mod requests;

pub mod outbox;

pub mod envelope;

pub mod inbox;

pub mod consumer;

pub mod dead_letter;

pub mod partitions;

pub mod retention;

pub mod coalescing;

mod backoff;
mod meters;

mod embedded {
    refinery::embed_migrations!("migrations");
}

/// Compiles the examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;

/// The migrations of the outbox, the inbox and their partitions, in the schema `public`.
///
/// They carry their own version numbers: give them a history table of their own
/// (`set_migration_table_name`), apart from the service's migrations.
#[must_use]
pub fn migrations() -> refinery::Runner {
    embedded::migrations::runner()
}

/// What the roles that use the mailbox's tables are granted by their owner. In
/// them `:"role"` and `:'role'` stand for the role, as in psql. `RESET` comes first: it takes back what the
/// role had.
pub mod grants {
    /// Takes back whatever the role was granted, but for the way into the database.
    pub const RESET: &str = include_str!("../grants/reset.sql");
    /// To the role that a service runs as.
    pub const SERVICE: &str = include_str!("../grants/service.sql");
    /// To the same, where there is the table of [`crate::requests`].
    pub const REQUESTS: &str = include_str!("../grants/requests.sql");
    /// To the role of the relay.
    pub const RELAY: &str = include_str!("../grants/relay.sql");
    /// To the role that compares outbox and stream.
    pub const AUDITOR: &str = include_str!("../grants/auditor.sql");
}
