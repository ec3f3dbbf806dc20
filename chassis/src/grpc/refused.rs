//! Connections that were refused, and handshakes that failed: all are counted by their reason, and one a second is logged, since a scanner
//! makes many.

use std::{
    error::Error,
    io,
    net::SocketAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use rustls::{CertificateError, Error as Tls};
use tokio::time::Instant;

/// Between two lines of the log.
const LOG_EVERY: Duration = Duration::from_secs(1);

static LOGGED: Mutex<Option<Instant>> = Mutex::new(None);

pub(super) fn tell(peer: Option<SocketAddr>, error: &io::Error) {
    let reason = reason(error);
    count(reason);
    if is_time_to_log() {
        let peer = peer.map(|peer| peer.to_string());
        tracing::warn!(peer, reason, %error, "gRPC: a TLS handshake failed");
    }
}

pub(super) fn count(reason: &'static str) {
    metrics::describe_counter!(
        "tls_handshakes_failed_total",
        "TLS handshakes that failed, by reason"
    );
    metrics::counter!("tls_handshakes_failed_total", "server" => "grpc", "reason" => reason)
        .increment(1);
}

/// A connection for which there is no place.
pub(super) fn full(max: usize) {
    metrics::counter!("grpc_connections_refused_total").increment(1);
    if is_time_to_log() {
        tracing::warn!(
            max,
            "gRPC: all connections are taken, and one more was closed"
        );
    }
}

fn is_time_to_log() -> bool {
    let mut logged = LOGGED.lock().unwrap_or_else(PoisonError::into_inner);
    let now = Instant::now();
    let is_time = logged.is_none_or(|last| now.duration_since(last) >= LOG_EVERY);
    if is_time {
        *logged = Some(now);
    }
    is_time
}

/// In few words, of which there are few.
fn reason(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::TimedOut {
        return "took too long";
    }
    let inner = error.get_ref();
    let Some(tls) = inner.and_then(|inner| (inner as &dyn Error).downcast_ref::<Tls>()) else {
        return "connection lost";
    };
    match tls {
        Tls::NoCertificatesPresented => "no client certificate",
        Tls::InvalidCertificate(invalid) => match invalid {
            CertificateError::UnknownIssuer => "client certificate of another CA",
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "client certificate has expired"
            }
            _ => "client certificate is invalid",
        },
        Tls::AlertReceived(_) => "refused by the client",
        Tls::InvalidMessage(_) => "client speaks no TLS",
        _ => "no agreement",
    }
}
