//! An account of every byte of the plugin's messages, written from Postgres' documentation of the
//! formats and not from the relay's decoder, which it judges.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use cdc_relay::pgoutput::{Message, decode};

/// How many messages of each tag there were; `u` counts unchanged TOASTed values, `n` NULLs.
pub type Tally = BTreeMap<char, u64>;

/// Reads each message to its last byte, and has the decoder refuse it with a byte more or less.
pub fn account(messages: &[Bytes], tally: &mut Tally) -> Result<()> {
    let mut in_chunk = false;
    for (at, message) in messages.iter().enumerate() {
        one(message, &mut in_chunk, tally).with_context(|| format!("message {at}: {message:?}"))?;
    }
    ensure!(!in_chunk, "the last chunk has no end");
    Ok(())
}

fn one(message: &[u8], in_chunk: &mut bool, tally: &mut Tally) -> Result<()> {
    let length = measure(message, in_chunk, tally)?;
    ensure!(
        length == message.len(),
        "{} bytes are left",
        message.len() - length
    );
    if !*in_chunk {
        exact(message)?;
    }
    Ok(())
}

/// Takes apart what `pg_recvlogical` wrote: each message with a newline after it.
pub fn split(mut written: &[u8]) -> Result<Vec<Bytes>> {
    let (mut messages, mut in_chunk) = (Vec::new(), false);
    while !written.is_empty() {
        let length = measure(written, &mut in_chunk, &mut Tally::new())?;
        ensure!(
            written.get(length) == Some(&b'\n'),
            "message {} is longer",
            messages.len()
        );
        messages.push(Bytes::copy_from_slice(&written[..length]));
        written = &written[length + 1..];
    }
    Ok(messages)
}

/// How long the message is at the beginning of these bytes.
fn measure(bytes: &[u8], in_chunk: &mut bool, tally: &mut Tally) -> Result<usize> {
    let mut rest = Fields(bytes);
    let tag = rest.u8()?;
    *tally.entry(char::from(tag)).or_default() += 1;
    let in_transaction = b"RYIUDTM".contains(&tag);
    if *in_chunk && in_transaction {
        ensure!(rest.u32()? >= 3, "not an xid");
    }
    match tag {
        b'B' => {
            rest.take(16)?;
            rest.u32()?;
        }
        b'C' => {
            ensure_zero(rest.u8()?)?;
            rest.take(24)?;
        }
        b'O' => {
            rest.take(8)?;
            rest.string()?;
        }
        b'R' => {
            rest.u32()?;
            rest.string()?;
            rest.string()?;
            ensure!(b"dnfi".contains(&rest.u8()?), "an unknown replica identity");
            for _ in 0..rest.u16()? {
                ensure!(rest.u8()? <= 1, "unknown flags of a column");
                rest.string()?;
                rest.take(8)?;
            }
        }
        b'Y' => {
            rest.u32()?;
            rest.string()?;
            rest.string()?;
        }
        b'I' | b'U' | b'D' => {
            rest.u32()?;
            let mut kind = rest.u8()?;
            if tag != b'I' && b"KO".contains(&kind) {
                rest.tuple(tally)?;
                kind = if tag == b'U' { rest.u8()? } else { b'N' };
            } else {
                ensure!(tag != b'D', "a delete of nothing");
            }
            ensure!(kind == b'N', "an unknown kind of tuple");
            if tag != b'D' {
                rest.tuple(tally)?;
            }
        }
        b'T' => {
            let count = rest.u32()?;
            ensure!(rest.u8()? <= 3, "unknown flags of a truncate");
            rest.take(4 * count as usize)?;
        }
        _ => mark(tag, &mut rest, in_chunk)?,
    }
    Ok(bytes.len() - rest.0.len())
}

/// What begins, ends or takes back a chunk.
fn mark(tag: u8, rest: &mut Fields<'_>, in_chunk: &mut bool) -> Result<()> {
    match tag {
        b'S' => {
            ensure!(
                !*in_chunk && rest.u32()? >= 3 && rest.u8()? <= 1,
                "a chunk begins amiss"
            );
            *in_chunk = true;
        }
        b'E' => {
            ensure!(*in_chunk, "a chunk ends that has not begun");
            *in_chunk = false;
        }
        b'c' => {
            rest.u32()?;
            ensure_zero(rest.u8()?)?;
            rest.take(24)?;
        }
        b'A' => {
            rest.u32()?;
            rest.u32()?;
        }
        other => bail!("an unknown tag {other}"),
    }
    Ok(())
}

/// Whether the relay's decoder takes the message, and nothing shorter or longer.
fn exact(message: &[u8]) -> Result<()> {
    if !b"BCRI".contains(&message[0]) {
        return Ok(());
    }
    ensure!(is_taken(message), "the decoder refuses it");
    ensure!(
        !is_taken(&message[..message.len() - 1]),
        "the decoder takes it without its end"
    );
    ensure!(
        !is_taken(&[message, b"\0"].concat()),
        "the decoder overlooks what follows it"
    );
    Ok(())
}

fn is_taken(message: &[u8]) -> bool {
    match decode(message) {
        Ok(Message::Insert { tuple, .. }) => tuple.values().all(|value| value.is_ok()),
        decoded => decoded.is_ok(),
    }
}

fn ensure_zero(flags: u8) -> Result<()> {
    ensure!(flags == 0, "unknown flags");
    Ok(())
}

struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(count).context("cut short")?;
        self.0 = rest;
        Ok(head)
    }

    fn u8(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_be_bytes(self.take(2)?.try_into()?))
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_be_bytes(self.take(4)?.try_into()?))
    }

    fn string(&mut self) -> Result<&'a str> {
        let end = self
            .0
            .iter()
            .position(|byte| *byte == 0)
            .context("no end")?;
        let text = std::str::from_utf8(self.take(end)?)?;
        self.take(1)?;
        Ok(text)
    }

    fn tuple(&mut self, tally: &mut Tally) -> Result<()> {
        for _ in 0..self.u16()? {
            let kind = self.u8()?;
            match kind {
                b'n' | b'u' => *tally.entry(char::from(kind)).or_default() += 1,
                b't' | b'b' => {
                    let length = self.u32()? as usize;
                    self.take(length)?;
                }
                other => bail!("an unknown kind of value {other}"),
            }
        }
        Ok(())
    }
}
