//! A NATS client that does nothing but what the ceilings need: it writes frames that stand ready and
//! counts what is acknowledged. So the ceiling is the server's, as far as a client can keep out of it.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// Where acknowledgements go.
pub(super) const INBOX: &str = "_INBOX.bench";
const READ_BYTES: usize = 64 * 1024;
const CONNECT: &str = "CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":true,\
                       \"lang\":\"bench\",\"version\":\"0\",\"protocol\":1}\r\n";

#[derive(Debug)]
pub(super) struct Wire {
    socket: TcpStream,
    buffer: Vec<u8>,
    begin: usize,
}

impl Wire {
    /// Connects, and listens to what goes to `subject`.
    pub(super) fn connect(url: &str, subject: &str) -> Result<Self> {
        let address = url.trim_start_matches("nats://");
        let mut socket = TcpStream::connect(address).context("cannot connect to NATS")?;
        socket.set_nodelay(true)?;
        socket.write_all(format!("{CONNECT}SUB {subject} 1\r\n").as_bytes())?;
        Ok(Self {
            socket,
            buffer: Vec::new(),
            begin: 0,
        })
    }

    /// How long [`Self::payloads`] waits at most; otherwise for ever.
    pub(super) fn set_patience(&self, patience: Duration) -> Result<()> {
        Ok(self.socket.set_read_timeout(Some(patience))?)
    }

    pub(super) fn send(&mut self, frames: &[u8]) -> Result<()> {
        Ok(self.socket.write_all(frames)?)
    }

    /// Waits for acknowledgements; returns how many have come.
    pub(super) fn acknowledged(&mut self) -> Result<usize> {
        loop {
            let mut count = 0;
            self.payloads(|payload| {
                count += 1;
                check(payload)
            })?;
            if count > 0 {
                return Ok(count);
            }
        }
    }

    /// Waits until the server has said something, and hands over the payloads that came.
    pub(super) fn payloads(&mut self, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        self.buffer.drain(..self.begin);
        self.begin = 0;
        let held = self.buffer.len();
        self.buffer.resize(held + READ_BYTES, 0);
        let read = match self.socket.read(&mut self.buffer[held..]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.buffer.truncate(held);
                return Ok(());
            }
            read => read?,
        };
        self.buffer.truncate(held + read);
        ensure!(read > 0, "NATS closed the connection");
        while self.frame(&mut take)? {}
        Ok(())
    }

    /// Takes one frame, if all of it is here.
    fn frame(&mut self, take: &mut impl FnMut(&[u8]) -> Result<()>) -> Result<bool> {
        let rest = &self.buffer[self.begin..];
        let Some(end) = rest.windows(2).position(|two| two == b"\r\n") else {
            return Ok(false);
        };
        let line = std::str::from_utf8(&rest[..end])?;
        let body = end + 2;
        match line.split(' ').next().unwrap_or_default() {
            // HMSG: a status of the server, or a message for somebody else.
            "MSG" | "HMSG" => {
                let size = line
                    .rsplit(' ')
                    .next()
                    .unwrap_or_default()
                    .parse::<usize>()?;
                let Some(payload) = rest.get(body..body + size + 2) else {
                    return Ok(false);
                };
                take(&payload[..size])?;
                self.begin += body + size + 2;
                Ok(true)
            }
            "PING" => {
                self.begin += body;
                self.socket.write_all(b"PONG\r\n")?;
                Ok(true)
            }
            "INFO" | "PONG" | "+OK" => {
                self.begin += body;
                Ok(true)
            }
            _ => bail!("NATS says {line}"),
        }
    }
}

/// Fails on anything but the acknowledgement of a message that was stored.
fn check(payload: &[u8]) -> Result<()> {
    // Parsed only where something is wrong: half a million times would be the client's own limit.
    let has = |word: &[u8]| payload.windows(word.len()).any(|part| part == word);
    if has(b"\"seq\"") && !has(b"\"error\"") && !has(b"\"duplicate\"") {
        return Ok(());
    }
    match serde_json::from_slice::<Value>(payload) {
        Ok(answer) => bail!("JetStream says {answer}"),
        Err(_) => bail!("JetStream says {}", String::from_utf8_lossy(payload)),
    }
}
