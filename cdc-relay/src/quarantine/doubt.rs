//! Whether an item stands in the stream all the same.
//!
//! ```text
//! the session reads the stream's end: S │ items are stored, in doubt │ its first append: from then on,
//!                                       └ S+1 …: what a relay before it had on its way ┘ nobody else's
//! ```
//!
//! A relay that was paused may have had an append on its way that arrives only now, and took a row for one
//! that can be published, by another configuration or other limits. It had one append on its way, so what it
//! stored stands right behind the sequence that the item names.

use std::collections::HashMap;

use async_nats::jetstream;
use mailbox::envelope::{self, Position};

use super::item::Meta;
use crate::{
    error::{Error, Result},
    stream::Headers,
    window::BATCH_RECORDS_MAX,
};

const DURING: &str = "look whether an item of the quarantine stands in the stream";

/// What stands right behind a place of the stream, as much as one append takes (I12). The items of a
/// session's beginning share it.
#[derive(Debug, Default)]
pub(super) struct Behind {
    after: Option<u64>,
    /// Sequences by the event's id, and by its position.
    ids: HashMap<String, u64>,
    positions: HashMap<Place, u64>,
}

/// A position without its timeline: a promotion brings the same row under another.
type Place = (u64, u64, u32);

fn place(position: Position) -> Place {
    (position.system, position.lsn, position.index)
}

impl Behind {
    /// Where the item's event stands in `stream`, if a relay before this one has published it.
    pub(super) async fn find(
        &mut self,
        client: &async_nats::Client,
        stream: &str,
        meta: &Meta,
    ) -> Result<Option<u64>> {
        if !meta.in_doubt {
            return Ok(None);
        }
        if self.after != Some(meta.sequence) {
            *self = Self::default();
            self.read(client, stream, meta.sequence).await?;
            self.after = Some(meta.sequence);
        }
        let by_id = meta.names.id.as_ref().and_then(|id| self.ids.get(id));
        let found = by_id.or_else(|| self.positions.get(&place(meta.position)));
        Ok(found.copied())
    }

    async fn read(&mut self, client: &async_nats::Client, stream: &str, after: u64) -> Result<()> {
        let found = jetstream::new(client.clone())
            .get_stream_no_info(stream)
            .await;
        let found = found.map_err(|e| Error::transient(DURING, &e))?;
        let end = after.saturating_add(BATCH_RECORDS_MAX as u64);
        let mut headers = Headers::behind(&found, after, Vec::new(), DURING).await?;
        while let Some((sequence, message)) = headers.next().await? {
            if sequence > end {
                return Ok(());
            }
            if let Some(headers) = &message.headers {
                if let Some(id) = headers.get(envelope::EVENT_ID) {
                    self.ids.insert(id.to_string(), sequence);
                }
                let position = headers.get(envelope::POSITION);
                if let Some(position) = position.and_then(|text| text.as_str().parse().ok()) {
                    self.positions.insert(place(position), sequence);
                }
            }
        }
        Ok(())
    }
}
