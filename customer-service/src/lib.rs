//! The Customer Service. The modules stand in the order in which requests, and the events of orders
//! that ask for credit, flow through.
//!
//! ```text
//! gRPC / NATS request ─► api ─► wire ─► domain ─► store + outbox        one transaction (I1)
//! JetStream order event ─► consumer ─► inbox ─► reactions ─► wire ─► domain ─► store + outbox   (I4)
//! people, about dead letters ─► (dead-letters) ─► reactions                as if delivered again (I10)
//! ```

// `migrations`: this service's own tables.
refinery::embed_migrations!("migrations");

pub mod config;

pub mod api;
pub mod once;
pub mod reactions;

pub mod wire;

pub mod domain;

pub mod store;
