//! What every test of this tree stands on, and the demo too: real Postgres, real NATS, our own
//! binaries, started on free ports in scratch directories, and gone afterwards whatever happens.

mod backup;
pub mod books;
pub mod certificates;
mod child;
mod eventually;
mod guard;
pub mod http;
mod issuer;
mod key_order;
mod key_server;
mod link;
mod log;
mod metrics;
mod nats;
mod port;
mod postgres;
mod process;
mod roles;
mod system;
pub mod tools;
mod user;

pub use eventually::eventually;
pub use guard::Guard;
pub use issuer::{Algorithm, Issuer, Signer, Token, jwks};
pub use key_order::Rows;
pub use key_server::{Answer, KeyServer};
pub use link::Link;
pub use log::Log;
pub use nats::{Nats, NatsCluster};
pub use port::Port;
pub use postgres::Postgres;
pub use process::{Process, binary};
pub use roles::Role;
pub use system::{Builder, Shared, Side, System};
