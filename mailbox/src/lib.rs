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
