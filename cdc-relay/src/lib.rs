//! Tails the WAL of an outbox table and publishes its rows to a JetStream stream: in commit order,
//! without gap or repeat (I5), confirming to Postgres only what JetStream has acknowledged (I2).
//!
//! The modules stand in the order in which the data flows.

pub mod config;
pub mod error;

pub mod primary;
pub mod slot;
pub mod standby;
pub mod wal;

pub mod pgoutput;
pub mod spool;

pub mod types;

pub mod record;
pub mod subject;

pub mod history;
pub mod intake;
pub mod window;

pub mod publish;
pub mod stream;
pub mod sync;

pub mod quarantine;

pub mod progress;

pub mod backfill;
pub mod background;
pub mod heal;
pub mod pipeline;
pub mod relay;
pub mod retention;

pub mod preflight;
pub mod status;

pub mod cli;
