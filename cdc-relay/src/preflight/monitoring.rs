//! When JetStream syncs to disk.

use std::time::Duration;

use super::Report;
use crate::{config::Config, sync};

const MEND: &str =
    "set `jetstream { sync_interval: always }` in the server's configuration, and reload it";

/// Looks, and returns the interval, if it was told.
pub(super) async fn look(config: &Config, report: &mut Report) -> Option<Duration> {
    let Some(address) = &config.monitoring.address else {
        report.warning(
            "sync_interval",
            "cannot be seen without the server's monitoring page; by default JetStream syncs every two \
             minutes, and a power failure can take what it had acknowledged",
            "set NATS_MONITORING_URL=http://…:8222 to have it looked at",
        );
        return None;
    };
    match sync::interval(address).await {
        Ok(Duration::ZERO) => {
            report.ok("sync_interval", "always: what is acknowledged is on disk");
            Some(Duration::ZERO)
        }
        Ok(interval) => {
            report.warning(
                "sync_interval",
                format!(
                    "{interval:?}: a power failure of all replicas at once takes what was acknowledged since"
                ),
                MEND,
            );
            Some(interval)
        }
        Err(error) => {
            let text = format!("{error:#}");
            report.warning("sync_interval", text, "mend NATS_MONITORING_URL");
            None
        }
    }
}
