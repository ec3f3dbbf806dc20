//! The connections of clients: so many at most (I12), and none from somebody who says nothing. Those that have
//! begun to speak HTTP/2 are asked whether they are still there, by its pings.

use std::{
    fs,
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use metrics::gauge;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Sleep, sleep},
};
use tonic::transport::server::{Connected, TcpConnectInfo};

use super::connection::Connection;

/// Connections at a time: an idle one takes 16 KB, so all together less than a pod may have.
const CONNECTIONS_MAX: usize = 12_000;
/// Files that are left to Postgres, NATS, operators and the log, where the system allows fewer than that.
const FILES_KEPT: usize = 256;
/// Files that a process may open where nobody has said.
const FILES_DEFAULT: usize = 1024;
/// What every HTTP/2 client says first: `PRI * HTTP/2.0` and so on.
const PREFACE_BYTES: usize = 24;
/// Who has not said it by then is gone, or means no good.
const PREFACE_TIMEOUT: Duration = Duration::from_secs(5);

/// The places that there are.
#[derive(Debug)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    pub(super) max: usize,
}

impl Places {
    pub(super) fn new() -> Self {
        let max = CONNECTIONS_MAX.min(files_max().saturating_sub(FILES_KEPT).max(1));
        Self {
            free: Arc::new(Semaphore::new(max)),
            max,
        }
    }

    /// The connection with a place; none where all are taken, and it is closed.
    pub(super) fn admit(&self, connection: Connection) -> Option<Admitted> {
        let place = self.free.clone().try_acquire_owned().ok()?;
        gauge!("grpc_connections").increment(1.0);
        Some(Admitted {
            connection,
            silence: Some(Box::pin(sleep(PREFACE_TIMEOUT))),
            heard: 0,
            _place: place,
        })
    }
}

/// Files that this process may open.
fn files_max() -> usize {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().next());
    match soft {
        Some("unlimited") => usize::MAX,
        Some(number) => number.parse().unwrap_or(FILES_DEFAULT),
        None => FILES_DEFAULT,
    }
}

/// A connection that has a place.
#[derive(Debug)]
pub(super) struct Admitted {
    connection: Connection,
    /// Until the client has introduced itself.
    silence: Option<Pin<Box<Sleep>>>,
    heard: usize,
    _place: OwnedSemaphorePermit,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        gauge!("grpc_connections").decrement(1.0);
    }
}

impl Connected for Admitted {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.connection.connect_info()
    }
}

impl AsyncRead for Admitted {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(silence) = &mut this.silence
            && silence.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut this.connection).poll_read(context, buffer);
        if this.silence.is_some() {
            this.heard += buffer.filled().len() - before;
            if this.heard >= PREFACE_BYTES {
                this.silence = None;
            }
        }
        polled
    }
}

impl AsyncWrite for Admitted {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().connection).poll_write(context, buffer)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().connection).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().connection).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().connection).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_leave_files_for_the_rest() {
        let places = Places::new();
        assert!(places.max <= CONNECTIONS_MAX && places.max > 0);
        assert!(places.max + FILES_KEPT <= files_max());
    }

    #[tokio::test]
    async fn who_finds_no_place_is_turned_away_until_another_goes() {
        let places = Places {
            free: Arc::new(Semaphore::new(1)),
            max: 1,
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connect = async || {
            let connected = tokio::net::TcpStream::connect(address).await;
            (
                Connection::Plain(connected.unwrap()),
                listener.accept().await.unwrap(),
            )
        };
        let (first, _first) = connect().await;
        let (second, _second) = connect().await;
        let (third, _third) = connect().await;
        let admitted = places.admit(first);
        assert!(admitted.is_some() && places.admit(second).is_none());
        drop(admitted);
        assert!(places.admit(third).is_some());
    }
}
