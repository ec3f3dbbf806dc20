//! Where an identity provider publishes its keys: one document over HTTP or HTTPS, which can be late, broken
//! or gone.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;

use crate::certificates::Identity;
use crate::port::Port;

/// Between two bytes of an answer that is slow: far too long for all of it, and never long for one.
const SLOWLY: Duration = Duration::from_millis(100);
/// A request is shorter.
const REQUEST_BYTES: usize = 4096;

/// What is answered.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Answer {
    /// 200 with this.
    Document(String),
    /// This status, and this document with it all the same.
    Status(u16, String),
    /// 302, to this URL.
    Redirect(String),
    /// 200, and a document without an end, as fast as it is taken.
    Endless,
    /// 200, and this document so slowly that it takes minutes.
    Slow(String),
    /// No HTTP.
    Garbage,
    /// Nothing, while the connection stays open.
    Silence,
}

/// The server. Dropped, it is gone.
#[derive(Debug)]
pub struct KeyServer {
    port: Port,
    tls: Option<Arc<ServerConfig>>,
    state: Arc<State>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct State {
    answer: Mutex<Answer>,
    asked: AtomicUsize,
}

impl KeyServer {
    /// Starts one that gives this answer.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start(answer: Answer) -> Result<Self> {
        Self::with(answer, None).await
    }

    /// The same over TLS, with this certificate.
    ///
    /// # Errors
    /// When no port can be had, or the certificate cannot be used.
    pub async fn start_tls(answer: Answer, identity: &Identity) -> Result<Self> {
        let chain = CertificateDer::pem_file_iter(&identity.certificate)?;
        let chain = chain.collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_file(&identity.key)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let rules = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        Self::with(answer, Some(Arc::new(rules))).await
    }

    async fn with(answer: Answer, tls: Option<Arc<ServerConfig>>) -> Result<Self> {
        let state = State {
            answer: Mutex::new(answer),
            asked: AtomicUsize::new(0),
        };
        let mut server = Self {
            port: Port::free()?,
            tls,
            state: Arc::new(state),
            accepting: None,
        };
        server.start_again().await?;
        Ok(server)
    }

    /// Where it is asked, by the name of a host.
    #[must_use]
    pub fn url_of(&self, host: &str) -> String {
        let scheme = self.tls.as_ref().map_or("http", |_| "https");
        format!("{scheme}://{host}:{}/jwks.json", self.port.number())
    }

    /// Where it is asked.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_of("127.0.0.1")
    }

    /// What it answers from now on.
    pub fn answer(&self, answer: Answer) {
        *self
            .state
            .answer
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = answer;
    }

    /// How often it was asked.
    #[must_use]
    pub fn asked(&self) -> usize {
        self.state.asked.load(Ordering::SeqCst)
    }

    /// Nobody listens any more, and all connections are closed.
    pub async fn stop(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
            let _ = accepting.await;
        }
    }

    /// Listens again, at the same address.
    ///
    /// # Errors
    /// When the port is taken.
    pub async fn start_again(&mut self) -> Result<()> {
        let address = (Ipv4Addr::LOCALHOST, self.port.number());
        let listener = TcpListener::bind(address).await.context("bind the keys")?;
        let tls = self.tls.clone().map(TlsAcceptor::from);
        let serving = serve(listener, tls, Arc::clone(&self.state));
        self.accepting = Some(tokio::spawn(serving));
        Ok(())
    }
}

impl Drop for KeyServer {
    fn drop(&mut self) {
        if let Some(accepting) = &self.accepting {
            accepting.abort();
        }
    }
}

async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, state: Arc<State>) {
    // They end with this task.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    connections.spawn(connection(stream, tls.clone(), Arc::clone(&state)));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// An asker who goes away is none of ours.
async fn connection(stream: TcpStream, tls: Option<TlsAcceptor>, state: Arc<State>) {
    let _ = match tls {
        None => answer(stream, &state).await,
        Some(tls) => match tls.accept(stream).await {
            Ok(stream) => answer(stream, &state).await,
            Err(error) => Err(error.into()),
        },
    };
}

async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, state: &State) -> Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") && request.len() < REQUEST_BYTES {
        request.push(stream.read_u8().await?);
    }
    state.asked.fetch_add(1, Ordering::SeqCst);
    let answer = state
        .answer
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    let document = |status: u16, more: &str, body: &str| {
        let length = body.len();
        format!("HTTP/1.1 {status} As told\r\nContent-Length: {length}\r\n{more}\r\n{body}")
    };
    let text = match answer {
        Answer::Document(body) => document(200, "", &body),
        Answer::Status(status, body) => document(status, "", &body),
        Answer::Redirect(to) => document(302, &format!("Location: {to}\r\n"), ""),
        Answer::Garbage => "I am no web server\n".to_owned(),
        Answer::Silence => {
            // Until the asker goes.
            stream.read_u8().await?;
            return Ok(());
        }
        Answer::Slow(body) => {
            for byte in document(200, "", &body).as_bytes() {
                stream.write_all(&[*byte]).await?;
                stream.flush().await?;
                sleep(SLOWLY).await;
            }
            return Ok(());
        }
        Answer::Endless => {
            let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            stream.write_all(head.as_bytes()).await?;
            loop {
                stream.write_all(b"8\r\n        \r\n").await?;
            }
        }
    };
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await?;
    Ok(())
}
