//! The data path on real Postgres and real NATS. One binary, so that the tests share two servers;
//! those that stop a server have their own.

#![allow(
    clippy::unwrap_used,
    reason = "a test that panics has failed, and says where"
)]

mod consumer;
mod dead_letters;
mod failures;
mod halving;
mod inbox;
mod outages;
mod outbox;
mod partitions;
mod redrive;
mod requests;
mod retention;
mod script;
mod suspects;
mod tracing_context;
mod world;
