//! Where large transactions wait for their commit. The relay runs without it, so nothing here is wrong.

use super::Report;
use crate::config::Config;

const WHAT: &str = "spool";

pub(super) fn look(config: &Config, report: &mut Report) {
    if !config.spool.is_on() {
        report.ok(WHAT, "off: Postgres holds large transactions back itself");
        return;
    }
    let settings = config.spool.settings();
    match settings.probe() {
        Ok(()) => {
            let (directory, bytes) = (settings.directory.display(), settings.bytes_max);
            report.ok(WHAT, format!("{directory} can be written; {bytes} bytes of it may be used"));
        }
        Err(error) => report.warning(
            WHAT,
            format!("{error}; large transactions are left to Postgres' disk"),
            "set CDC_SPOOL_DIRECTORY to a directory that the relay may write to, or CDC_STREAMING=off",
        ),
    }
}
