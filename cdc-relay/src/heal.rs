//! What is wrong between table, slot and stream, in words, and whether the relay may mend it.
//!
//! Whatever is found, the mend is one: compare the table with the stream in a snapshot, and publish what
//! the stream lacks. Where the slot is of no use, it is dropped, and another one made behind all of that
//! (`backfill.rs`): its absence is the lasting mark that this is not done. Where it is the stream alone that
//! has lost something, the slot stays as it is (`backfill/kept.rs`), because it may have what no table has
//! any more; the mark stands on the stream (`mark.rs`). A crash in between begins it again.
//!
//! The danger: what is gone from the table cannot be published again, and what the stream lacks on
//! purpose (its limits removed it) must not be.

use std::fmt;

use crate::{
    config::{Healing, Policy},
    error::Error,
};

pub mod compare;
pub mod consumers;
pub mod floor;
pub mod mark;
pub mod memory;
pub mod report;
pub mod verify;

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A first start, or somebody dropped the slot.
    NoSlot,
    /// Postgres can no longer stream from the slot.
    SlotLost(String),
    /// The stream holds events that this server's WAL never had, or has no more.
    OtherHistory(String),
    /// The stream was deleted behind the slot.
    StreamDeleted(String),
    /// The stream lacks events that it had acknowledged.
    LostTail(String),
    /// Somebody asked for it: `cdc-relay reconcile --publish`.
    Requested,
}

impl Cause {
    /// For the metric's label.
    pub fn label(&self) -> &'static str {
        match self {
            Self::NoSlot => "no_slot",
            Self::SlotLost(_) => "slot_lost",
            Self::OtherHistory(_) => "other_history",
            Self::StreamDeleted(_) => "stream_deleted",
            Self::LostTail(_) => "lost_tail",
            Self::Requested => "requested",
        }
    }

    /// The slot has all that is not in the stream and was never confirmed to have been.
    pub fn keeps_slot(&self) -> bool {
        matches!(
            self,
            Self::StreamDeleted(_) | Self::LostTail(_) | Self::Requested
        )
    }

    /// What cannot be made good in this way.
    pub fn limits(&self) -> &'static str {
        match self {
            Self::NoSlot | Self::SlotLost(_) => {
                "rows that were deleted from the table before they were published are lost"
            }
            Self::OtherHistory(_) => {
                "events that the stream holds and the database no longer has stay in the stream, and \
                 consumers may have acted on them"
            }
            Self::StreamDeleted(_) | Self::LostTail(_) | Self::Requested => {
                "events that were confirmed and whose rows are gone from the table cannot be published again; \
                 what is published again gets new sequences"
            }
        }
    }

    /// `self` if the relay may mend it by itself, or the refusal with its mend.
    pub fn permitted(self, healing: &Healing, slot: &str) -> Result<Self, Error> {
        let policy = match self {
            Self::NoSlot | Self::Requested => Policy::Heal,
            Self::StreamDeleted(_) => healing.deleted,
            _ => healing.policy,
        };
        let from_slot = self.keeps_slot() || self == Self::NoSlot;
        if policy == Policy::Heal && (healing.has_table || from_slot) {
            return Ok(self);
        }
        if !healing.has_table {
            return Err(self.without_table(slot));
        }
        let variable = match self {
            Self::StreamDeleted(_) => "CDC_STREAM_DELETED",
            _ => "CDC_HEAL",
        };
        let mend = if self.keeps_slot() {
            "`cdc-relay reconcile --publish`"
        } else {
            &format!(
                "SELECT pg_drop_replication_slot('{slot}'); then the relay makes a new slot and does so"
            )
        };
        Err(Error::Definite(format!(
            "{self}; {variable}=refuse forbids the relay to mend that by itself. \
             `cdc-relay reconcile` shows what the stream lacks; to have it published from the table: {mend}"
        )))
    }
}

impl Cause {
    /// The refusal where no table holds the events.
    fn without_table(self, slot: &str) -> Error {
        let mend = match self {
            Self::StreamDeleted(_) => "create the stream again, and the relay goes on there",
            Self::LostTail(_) => "start the relay again, and it goes on behind them",
            Self::OtherHistory(_) => "give the relay a new stream",
            Self::NoSlot | Self::Requested | Self::SlotLost(_) => {
                &format!("SELECT pg_drop_replication_slot('{slot}'), and the relay makes a new one")
            }
        };
        Error::Definite(format!(
            "{self}; events that are missing now are lost: they were messages, and no table holds them \
             (CDC_MESSAGE_PREFIX). To go on without them: {mend}"
        ))
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSlot => f.write_str("there is no slot yet"),
            Self::Requested => f.write_str("reconcile --publish was asked for"),
            Self::SlotLost(why)
            | Self::OtherHistory(why)
            | Self::StreamDeleted(why)
            | Self::LostTail(why) => f.write_str(why),
        }
    }
}
