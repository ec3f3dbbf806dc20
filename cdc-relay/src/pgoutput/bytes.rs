//! Reads the fields of a message, big-endian, and never past its end.

use tokio_postgres::types::PgLsn;

use super::{Malformed, Result, Value};

/// What is left of a message; each call takes from its front.
pub(super) struct Bytes<'a>(pub(super) &'a [u8]);

impl<'a> Bytes<'a> {
    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (head, rest) = self
            .0
            .split_at_checked(count)
            .ok_or(Malformed("it ends too early"))?;
        self.0 = rest;
        Ok(head)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (head, rest) = self
            .0
            .split_first_chunk()
            .ok_or(Malformed("it ends too early"))?;
        self.0 = rest;
        Ok(*head)
    }

    pub(super) fn u8(&mut self) -> Result<u8> {
        self.array().map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn lsn(&mut self) -> Result<PgLsn> {
        self.u64().map(PgLsn::from)
    }

    /// A string that ends in a zero byte.
    pub(super) fn text(&mut self) -> Result<&'a str> {
        let end = self.0.iter().position(|&byte| byte == 0);
        let text = self.take(end.ok_or(Malformed("a string without an end"))?)?;
        self.take(1)?;
        std::str::from_utf8(text).map_err(|_| Malformed("a name that is not UTF-8"))
    }

    pub(super) fn value(&mut self) -> Result<Value<'a>> {
        let kind = self.u8()?;
        match kind {
            b'n' => return Ok(Value::Null),
            b'u' => return Ok(Value::Unchanged),
            b't' | b'b' => {}
            _ => return Err(Malformed("a value of a kind that is not known")),
        }
        let length = usize::try_from(self.u32()?).map_err(|_| Malformed("a value too long"))?;
        let bytes = self.take(length)?;
        Ok(if kind == b't' {
            Value::Text(bytes)
        } else {
            Value::Binary(bytes)
        })
    }

    /// Nothing may be left: bytes that nobody has read are a protocol that is not known.
    pub(super) fn end(&self) -> Result<()> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(Malformed("it goes on after its end"))
        }
    }
}
