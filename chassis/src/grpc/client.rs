//! gRPC's other end: where it is called, with which token, and over TLS by a CA and a certificate of one's own.
//! What is wrong with either is told in words that help.

mod address;
mod authorization;

use std::{
    fmt, io,
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::{
    codegen::{Service, http::Uri},
    transport::{Channel, Endpoint},
};

use crate::{
    config::libpq::Roots,
    tls::{self, Invalid, explain},
};

pub use self::{address::Address, authorization::Authorization};

/// How a server is found trustworthy, and what it is shown. Files are read anew for each connection.
#[derive(Clone, Debug)]
pub struct Tls {
    /// Whose certificates are trusted.
    pub roots: Roots,
    /// A certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// To whom the server's certificate must be made out, if not to the address's host.
    pub name: Option<String>,
    /// What sets the CA, and what sets the certificate and key, for errors.
    pub settings: (&'static str, &'static str),
}

impl Tls {
    /// Whether the files can be used, before anybody is called.
    ///
    /// # Errors
    /// Which one cannot.
    pub fn check(&self) -> Result<(), Invalid> {
        tls::grpc(&self.roots, self.identity.as_ref()).map(drop)
    }

    /// Calls over TLS, whose address begins with `https`. It connects when it is first used, and again when
    /// it must.
    pub fn channel(self, endpoint: &Endpoint) -> Channel {
        endpoint.connect_with_connector_lazy(Connector(Arc::new(self)))
    }

    async fn connect(&self, uri: &Uri) -> io::Result<TlsStream<TcpStream>> {
        let wrong = |error| io::Error::new(io::ErrorKind::InvalidInput, error);
        let (host, port) = (
            uri.host().unwrap_or_default(),
            uri.port_u16().unwrap_or(443),
        );
        let host = host.trim_matches(['[', ']']);
        let name = self.name.as_deref().unwrap_or(host).to_owned();
        let name = ServerName::try_from(name).map_err(|error| wrong(error.to_string()))?;
        let rules = tls::grpc(&self.roots, self.identity.as_ref());
        let rules = rules.map_err(|error| wrong(error.to_string()))?;
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        let connector = TlsConnector::from(Arc::new(rules));
        connector.connect(name, stream).await
    }

    /// The same error in words: HTTP/2 keeps nothing else of it.
    fn told(&self, error: io::Error) -> io::Error {
        match explain(&error, self.settings.0, self.settings.1) {
            Some(why) => io::Error::new(error.kind(), why),
            None => error,
        }
    }
}

#[derive(Clone)]
struct Connector(Arc<Tls>);

type Connecting = Pin<Box<dyn Future<Output = io::Result<TokioIo<Told>>> + Send>>;

impl Service<Uri> for Connector {
    type Response = TokioIo<Told>;
    type Error = io::Error;
    type Future = Connecting;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Connecting {
        let tls = Arc::clone(&self.0);
        Box::pin(async move {
            match tls.connect(&uri).await {
                Ok(stream) => Ok(TokioIo::new(Told { stream, tls })),
                Err(error) => Err(tls.told(error)),
            }
        })
    }
}

/// A stream that tells what the server has against us: in TLS 1.3 that comes after the handshake.
struct Told {
    stream: TlsStream<TcpStream>,
    tls: Arc<Tls>,
}

impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Told").field(&self.stream).finish()
    }
}

impl AsyncRead for Told {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        polled.map_err(|error| self.tls.told(error))
    }
}

impl AsyncWrite for Told {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, buffer);
        polled.map_err(|error| self.tls.told(error))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
