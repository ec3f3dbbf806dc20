//! TLS for tokio-postgres, and for the replication connection beside it.

use std::{
    convert::Infallible,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_rustls::{TlsConnector, client};

use super::binding;
use crate::{config::libpq, tls};

/// Makes TLS connections by the settings of a URL.
#[derive(Clone, Debug)]
pub struct Connector {
    /// None encrypts without asking who the other side is.
    settings: Option<libpq::Tls>,
}

/// One connection's TLS, still to be negotiated. The files that it needs are read only then.
#[derive(Debug)]
pub struct Handshake {
    settings: Option<libpq::Tls>,
    host: String,
}

/// A stream within TLS.
#[derive(Debug)]
pub struct Encrypted<S>(client::TlsStream<S>);

impl Connector {
    pub(super) fn new(settings: libpq::Tls) -> Self {
        let settings = Some(settings);
        Self { settings }
    }

    /// For what needs no trust, such as the request to cancel a statement: it must not be overheard, and
    /// that is all.
    pub fn unchecked() -> Self {
        Self { settings: None }
    }

    pub(super) fn handshake(&self, host: &str) -> Handshake {
        Handshake {
            settings: self.settings.clone(),
            host: host.to_owned(),
        }
    }
}

impl Handshake {
    pub(super) async fn over<S>(self, stream: S) -> io::Result<Encrypted<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let config = match &self.settings {
            Some(settings) => tls::postgres(settings),
            None => tls::unchecked(),
        };
        let config = config.map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
        let name = ServerName::try_from(self.host)
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
        let connector = TlsConnector::from(Arc::new(config));
        connector.connect(name, stream).await.map(Encrypted)
    }
}

impl<S> Encrypted<S> {
    /// The hash of the server's certificate, where its signature has one.
    pub(super) fn server_end_point(&self) -> Option<Vec<u8>> {
        let (_, session) = self.0.get_ref();
        let certificate = session.peer_certificates()?.first()?;
        binding::server_end_point(certificate)
    }
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> MakeTlsConnect<S> for Connector {
    type Stream = Encrypted<S>;
    type TlsConnect = Handshake;
    type Error = Infallible;

    fn make_tls_connect(&mut self, host: &str) -> Result<Handshake, Infallible> {
        Ok(self.handshake(host))
    }
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> TlsConnect<S> for Handshake {
    type Stream = Encrypted<S>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Encrypted<S>>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(self.over(stream))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for Encrypted<S> {
    fn channel_binding(&self) -> ChannelBinding {
        match self.server_end_point() {
            Some(hash) => ChannelBinding::tls_server_end_point(hash),
            None => ChannelBinding::none(),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Encrypted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Encrypted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
