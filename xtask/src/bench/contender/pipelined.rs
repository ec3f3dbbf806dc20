//! Plain publishes, many in flight: the quickest that JetStream takes messages without a promise about
//! their order.

use anyhow::Result;

use crate::bench::{
    messages::Messages,
    wire::{INBOX, Wire},
};

const IN_FLIGHT: usize = 1000;

pub(super) fn run(wire: &mut Wire, messages: &Messages) -> Result<()> {
    let mut frames = Vec::new();
    let (mut sent, mut acknowledged) = (0, 0);
    while acknowledged < messages.len() {
        frames.clear();
        while sent < messages.len() && sent - acknowledged < IN_FLIGHT {
            messages.put(sent, "", Some(INBOX), &mut frames)?;
            sent += 1;
        }
        wire.send(&frames)?;
        acknowledged += wire.acknowledged()?;
    }
    Ok(())
}
