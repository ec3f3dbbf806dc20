//! A bare stream to a Postgres, for who speaks the protocol by himself: the relay's replication
//! connection, which tokio-postgres cannot make.

use std::{io, time::Duration};

use bytes::BytesMut;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpStream, UnixStream},
    time::timeout,
};
use tokio_postgres::config::{Host, SslMode, SslNegotiation};

use super::{CONNECT_TIMEOUT, Target};
use crate::tls;

/// What a server may take for the handshake; it is up by then, and computes a signature.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// The server's one letter for: go on with TLS.
const ACCEPTED: u8 = b'S';

/// Whatever carries the bytes: TCP, TLS or a Unix socket.
pub trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

/// An open stream, before the start-up message.
pub struct Dialled {
    pub stream: Box<dyn Transport>,
    /// For SCRAM's channel binding `tls-server-end-point`.
    pub server_end_point: Option<Vec<u8>>,
}

impl Target {
    /// Opens a stream to the first host; narrow the target down to one before.
    pub async fn dial(&self) -> io::Result<Dialled> {
        match self.negotiated(self.parameters.get_ssl_mode()).await {
            // As in `connect`.
            Err(error) if self.prefers() && tls::explain(&error, "", "").is_some() => {
                self.goes_on_without_tls(&error);
                self.negotiated(SslMode::Disable).await
            }
            dialled => dialled,
        }
    }

    async fn negotiated(&self, mode: SslMode) -> io::Result<Dialled> {
        let (host, port) = self.first();
        let name = match host {
            Host::Tcp(name) => name,
            Host::Unix(folder) => {
                let path = folder.join(format!(".s.PGSQL.{port}"));
                return Ok(plain(UnixStream::connect(path).await?));
            }
        };
        let mut stream = self.tcp(name, port).await?;
        let handshake = async {
            if !self.offers_tls(&mut stream, mode).await? {
                return Ok(plain(stream));
            }
            let stream = self.connector.handshake(name).over(stream).await?;
            Ok(Dialled {
                server_end_point: stream.server_end_point(),
                stream: Box::new(stream),
            })
        };
        let ended = timeout(HANDSHAKE_TIMEOUT, handshake).await;
        ended.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    async fn tcp(&self, name: &str, port: u16) -> io::Result<TcpStream> {
        let limit = self.parameters.get_connect_timeout();
        let limit = limit.copied().unwrap_or(CONNECT_TIMEOUT);
        let address = self.parameters.get_hostaddrs().first();
        let connecting = async {
            match address {
                Some(address) => TcpStream::connect((*address, port)).await,
                None => TcpStream::connect((name, port)).await,
            }
        };
        let connected = timeout(limit, connecting).await;
        let stream = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
        // Status updates are small and must not wait for more.
        stream.set_nodelay(true)?;
        self.watch_for_silence(&stream)?;
        Ok(stream)
    }

    /// Lets the kernel find a peer that is gone, as tokio-postgres does for its own sockets.
    fn watch_for_silence(&self, stream: &TcpStream) -> io::Result<()> {
        let socket = SockRef::from(stream);
        if self.parameters.get_keepalives() {
            let mut keepalive =
                TcpKeepalive::new().with_time(self.parameters.get_keepalives_idle());
            if let Some(every) = self.parameters.get_keepalives_interval() {
                keepalive = keepalive.with_interval(every);
            }
            if let Some(probes) = self.parameters.get_keepalives_retries() {
                keepalive = keepalive.with_retries(probes);
            }
            socket.set_tcp_keepalive(&keepalive)?;
        }
        #[cfg(target_os = "linux")]
        socket.set_tcp_user_timeout(self.parameters.get_tcp_user_timeout().copied())?;
        Ok(())
    }

    /// Whether the stream goes on with TLS.
    async fn offers_tls(&self, stream: &mut TcpStream, mode: SslMode) -> io::Result<bool> {
        if mode == SslMode::Disable {
            return Ok(false);
        }
        if self.parameters.get_ssl_negotiation() == SslNegotiation::Direct {
            return Ok(true);
        }
        let mut request = BytesMut::new();
        postgres_protocol::message::frontend::ssl_request(&mut request);
        stream.write_all(&request).await?;
        match (stream.read_u8().await?, mode) {
            (ACCEPTED, _) => Ok(true),
            (_, SslMode::Prefer) => Ok(false),
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the server does not offer TLS, and sslmode of DATABASE_URL demands it",
            )),
        }
    }
}

fn plain(stream: impl Transport + 'static) -> Dialled {
    Dialled {
        stream: Box::new(stream),
        server_end_point: None,
    }
}

impl std::fmt::Debug for Dialled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialled").finish_non_exhaustive()
    }
}
