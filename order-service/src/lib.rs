//! The Order Service. The modules stand in the order in which a request, and then the answer to
//! it, flow through.
//!
//! ```text
//! gRPC / NATS request ─► api ─► wire ─► domain ─► backlog ─► placing ─► store + outbox   one transaction (I1)
//! JetStream answer ─► consumer ─► inbox ─► reactions ─► wire ─► domain ─► store + outbox   (I4)
//! WatchOrder, wait ─► api ─► watch ◄─ the outcome, whichever replica saw to it
//! clock ─► sweeper ─► domain ─► store + outbox                          a deadline passed (I8)
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
pub mod backlog;
pub mod once;
mod placing;
pub mod reactions;
pub mod sweeper;
pub mod watch;

pub mod changes;

pub mod wire;

pub mod domain;

pub mod store;
