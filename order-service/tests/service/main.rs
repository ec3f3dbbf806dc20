//! The Order Service on a real Postgres: what its statements, locks and constraints promise.

#![allow(clippy::unwrap_used)]

mod api;
mod backlog;
mod cancel;
mod deadline;
mod json;
mod no_room;
mod once;
mod placing;
mod reactions;
mod replica;
mod support;
mod wait;
mod watch;
mod watchers;
