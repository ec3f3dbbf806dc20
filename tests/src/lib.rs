//! What every test of this tree stands on, and the demo too: real Postgres, real NATS, our own
//! binaries, started on free ports in scratch directories, and gone afterwards whatever happens.

mod child;
mod eventually;
mod guard;
pub mod http;
mod nats;
mod port;
mod postgres;
pub mod tools;
mod user;

pub use eventually::eventually;
pub use guard::Guard;
pub use nats::Nats;
pub use port::Port;
pub use postgres::Postgres;
