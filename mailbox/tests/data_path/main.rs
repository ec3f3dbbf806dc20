//! The data path on real Postgres and real NATS. One binary, so that the tests share two servers;
//! those that stop a server have their own.

mod consumer;
mod failures;
mod inbox;
mod outages;
mod outbox;
mod partitions;
mod tracing_context;
mod world;
