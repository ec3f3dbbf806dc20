//! Whatever comes over the wire is taken or refused, and never a panic: frames, chunks, messages,
//! descriptions, rows.
//!
//! An input is a recording of the copy stream, or, where its first byte is odd, messages of the plugin,
//! each after its length in two bytes: so that what is found need not get through the frames first.

#![no_main]

use std::{cell::RefCell, io::Cursor, path::PathBuf};

use bytes::Bytes;
use cdc_relay::{
    config::{self, Table},
    pgoutput::{Message, decode},
    record::{Layout, Mapping},
    spool::{CommitOrder, Settings, Spool},
    wal::{Event, WalReader},
};
use clap::{Args as _, Command, FromArgMatches as _};
use libfuzzer_sys::fuzz_target;
use mailbox::envelope::Position;
use tokio::runtime::{Builder, Runtime};

/// What every input needs, made once.
struct Stage {
    runtime: Runtime,
    layout: Layout,
}

impl Stage {
    fn new() -> Option<Self> {
        let command = config::Columns::augment_args(Command::new("fuzz"));
        let matches = config::Message::augment_args(command)
            .try_get_matches_from(["fuzz"])
            .ok()?;
        let columns = config::Columns::from_arg_matches(&matches).ok()?;
        let message = config::Message::from_arg_matches(&matches).ok()?;
        Some(Self {
            runtime: Builder::new_current_thread().enable_time().build().ok()?,
            layout: Layout::of(&columns, &message),
        })
    }
}

thread_local! {
    static STAGE: RefCell<Option<Stage>> = RefCell::new(Stage::new());
}

fn spool() -> Spool {
    let memory = PathBuf::from("/dev/shm");
    let directory = if memory.is_dir() {
        memory
    } else {
        std::env::temp_dir()
    };
    let settings = Settings {
        directory,
        bytes_max: 1 << 24,
    };
    let table = Table {
        schema: "public".to_owned(),
        name: "outbox".to_owned(),
    };
    Spool::new(settings, table)
}

/// Reads a message as the intake does; whether it could be read.
fn take(message: &[u8], layout: &Layout, outbox: &mut Option<Mapping>) -> bool {
    match decode(message) {
        Ok(Message::Relation(relation)) => match Mapping::of(&relation, layout) {
            Ok(mapping) => *outbox = Some(mapping),
            Err(_) => return false,
        },
        Ok(Message::Insert { tuple, .. }) => {
            let position = Position {
                system: 7,
                timeline: 1,
                lsn: 1,
                index: 0,
            };
            if let Some(mapping) = outbox {
                let id = mapping.id(&tuple);
                if let Ok(record) = mapping.record(&tuple, position, layout) {
                    assert_eq!(id.as_deref(), Some(record.id()));
                }
            }
        }
        Ok(_) => {}
        Err(_) => return false,
    }
    true
}

async fn wire(recording: Vec<u8>, layout: &Layout) {
    let mut order = CommitOrder::new(WalReader::of_recording(Cursor::new(recording)), spool());
    let mut outbox = None;
    while let Ok(event) = order.next().await {
        if let Event::Data(message) = event
            && !take(&message, layout, &mut outbox)
        {
            return;
        }
    }
}

fn messages(mut input: &[u8], layout: &Layout) {
    let (mut spool, mut outbox) = (spool(), None);
    while let Some((length, rest)) = input.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes(*length)).min(rest.len());
        let (message, rest) = rest.split_at(length);
        input = rest;
        let Ok(taken) = spool.take(Bytes::copy_from_slice(message)) else {
            return;
        };
        if taken.is_some_and(|message| !take(&message, layout, &mut outbox)) {
            return;
        }
        while spool.has_more() {
            match spool.give() {
                Ok(Some(message)) if take(&message, layout, &mut outbox) => {}
                _ => return,
            }
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((first, rest)) = input.split_first() else {
        return;
    };
    STAGE.with_borrow(|stage| {
        let Some(Stage { runtime, layout }) = stage else {
            panic!("no stage")
        };
        if first % 2 == 0 {
            runtime.block_on(wire(rest.to_vec(), layout));
        } else {
            messages(rest, layout);
        }
    });
});
