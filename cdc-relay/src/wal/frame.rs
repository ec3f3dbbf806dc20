//! Frames of the Postgres protocol over a byte stream. `postgres-protocol` parses what is inside; the
//! copy-both stream is framed here, because its `Message::parse` refuses `CopyBothResponse`.

use std::io;

use bytes::{Buf as _, Bytes, BytesMut};
use postgres_protocol::message::backend::{Header, Message};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// The largest frame that is taken: far over what a NATS message can carry, far under what would
/// exhaust a small container (I12).
const FRAME_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Room asked for before each read; what the socket holds beyond that comes with the next read.
const READ_BYTES: usize = 64 * 1024;

/// Tag of `CopyBothResponse`.
pub(super) const COPY_BOTH: u8 = b'W';

/// One frame: its tag, and its body without the length.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) tag: u8,
    pub(super) body: Bytes,
}

/// A buffered reader of frames.
#[derive(Debug)]
pub(super) struct Frames<R> {
    source: R,
    buffer: BytesMut,
    /// What the last read brought.
    last_read: usize,
    /// What all reads have brought since it was asked.
    count: usize,
}

impl<R: AsyncRead + Unpin> Frames<R> {
    pub(super) fn new(source: R) -> Self {
        Self {
            source,
            buffer: BytesMut::with_capacity(READ_BYTES),
            last_read: 0,
            count: 0,
        }
    }

    /// Takes the underlying stream apart again; what was read ahead stays in the returned buffer.
    pub(super) fn into_parts(self) -> (R, BytesMut) {
        (self.source, self.buffer)
    }

    pub(super) fn from_parts(source: R, buffer: BytesMut) -> Self {
        Self {
            source,
            buffer,
            last_read: 0,
            count: 0,
        }
    }

    /// Whether the last read emptied the socket.
    pub(super) fn is_drained(&self) -> bool {
        self.last_read < READ_BYTES
    }

    /// How many bytes were read since this was asked last.
    pub(super) fn take_count(&mut self) -> usize {
        std::mem::take(&mut self.count)
    }

    pub(super) fn source(&mut self) -> &mut R {
        &mut self.source
    }

    /// The next frame, if all of it is here.
    pub(super) fn take_buffered(&mut self) -> io::Result<Option<Frame>> {
        let Some(length) = self.buffered()? else {
            return Ok(None);
        };
        let tag = self.buffer[0];
        let mut frame = self.buffer.split_to(length);
        frame.advance(5);
        let body = frame.freeze();
        Ok(Some(Frame { tag, body }))
    }

    /// The next frame. Cancel-safe: what was read stays in the buffer.
    pub(super) async fn next(&mut self) -> io::Result<Frame> {
        loop {
            if let Some(frame) = self.take_buffered()? {
                return Ok(frame);
            }
            self.fill().await?;
        }
    }

    /// The next frame as a message of the ordinary protocol. Cancel-safe.
    pub(super) async fn next_message(&mut self) -> io::Result<Message> {
        loop {
            if self.buffered()?.is_some()
                && let Some(message) = Message::parse(&mut self.buffer)?
            {
                return Ok(message);
            }
            self.fill().await?;
        }
    }

    /// The tag of the next frame, which stays where it is. Cancel-safe.
    pub(super) async fn peek_tag(&mut self) -> io::Result<u8> {
        while self.buffer.is_empty() {
            self.fill().await?;
        }
        Ok(self.buffer[0])
    }

    /// The length of the frame at the front, tag included, if all of it is here.
    fn buffered(&self) -> io::Result<Option<usize>> {
        let Some(header) = Header::parse(&self.buffer)? else {
            return Ok(None);
        };
        let length = usize::try_from(header.len()).map_or(usize::MAX, |len| len.saturating_add(1));
        if length > FRAME_BYTES_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "Postgres sent a message of {length} bytes, more than the {FRAME_BYTES_MAX} that \
                     the relay takes: an outbox row is too large to be an event"
                ),
            ));
        }
        Ok((self.buffer.len() >= length).then_some(length))
    }

    async fn fill(&mut self) -> io::Result<()> {
        self.buffer.reserve(READ_BYTES);
        self.last_read = self.source.read_buf(&mut self.buffer).await?;
        self.count += self.last_read;
        if self.last_read == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "Postgres closed the connection",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap();
        [&[tag][..], &length.to_be_bytes(), body].concat()
    }

    #[tokio::test]
    async fn frames_split_anywhere_come_out_whole() {
        let bytes = [frame(b'd', b"one"), frame(b'c', b"")].concat();
        for cut in 0..=bytes.len() {
            let (left, right) = bytes.split_at(cut);
            let mut frames = Frames::new(tokio::io::AsyncReadExt::chain(left, right));
            let first = frames.next().await.unwrap();
            assert_eq!((first.tag, &first.body[..]), (b'd', &b"one"[..]));
            assert_eq!(frames.next().await.unwrap().tag, b'c');
            let end = frames.next().await.unwrap_err();
            assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
        }
    }

    #[tokio::test]
    async fn a_frame_beyond_the_bound_is_refused_before_it_is_read() {
        let header = [&[b'd'][..], &i32::MAX.to_be_bytes()].concat();
        let error = Frames::new(&header[..]).next().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
