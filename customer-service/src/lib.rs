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

/// What the owner of the tables grants to the roles that use them, after migrating.
pub const GRANTS: chassis::database::Grants<'_> = chassis::database::Grants {
    service: &[
        mailbox::grants::RESET,
        mailbox::grants::SERVICE,
        mailbox::grants::REQUESTS,
        include_str!("../grants/service.sql"),
    ],
    relay: &[mailbox::grants::RESET, mailbox::grants::RELAY],
    auditor: &[
        mailbox::grants::RESET,
        mailbox::grants::AUDITOR,
        include_str!("../grants/auditor.sql"),
    ],
};

pub mod config;

pub mod api;
pub mod once;
pub mod reactions;

pub mod wire;

pub mod domain;

pub mod store;
