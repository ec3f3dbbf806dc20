//! The copy-both stream. The reader and the writer are apart, so that the standby status goes out
//! while the reader waits for JetStream: a slow sink must not get the walsender killed.

use std::{
    io,
    pin::pin,
    time::{Duration, Instant, SystemTime},
};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use chassis::postgres::Transport;
use postgres_protocol::message::{
    backend::{ERROR_RESPONSE_TAG, Message},
    frontend,
};
use tokio::{
    io::{AsyncRead, AsyncWriteExt as _, ReadHalf, WriteHalf},
    time::{sleep, timeout},
};
use tokio_postgres::types::PgLsn;

use super::{
    connection::{Wire, server_error},
    frame::{Frame, Frames},
    gather::{Gather, REST},
};
use crate::error::{Error, Result};

const COPY_DATA: u8 = b'd';
const COPY_DONE: u8 = b'c';
/// How often Postgres hears of a relay that is about to begin: well under any `wal_sender_timeout`.
const ALIVE_INTERVAL: Duration = Duration::from_secs(1);

const DURING: &str = "read the WAL stream";

/// Seconds from the Unix epoch to Postgres' own, 2000-01-01.
const POSTGRES_EPOCH: Duration = Duration::from_secs(946_684_800);

/// How long the server may take to see the end of the stream before the socket is closed on it.
const FINISH_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a status update may wait in a full socket before the connection counts as dead.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// What the server sends.
#[derive(Debug)]
pub enum Event {
    /// A piece of the WAL, as the output plugin wrote it.
    Data(Bytes),
    /// The server has sent everything up to `wal_end`.
    Keepalive {
        wal_end: PgLsn,
        reply_requested: bool,
    },
}

/// The half that reads.
pub struct WalReader {
    frames: Frames<ReadHalf<Box<dyn Transport>>>,
    /// Longer than the server ever says nothing: it answers each status that asks.
    silence_max: Duration,
    gather: Gather,
}

/// The half that reports.
pub struct WalWriter {
    sink: WriteHalf<Box<dyn Transport>>,
}

pub(super) fn split(wire: Wire, silence_max: Duration) -> (WalReader, WalWriter) {
    let (transport, read_ahead) = wire.into_parts();
    let (source, sink) = tokio::io::split(transport);
    let frames = Frames::from_parts(source, read_ahead);
    let reader = WalReader {
        frames,
        silence_max,
        gather: Gather::new(Instant::now()),
    };
    (reader, WalWriter { sink })
}

impl WalReader {
    /// Reads what was recorded of a stream, frames and all: for tests and the fuzzer.
    pub fn of_recording(recording: impl AsyncRead + Send + Unpin + 'static) -> Self {
        let wire: Wire = Frames::new(Box::new(tokio::io::join(recording, tokio::io::sink())));
        split(wire, FINISH_TIMEOUT).0
    }

    /// The next event. Cancel-safe.
    ///
    /// # Errors
    /// [`Error::Transient`] also when the server has said nothing for twice its `wal_sender_timeout`,
    /// though [`WalWriter::report`] asked it to: the network or its host is gone.
    pub async fn next(&mut self) -> Result<Event> {
        loop {
            // Most frames are here already: only those that are not are worth a timer.
            let frame = match self.frames.take_buffered() {
                Ok(None) => self.wait().await?,
                Ok(Some(frame)) => Ok(frame),
                Err(error) => Err(error),
            };
            let frame = frame.map_err(|e| Error::io(DURING, &e))?;
            if let Some(event) = event(frame)? {
                return Ok(event);
            }
        }
    }

    async fn wait(&mut self) -> Result<io::Result<Frame>> {
        if self.frames.is_drained() && self.gather.rests() {
            sleep(REST).await;
        }
        let frame = timeout(self.silence_max, self.frames.next()).await;
        let bytes = self.frames.take_count();
        self.gather.note(Instant::now(), bytes);
        frame.map_err(|_| self.silent())
    }

    fn silent(&self) -> Error {
        Error::Transient(format!(
            "{DURING}: Postgres has said nothing for {:?}",
            self.silence_max
        ))
    }

    /// Reads on until the server has answered [`WalWriter::finish`], so that it has also taken the
    /// status that came before. What it still sends is left to the next session.
    pub async fn finish(mut self) {
        let end = async {
            while let Ok(frame) = self.frames.next().await {
                if frame.tag == COPY_DONE || frame.tag == ERROR_RESPONSE_TAG {
                    break;
                }
            }
        };
        if timeout(FINISH_TIMEOUT, end).await.is_err() {
            tracing::warn!(
                "Postgres did not see the end of the stream in time; the last confirmed position may be sent again"
            );
        }
    }
}

impl WalWriter {
    /// Tells the server that everything before `flushed` is in JetStream, on disk as far as the
    /// stream's settings promise it (I2: the caller got it from the ledger). With `ask` the server
    /// answers with a keepalive.
    pub async fn report(&mut self, flushed: PgLsn, ask: bool) -> Result<()> {
        let mut status = BytesMut::with_capacity(34);
        status.put_u8(b'r');
        for _written_flushed_applied in 0..3 {
            status.put_u64(flushed.into());
        }
        let since_epoch = SystemTime::UNIX_EPOCH + POSTGRES_EPOCH;
        let now = SystemTime::now()
            .duration_since(since_epoch)
            .unwrap_or_default();
        status.put_i64(i64::try_from(now.as_micros()).unwrap_or(i64::MAX));
        status.put_u8(u8::from(ask));
        let mut out = BytesMut::with_capacity(48);
        let data = frontend::CopyData::new(status.freeze()).map_err(|e| Error::io("report", &e))?;
        data.write(&mut out);
        self.send(&out).await
    }

    /// Does `work` while Postgres is told now and then that somebody is there.
    pub async fn alive_during<T>(
        &mut self,
        confirmed: PgLsn,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let mut work = pin!(work);
        loop {
            match timeout(ALIVE_INTERVAL, &mut work).await {
                Ok(done) => return done,
                Err(_) => self.report(confirmed, false).await?,
            }
        }
    }

    /// Ends the stream in order.
    pub async fn finish(&mut self) -> Result<()> {
        let mut out = BytesMut::new();
        frontend::copy_done(&mut out);
        self.send(&out).await
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        let during = "report to Postgres";
        // Flushed, because TLS may keep a record back.
        let sending = async {
            self.sink.write_all(bytes).await?;
            self.sink.flush().await
        };
        match timeout(WRITE_TIMEOUT, sending).await {
            Ok(sent) => sent.map_err(|e| Error::io(during, &e)),
            Err(_) => Err(Error::Transient(format!(
                "{during}: the connection is stuck"
            ))),
        }
    }
}

fn event(frame: Frame) -> Result<Option<Event>> {
    let mut body = frame.body;
    match (frame.tag, body.first()) {
        // start LSN, end LSN, send time: the plugin's own messages say what is needed.
        (COPY_DATA, Some(b'w')) if body.len() >= 25 => {
            body.advance(25);
            Ok(Some(Event::Data(body)))
        }
        (COPY_DATA, Some(b'k')) if body.len() >= 18 => {
            body.advance(1);
            let wal_end = PgLsn::from(body.get_u64());
            let reply_requested = body[8] != 0;
            Ok(Some(Event::Keepalive {
                wal_end,
                reply_requested,
            }))
        }
        (COPY_DATA, _) => Err(Error::definite(
            "Postgres sent a replication message that is not known",
        )),
        (COPY_DONE, _) => Err(Error::Transient(
            "Postgres ended the stream: it is shutting down".into(),
        )),
        (ERROR_RESPONSE_TAG, _) => Err(refusal(&body)?),
        // Notices and parameter changes.
        _ => Ok(None),
    }
}

fn refusal(body: &[u8]) -> Result<Error> {
    let mut whole = BytesMut::with_capacity(body.len() + 5);
    whole.put_u8(ERROR_RESPONSE_TAG);
    whole.put_u32(u32::try_from(body.len() + 4).unwrap_or(u32::MAX));
    whole.extend_from_slice(body);
    match Message::parse(&mut whole).map_err(|e| Error::io(DURING, &e))? {
        Some(Message::ErrorResponse(body)) => Ok(server_error(DURING, &body)),
        _ => Err(Error::definite(
            "Postgres sent an error that cannot be read",
        )),
    }
}

impl std::fmt::Debug for WalReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WalReader").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for WalWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WalWriter").finish_non_exhaustive()
    }
}
