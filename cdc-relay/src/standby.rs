//! Waiting for the slot that another relay has. The slot is the lease: Postgres frees it when its
//! walsender ends, which is at once when the relay's connection is closed, and after
//! `wal_sender_timeout` when the relay has vanished without a word. So the time of a takeover is bounded
//! by the server's clock, and no second opinion is needed: terminating the walsender of a relay that
//! looks dead would be no quicker than a smaller `wal_sender_timeout`.

use std::time::{Duration, Instant};

use tokio::time::sleep;
use tokio_postgres::Client;

use crate::{
    error::{Error, Result},
    slot,
};

/// How often a standby looks at the slot: one small query on a connection that it keeps.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// How long a look may take; over that the connection counts as lost.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);

/// After so long everything else is looked at again, too: what is set up wrong should not come to light
/// at the takeover.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Waits until the slot is free or gone, or [`WAIT_MAX`] is over.
///
/// # Errors
/// Whatever [`slot::find`] finds wrong, but for a slot that is held.
pub async fn wait(sql: &Client, slot: &str) -> Result<()> {
    let begun = Instant::now();
    while begun.elapsed() < WAIT_MAX {
        let look = slot::find(sql, slot);
        match Error::within("look at the slot", LOOK_TIMEOUT, look).await {
            Err(Error::SlotHeld(_)) => sleep(LOOK_PAUSE).await,
            found => return found.map(|_| ()),
        }
    }
    Ok(())
}
