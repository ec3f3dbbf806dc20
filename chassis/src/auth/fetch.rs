//! One GET of a small document, over HTTP or HTTPS: no redirects, no proxy, no more than was asked for.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::{
    Request, StatusCode, Uri,
    client::conn::http1::handshake,
    header::{ACCEPT, HOST, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use crate::{config::libpq::Roots, failure::chain, tls};

/// For all of it, from the look-up of the name to the last byte.
const TIMEOUT: Duration = Duration::from_secs(5);

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// The document, of at most `max` bytes.
///
/// # Errors
/// Why there is none.
pub(super) async fn get(url: &Uri, roots: &Roots, max: usize) -> Result<Bytes, String> {
    match timeout(TIMEOUT, fetch(url, roots, max)).await {
        Ok(fetched) => fetched,
        Err(_) => Err(format!("no answer within {} s", TIMEOUT.as_secs())),
    }
}

async fn fetch(url: &Uri, roots: &Roots, max: usize) -> Result<Bytes, String> {
    let stream = connect(url, roots).await?;
    let (mut sender, connection) = handshake(TokioIo::new(stream))
        .await
        .map_err(|error| chain(&error))?;
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let host = url.authority().map_or("", |authority| authority.as_str());
    let request = Request::get(path)
        .header(HOST, host)
        .header(ACCEPT, "application/json, application/jwk-set+json")
        .header(USER_AGENT, concat!("chassis/", env!("CARGO_PKG_VERSION")))
        .body(Empty::<Bytes>::new())
        .map_err(|error| chain(&error))?;
    let response = sender
        .send_request(request)
        .await
        .map_err(|error| chain(&error))?;
    if response.status() != StatusCode::OK {
        return Err(format!("it answers {}", response.status()));
    }
    match Limited::new(response.into_body(), max).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(format!("it is larger than {max} bytes"))
        }
        Err(error) => Err(chain(&*error)),
    }
}

async fn connect(url: &Uri, roots: &Roots) -> Result<Box<dyn Stream>, String> {
    let is_tls = url.scheme_str() == Some("https");
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
    let port = url.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
    let stream = TcpStream::connect((host, port)).await;
    let stream = stream.map_err(|error| chain(&error))?;
    if !is_tls {
        return Ok(Box::new(stream));
    }
    let name = ServerName::try_from(host.to_owned()).map_err(|error| chain(&error))?;
    let rules = tls::https(roots).map_err(|error| chain(&error))?;
    let connected = TlsConnector::from(Arc::new(rules))
        .connect(name, stream)
        .await;
    Ok(Box::new(connected.map_err(|error| chain(&error))?))
}
