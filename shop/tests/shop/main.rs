//! `shop` as people and scripts use it, on the whole system: every command, over gRPC and over NATS.

#![allow(clippy::print_stdout, clippy::print_stderr)] // The test harness shows it with a failure.

mod commands;
mod faults;
mod forms;
mod letters;
mod refusals;
mod tls;
mod tokens;
mod world;
