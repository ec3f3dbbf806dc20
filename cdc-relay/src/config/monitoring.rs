//! Where the NATS server tells about itself.

use chassis::config::Value;
use clap::Args;

/// The NATS server's monitoring page.
#[derive(Args, Clone, Debug)]
pub struct Monitoring {
    /// The NATS server's monitoring page, which alone tells when JetStream syncs to disk: for `check`, and
    /// for the least that CDC_RETENTION_SECONDS may be
    #[arg(id = "NATS_MONITORING_URL", long = "nats-monitoring-url", env = "NATS_MONITORING_URL",
          value_parser = Value::new(address, "http://127.0.0.1:8222"))]
    pub address: Option<String>,
}

/// Host and port of an `http://` URL.
fn address(given: &str) -> Result<String, String> {
    let refused = || "must be http:// with a host and a port".to_owned();
    let rest = given.strip_prefix("http://").ok_or_else(refused)?;
    let address = rest.trim_end_matches('/');
    let (host, port) = address.rsplit_once(':').ok_or_else(refused)?;
    if host.is_empty() || port.parse::<u16>().is_err() || address.contains(['/', '@', '?']) {
        return Err(refused());
    }
    Ok(address.to_owned())
}
