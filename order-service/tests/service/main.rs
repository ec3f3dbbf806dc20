//! The Order Service on a real Postgres: what its statements, locks and constraints promise.

mod api;
mod reactions;
mod support;
