//! Who waits for orders, and how they hear of the outcome without a database connection of their own.
//!
//! ```text
//!  WatchOrder, wait ─► Hub ◄─ outcomes ─ reader ◄─ table orders: one query for many orders
//!                       ▲                  ▲
//!       stream ORDERS ──┴─ order ids ──────┴── clock: a look at all, where the stream is away
//! ```
//!
//! A signal says *look*, and never what there is to see: the table alone says how an order stands. So a
//! signal that comes twice, late or for nothing does no harm, and whichever replica changed the order, all
//! hear of it.
//!
//! Danger: who looks first and registers then misses what happens in between. And an event can be faster than
//! its own transaction: an order that is still pending after its signal is looked at again.

mod hub;
pub mod reader;
pub mod signals;

pub use hub::{Full, Hub, NoOutcome, Watcher};
