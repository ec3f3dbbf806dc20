//! The microservice chassis: what every process of this tree needs and no domain decides.
//!
//! It knows nothing of events, orders or customers. The modules stand in the order in which a
//! `main` uses them: read the configuration, install telemetry, start tasks, reach the peers,
//! serve requests.

pub mod config;
pub mod health;
pub mod telemetry;
pub mod trace;

pub mod tasks;

pub mod tls;

pub mod postgres;

pub mod database;
pub mod nats;

pub mod admin;
pub mod admission;
pub mod auth;
pub mod code;
pub mod failure;
pub mod grpc;
pub mod invalid;
pub mod listen;
pub mod page;
pub mod precondition;
pub mod rpc;

mod backoff;
mod request;
