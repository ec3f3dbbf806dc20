//! The Customer Service on a real Postgres: what its statements, locks and constraints promise.

#![allow(clippy::unwrap_used)]

mod api;
mod letters;
mod limits;
mod once;
mod reactions;
mod releases;
mod reservations;
mod support;
