//! The messages that the relay has made of the backlog, in a file: what is published without Postgres is
//! the same, byte for byte.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use async_nats::jetstream::{consumer::pull::OrderedConfig, stream::Stream};
use futures_util::StreamExt;

/// What belongs to the append that stored a message, not to the message.
const OF_AN_APPEND: [&str; 2] = ["Nats-Batch-", "Nats-Expected-"];

/// Writes all messages of the stream; each as three lengths, then subject, headers, payload.
pub(super) async fn save(stream: &Stream, count: u64, path: &Path) -> Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    let consumer = stream.create_consumer(OrderedConfig::default()).await?;
    let mut messages = consumer.messages().await?;
    for _ in 0..count {
        let message = messages.next().await.context("the stream ended")??;
        let mut headers = Vec::from(*b"NATS/1.0\r\n");
        for (name, values) in message.headers.iter().flat_map(async_nats::HeaderMap::iter) {
            let name: &str = name.as_ref();
            if OF_AN_APPEND.iter().any(|prefix| name.starts_with(prefix)) {
                continue;
            }
            for value in values {
                write!(headers, "{name}: {value}\r\n")?;
            }
        }
        let parts = [message.subject.as_bytes(), &headers, &message.payload];
        for part in parts {
            file.write_all(&u32::try_from(part.len())?.to_le_bytes())?;
        }
        for part in parts {
            file.write_all(part)?;
        }
    }
    file.flush()?;
    Ok(())
}

/// The messages of a file, in memory.
#[derive(Debug)]
pub(super) struct Messages {
    bytes: Vec<u8>,
    index: Vec<[Range<usize>; 3]>,
}

impl Messages {
    /// Reads the first `count` of them.
    pub(super) fn load(path: &Path, count: usize) -> Result<Self> {
        let bytes = std::fs::read(path)?;
        let mut index = Vec::with_capacity(count);
        let mut at = 0;
        while index.len() < count && at < bytes.len() {
            let mut start = at + 12;
            let mut part = |field: usize| -> Result<Range<usize>> {
                let length = bytes
                    .get(at + 4 * field..at + 4 * field + 4)
                    .context("cut off")?;
                let length = u32::from_le_bytes(length.try_into()?) as usize;
                let range = start..start + length;
                start = range.end;
                Ok(range)
            };
            let parts = [part(0)?, part(1)?, part(2)?];
            at = parts[2].end;
            index.push(parts);
        }
        ensure!(
            at <= bytes.len() && index.len() == count,
            "the file holds fewer messages"
        );
        Ok(Self { bytes, index })
    }

    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// Adds a message to `out` as it goes over the wire, with more headers (lines, each with its end)
    /// and, if it is to be answered, where to.
    pub(super) fn put(
        &self,
        at: usize,
        more: &str,
        reply: Option<&str>,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let [subject, headers, payload] = &self.index[at];
        let headers_bytes = headers.len() + more.len() + 2;
        out.extend_from_slice(b"HPUB ");
        out.extend_from_slice(&self.bytes[subject.clone()]);
        if let Some(reply) = reply {
            write!(out, " {reply}")?;
        }
        write!(
            out,
            " {headers_bytes} {}\r\n",
            headers_bytes + payload.len()
        )?;
        out.extend_from_slice(&self.bytes[headers.clone()]);
        out.extend_from_slice(more.as_bytes());
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(&self.bytes[payload.clone()]);
        out.extend_from_slice(b"\r\n");
        Ok(())
    }
}
