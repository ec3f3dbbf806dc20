//! Where gRPC is served: plain, or over TLS, whose handshakes hold up neither each other nor the calls.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use anyhow::{Context as _, bail};
use futures_util::Stream;
use tokio::{
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
    time::{Sleep, sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tonic::transport::server::TcpIncoming;

use super::{
    KEEPALIVE_EVERY,
    connection::Connection,
    places::{Admitted, Places},
    refused,
};
use crate::{
    config::{self, set},
    listen,
    tls::server::{Files, Identity},
};

/// Handshakes at a time (I12). Each is a matter of milliseconds: who comes when there are so many takes the
/// place of the oldest, so that those who never end theirs keep nobody out.
const HANDSHAKES_MAX: usize = 256;
/// Who takes longer for one is gone, or means no good.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// After this it is tried again, where the system has no more room for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A bound listener, and the TLS that is spoken on it.
#[derive(Debug)]
pub struct Listener {
    pub(super) socket: TcpListener,
    pub(super) identity: Option<Arc<Identity>>,
}

impl Listener {
    /// Binds it, and logs which TLS is spoken. From then on the files are looked at, and taken up when they
    /// are renewed.
    ///
    /// # Errors
    /// When the port is taken, or a file cannot be used.
    pub async fn bind(config: &config::Grpc) -> anyhow::Result<Self> {
        let identity = files(config)?.map(Identity::new).transpose();
        let identity = identity.context("TLS of gRPC")?.map(Arc::new);
        let socket = listen::bind("grpc", config.listen).await?;
        match &identity {
            None => {
                tracing::warn!("gRPC is served without TLS: what is called can be read on the way")
            }
            Some(identity) => {
                let mode = identity.mode();
                tracing::info!(files = %identity.files(), "gRPC is served over TLS: {mode}");
                tokio::spawn(Identity::watch(Arc::downgrade(identity), "grpc"));
            }
        }
        Ok(Self { socket, identity })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// None is expected.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// What connects.
    pub(super) fn incoming(self) -> Incoming {
        let tcp = TcpIncoming::from(self.socket)
            .with_nodelay(Some(true))
            .with_keepalive(Some(KEEPALIVE_EVERY));
        Incoming {
            tcp,
            identity: self.identity,
            handshakes: JoinSet::new(),
            begun: VecDeque::new(),
            pause: None,
            places: Places::new(),
        }
    }
}

/// Without TLS.
impl From<TcpListener> for Listener {
    fn from(socket: TcpListener) -> Self {
        let identity = None;
        Self { socket, identity }
    }
}

fn files(config: &config::Grpc) -> anyhow::Result<Option<Files>> {
    let client_ca = set(&config.tls_client_ca);
    match (set(&config.tls_cert), set(&config.tls_key), &client_ca) {
        (Some(certificate), Some(key), _) => Ok(Some(Files {
            certificate,
            key,
            client_ca,
        })),
        (None, None, None) => Ok(None),
        (Some(_), None, _) => bail!("GRPC_TLS_CERT is set without GRPC_TLS_KEY"),
        (None, Some(_), _) => bail!("GRPC_TLS_KEY is set without GRPC_TLS_CERT"),
        (None, None, Some(_)) => {
            bail!("GRPC_TLS_CLIENT_CA is set without GRPC_TLS_CERT and GRPC_TLS_KEY")
        }
    }
}

/// Connections on which calls can be made.
#[derive(Debug)]
pub(super) struct Incoming {
    tcp: TcpIncoming,
    identity: Option<Arc<Identity>>,
    handshakes: JoinSet<Option<Connection>>,
    /// In the order in which they began; ended ones are cleared away now and then.
    begun: VecDeque<AbortHandle>,
    pause: Option<Pin<Box<Sleep>>>,
    places: Places,
}

impl Incoming {
    fn begin(&mut self, stream: TcpStream, identity: &Arc<Identity>) {
        if self.begun.len() >= 2 * HANDSHAKES_MAX {
            self.begun.retain(|handshake| !handshake.is_finished());
        }
        if self.handshakes.len() >= HANDSHAKES_MAX {
            let mut oldest = self.begun.iter();
            if let Some(at) = oldest.position(|handshake| !handshake.is_finished()) {
                self.begun[at].abort();
                self.begun.drain(..=at);
                refused::count("too many at a time");
            }
        }
        let handshake = handshake(stream, Arc::clone(identity));
        self.begun.push_back(self.handshakes.spawn(handshake));
    }

    fn poll_accept(&mut self, context: &mut Context<'_>) -> Poll<Option<TcpStream>> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(context));
                self.pause = None;
            }
            match ready!(Pin::new(&mut self.tcp).poll_next(context)) {
                None => return Poll::Ready(None),
                Some(Ok(stream)) => return Poll::Ready(Some(stream)),
                Some(Err(error)) if is_of_one(&error) => {}
                Some(Err(error)) => {
                    tracing::warn!(%error, "gRPC: cannot take a connection");
                    self.pause = Some(Box::pin(sleep(ACCEPT_PAUSE)));
                }
            }
        }
    }

    /// The next one whose handshake is done.
    fn poll_connection(&mut self, context: &mut Context<'_>) -> Poll<Option<Connection>> {
        let Some(identity) = self.identity.clone() else {
            let accepted = ready!(self.poll_accept(context));
            return Poll::Ready(accepted.map(Connection::Plain));
        };
        loop {
            while let Poll::Ready(accepted) = self.poll_accept(context) {
                match accepted {
                    Some(stream) => self.begin(stream, &identity),
                    None => return Poll::Ready(None),
                }
            }
            match self.handshakes.poll_join_next(context) {
                Poll::Ready(Some(Ok(Some(connection)))) => {
                    return Poll::Ready(Some(connection));
                }
                Poll::Ready(Some(_)) => {}
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// Whether it is the end of that one connection alone.
fn is_of_one(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}

impl Stream for Incoming {
    type Item = io::Result<Admitted>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        while let Some(connection) = ready!(self.poll_connection(context)) {
            match self.places.admit(connection) {
                Some(admitted) => return Poll::Ready(Some(Ok(admitted))),
                None => refused::full(self.places.max),
            }
        }
        Poll::Ready(None)
    }
}

async fn handshake(stream: TcpStream, identity: Arc<Identity>) -> Option<Connection> {
    let peer = stream.peer_addr().ok();
    let acceptor = TlsAcceptor::from(identity.rules());
    match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => Some(Connection::Tls(Box::new(stream))),
        Ok(Err(error)) => {
            refused::tell(peer, &error);
            None
        }
        Err(_) => {
            refused::tell(peer, &io::ErrorKind::TimedOut.into());
            None
        }
    }
}
