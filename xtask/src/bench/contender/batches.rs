//! Atomic batches of the largest size, one in flight: what an append that is to be a fence costs at
//! least.

use std::fmt::Write;

use anyhow::Result;

use crate::bench::{
    messages::Messages,
    wire::{INBOX, Wire},
};

const BATCH: usize = 1000;

pub(super) fn run(wire: &mut Wire, messages: &Messages) -> Result<()> {
    let (mut frames, mut headers) = (Vec::new(), String::new());
    let mut at = 0;
    while at < messages.len() {
        frames.clear();
        let end = messages.len().min(at + BATCH);
        for (index, message) in (at..end).enumerate() {
            headers.clear();
            write!(
                headers,
                "Nats-Batch-Id: b{at}\r\nNats-Batch-Sequence: {}\r\n",
                index + 1
            )?;
            if index == 0 {
                write!(headers, "Nats-Expected-Last-Sequence: {at}\r\n")?;
            }
            let is_last = message + 1 == end;
            if is_last {
                headers.push_str("Nats-Batch-Commit: 1\r\n");
            }
            messages.put(message, &headers, is_last.then_some(INBOX), &mut frames)?;
        }
        wire.send(&frames)?;
        wire.acknowledged()?;
        at = end;
    }
    Ok(())
}
