//! The whole system, end to end: both services and both relays as processes, a Postgres with both
//! databases and a nats-server. One program, so that its tests run side by side.

mod client;
mod credit;
mod events;
mod foreign;
mod refusals;
mod saga;
mod shared;
