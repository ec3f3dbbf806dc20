//! The whole system, end to end: both services and both relays as processes, a Postgres with both
//! databases and a nats-server. One program, so that its tests run side by side.

#![allow(clippy::print_stdout, clippy::print_stderr)] // The test harness shows it with a failure.

mod abuse;
mod cancel;
mod client;
mod crash;
mod credit;
mod deadline;
mod events;
mod foreign;
mod idle;
mod in_hand;
mod letters;
mod load;
mod lost;
mod page;
mod permissions;
mod redelivery;
mod refusals;
mod replicas;
mod retention;
mod roles;
mod saga;
mod shared;
mod statements;
mod tokens;
mod watch;
