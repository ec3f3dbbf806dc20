//! Where gRPC is served: `http://host:port`, over TLS `https://host:port`, or `host:port` alone.

use std::{fmt, str::FromStr};

use tonic::transport::{Endpoint, Uri};

/// An address that can be connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address(Uri);

impl Address {
    /// Whether it begins with `https://`.
    pub fn is_over_tls(&self) -> bool {
        self.0.scheme_str() == Some("https")
    }

    /// To connect to it.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint::from(self.0.clone())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, authority) = (self.0.scheme_str(), self.0.authority());
        let authority = authority.map_or("", |all| all.as_str());
        write!(f, "{}://{authority}", scheme.unwrap_or("http"))
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const EXAMPLE: &str = "such as http://127.0.0.1:50051";
        let whole = match text.contains("://") {
            true => text.to_owned(),
            false => format!("http://{text}"),
        };
        let uri: Uri = whole
            .parse()
            .map_err(|error| format!("must be an address {EXAMPLE}: {error}"))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(format!("must begin with http:// or https://, {EXAMPLE}"));
        }
        if uri.host().is_none_or(str::is_empty) || uri.port().is_none() {
            return Err(format!("must have a host and a port, {EXAMPLE}"));
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(format!("must have no path, {EXAMPLE}"));
        }
        Ok(Self(uri))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_leave_out_its_scheme() {
        let of = |text: &str| text.parse::<Address>().map(|address| address.to_string());
        let usual = Ok("http://127.0.0.1:50051".to_owned());
        assert_eq!(of("127.0.0.1:50051"), usual);
        assert_eq!(of("http://127.0.0.1:50051/"), usual);
        assert_eq!(of("https://a:1"), Ok("https://a:1".to_owned()));
        assert_eq!(of("[::1]:1"), Ok("http://[::1]:1".to_owned()));
        for wrong in [
            "",
            "localhost",
            "nats://127.0.0.1:4222",
            "http://a:1/b",
            ":50051",
        ] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }
}
