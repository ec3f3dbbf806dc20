//! Rows that cannot be published, set aside with their reason and their bytes, so that the others flow.
//!
//! ```text
//! window ─batch─▶ desk: an offender, or held behind one? ──yes──▶ quarantine stream: item, open
//!                   │ no                                              │ released: by the relay alone
//!                   ▼                                                 ▼
//!                 append ◀──────────────── in their order ─────── item: released or discarded
//! ```
//!
//! Rows of one aggregate keep their order: behind a row that cannot be published, its aggregate waits.
//! Nothing else does.
//!
//! **Why nothing is lost or doubled.** Two streams cannot be written at once, so the order of the writes
//! has to say everything:
//!
//! 1. *In.* A batch's items are stored, then its events are appended, then the ledger acknowledges. Each
//!    item names the stream's sequence at that moment, and the row up to which all was done before its
//!    batch. A session that begins reads both streams' ends (`scan.rs`): if the stream has not moved since
//!    the newest item, it resumes behind the row that this names; else behind the stream's own last event.
//!    Rows behind that place which stand here already, decided or not, are passed over.
//! 2. *Out.* Released events are appended, then their items closed, and nothing is appended in between.
//!    The stream's last message tells a session that begins whether that is still to be done
//!    (`release.rs`). Each released event says where the WAL was left (`Cdc-Resume`): it stands behind
//!    later events, and must not take the WAL back or forth.
//! 3. *The fence.* A session marks the quarantine stream as its own before it reads anything, and every
//!    item states that mark as the last one. So a relay that was paused while its successor took over
//!    stores and closes nothing: what it had stored before, the successor has read. Its append may still
//!    come, as long as the successor has not appended anything. That doubles a row only where the two
//!    judge it differently (another configuration, other limits): the one publishes it, the other sets it
//!    aside. Items of that time are marked (`in_doubt`), and looked up in the stream before they are
//!    released or discarded (`doubt.rs`): one that stands there is closed, and not published again.
//! 4. *People* write requests and fixes, on subjects of their own. They change nothing until the relay
//!    that holds the slot reads them.

mod desk;
mod doubt;
mod holds;
mod item;
mod key;
mod make;
mod open;
mod release;
mod request;
mod row;
mod scan;
mod store;
mod walk;

pub use crate::pgoutput::Value;

pub use self::{
    desk::{Claimed, Desk, POLL},
    holds::HELD_MAX,
    item::{Decision, Form, Item, Meta, Names, Role, State, decode_message},
    key::{Bucket, Key, Place},
    make::{Maker, names},
    open::{Settings, find, find_or_create},
    request::{Action, Fix, Request},
    row::{Row, encode as encode_row, encode_relation, encode_values},
    store::Store,
    walk::{List, Listed},
};
