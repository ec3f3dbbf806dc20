//! What a failed handshake means, and what to do about it.

use std::{error::Error, io};

use super::Invalid;
use rustls::{AlertDescription, CertificateError, Error as Tls};

/// How all that is said of a handshake begins.
pub const FAILED: &str = "TLS failed";

/// The mend, when TLS is among the error's causes; `trust` is the setting that names the trusted CA,
/// `identity` those that name the client's own certificate.
pub fn explain(error: &(dyn Error + 'static), trust: &str, identity: &str) -> Option<String> {
    if let Some(invalid) = cause::<Invalid>(error) {
        return Some(invalid.to_string());
    }
    let tls = cause::<Tls>(error)?;
    let mend = match tls {
        Tls::InvalidCertificate(invalid) => certificate(invalid, trust),
        Tls::AlertReceived(alert) => alerted(*alert, identity),
        Tls::InvalidMessage(_) => "the other side does not speak TLS here".to_owned(),
        _ => String::new(),
    };
    Some(if mend.is_empty() {
        format!("{FAILED}: {tls}")
    } else {
        format!("{FAILED}: {mend} ({tls})")
    })
}

fn certificate(invalid: &CertificateError, trust: &str) -> String {
    match invalid {
        CertificateError::UnknownIssuer => format!(
            "the server's certificate is not signed by a CA that is trusted here: name the file with \
             the right CA's certificate in {trust}"
        ),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "the server's certificate is made out to another host: connect by a name that stands in \
             its subjectAltName, or give the server a certificate for this one"
                .to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the server's certificate has expired: renew it".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the server's certificate is not valid yet: is a clock wrong?".to_owned()
        }
        _ => "the server's certificate cannot be accepted".to_owned(),
    }
}

fn alerted(alert: AlertDescription, identity: &str) -> String {
    match alert {
        AlertDescription::CertificateRequired
        | AlertDescription::BadCertificate
        | AlertDescription::HandshakeFailure
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnknownCA => {
            format!("the server wants a client certificate that it trusts: set {identity}")
        }
        AlertDescription::CertificateExpired => {
            format!("the client certificate in {identity} has expired: renew it")
        }
        _ => "the server refused the handshake".to_owned(),
    }
}

/// The `T` behind `error`. What an [`io::Error`] wraps is not its source.
fn cause<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = match error.downcast_ref().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}
