//! The stage itself: events from the WAL in, events in commit order out.

use tokio::task::{consume_budget, yield_now};

use super::Spool;
use crate::{
    error::Result,
    wal::{Event, WalReader},
};

/// How much is read before the others get their turn. What only goes to the disk, or is in the stream
/// already, waits for nobody, and the status that keeps the walsender alive must not wait for its end.
const TURN_BYTES: usize = 1024 * 1024;

/// The WAL in commit order.
#[derive(Debug)]
pub struct CommitOrder {
    reader: WalReader,
    spool: Spool,
    /// Bytes since the others had their turn.
    turn_bytes: usize,
}

impl CommitOrder {
    pub fn new(reader: WalReader, spool: Spool) -> Self {
        Self {
            reader,
            spool,
            turn_bytes: 0,
        }
    }

    /// The next event; what is in a chunk does not show. Cancel-safe.
    ///
    /// # Errors
    /// As [`WalReader::next`], and [`crate::error::Error::Spool`] when the disk is full or fails.
    pub async fn next(&mut self) -> Result<Event> {
        loop {
            if self.spool.has_more() {
                // A large transaction comes off the disk without a wait: let the others work.
                consume_budget().await;
                if let Some(message) = self.spool.give()? {
                    return Ok(Event::Data(message));
                }
            }
            if self.turn_bytes > TURN_BYTES {
                self.turn_bytes = 0;
                yield_now().await;
            }
            match self.reader.next().await? {
                Event::Data(message) => {
                    self.turn_bytes += message.len();
                    if let Some(message) = self.spool.take(message)? {
                        return Ok(Event::Data(message));
                    }
                }
                keepalive @ Event::Keepalive { .. } => return Ok(keepalive),
            }
        }
    }

    /// As [`WalReader::finish`].
    pub async fn finish(self) {
        self.reader.finish().await;
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, io::Cursor};

    use super::*;
    use crate::{config::Table, spool::Settings};

    /// A chunk of so many bytes and more, as it comes over the wire; the outbox is not in it.
    fn chunk(bytes: usize) -> Vec<u8> {
        let mut wire = Vec::with_capacity(2 * bytes);
        let mut send = |message: &[u8]| {
            let length = u32::try_from(message.len()).unwrap() + 29;
            wire.push(b'd');
            wire.extend(length.to_be_bytes());
            wire.push(b'w');
            wire.extend([0; 24]);
            wire.extend(message);
        };
        send(b"S\0\0\0\x07\x01");
        let row = [
            &b"I\0\0\0\x07\0\0\0\x09N\0\x01t\0\0\x03\xe8"[..],
            &[b'x'; 1000],
        ]
        .concat();
        for _ in 0..bytes / row.len() {
            send(&row);
        }
        send(b"E");
        wire
    }

    #[tokio::test]
    async fn what_only_goes_to_the_disk_leaves_the_others_their_turn() {
        let settings = Settings {
            directory: std::env::temp_dir(),
            bytes_max: u64::MAX,
        };
        let table = Table {
            schema: "public".to_owned(),
            name: "outbox".to_owned(),
        };
        let bytes = 8 * TURN_BYTES;
        let reader = WalReader::of_recording(Cursor::new(chunk(bytes)));
        let mut order = CommitOrder::new(reader, Spool::new(settings, table));
        let turns = Cell::new(0);
        let others = async {
            loop {
                turns.set(turns.get() + 1);
                yield_now().await;
            }
        };
        tokio::select! {
            // The recording ends.
            ended = order.next() => assert!(ended.is_err()),
            () = others => {}
        }
        assert!(
            turns.get() >= 7,
            "only {} turns in {bytes} bytes",
            turns.get()
        );
    }
}
