//! Which of `DATABASE_URL`'s servers takes writes, found anew for each session: so the relay follows a
//! promoted standby.
//!
//! ```text
//! every host asked at once ─▶ those that take writes ─▶ the one on the highest timeline
//! ```
//!
//! Two dangers. The SQL connection and the replication connection belong together: what comes back with
//! the first is narrowed to its very address, and the second goes there. And a former primary that comes
//! back before somebody has demoted it takes writes too; its timeline tells that it was left behind.

use std::{cmp::Reverse, time::Duration};

use chassis::{
    config::DatabaseUrl,
    postgres::{Target, explain},
};
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::time::{Instant, timeout_at};
use tokio_postgres::{Client, config::TargetSessionAttrs};

use crate::error::{Error, Result};

/// How long one server may take to be connected to and asked what it is.
const SERVER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the others may take once one is found: enough for servers that are up, and little beside
/// the time that a failover takes.
const LATE: Duration = Duration::from_secs(1);

/// The relay waits inside transactions and between statements; a database's time-outs are not meant
/// for that.
const SESSION: &str = "\
    SET idle_in_transaction_session_timeout = 0; SET idle_session_timeout = 0; \
    SET statement_timeout = 0; SET lock_timeout = 0";

/// The timeline that a primary writes on; NULL of a standby. A segment's name begins with it.
const TIMELINE: &str = "\
    SELECT CASE WHEN NOT pg_is_in_recovery() \
           THEN left(pg_walfile_name(pg_current_wal_lsn()), 8) END";

/// A server that takes writes.
struct Primary {
    timeline: u32,
    /// Its place in the URL.
    place: usize,
    server: Target,
    client: Client,
}

/// Connects for SQL to the server that takes writes. The connection ends with the client; the target
/// leads to the same server again.
///
/// # Errors
/// [`Error::Transient`] while there is none: a standby is promoted, or a server comes back.
pub async fn connect(url: &DatabaseUrl) -> Result<(Target, Client)> {
    if url.parameters().get_target_session_attrs() == TargetSessionAttrs::ReadOnly {
        return Err(Error::definite(
            "DATABASE_URL asks for a standby with target_session_attrs, and the relay needs the primary: \
             leave it out",
        ));
    }
    let hosts = Target::new(url, "cdc-relay").hosts();
    let mut answers: FuturesUnordered<_> = hosts.into_iter().enumerate().map(ask).collect();
    let (mut found, mut failures, mut deadline) = (Vec::new(), Vec::new(), None);
    loop {
        let answer = match deadline {
            None => answers.next().await,
            Some(deadline) => match timeout_at(deadline, answers.next()).await {
                Ok(answer) => answer,
                Err(_) => break,
            },
        };
        match answer {
            None => break,
            Some(Ok(primary)) => {
                deadline.get_or_insert_with(|| Instant::now() + LATE);
                found.push(primary);
            }
            Some(Err(why)) => failures.extend(why),
        }
    }
    choose(found).ok_or_else(|| all(failures))
}

/// The newest, and of equals the first.
fn choose(found: Vec<Primary>) -> Option<(Target, Client)> {
    let several = found.len() > 1;
    let newest = found
        .into_iter()
        .max_by_key(|one| (one.timeline, Reverse(one.place)))?;
    if several {
        tracing::warn!(
            server = %newest.server,
            timeline = newest.timeline,
            "several servers of DATABASE_URL take writes: going on with the newest; stop or demote the others"
        );
    }
    Some((newest.server, newest.client))
}

/// Asks a host, at each of its addresses until one takes writes; else what they all said.
async fn ask((place, host): (usize, Target)) -> Result<Primary, Vec<Error>> {
    let during = format!("resolve the name of Postgres at {host}");
    let addresses = async {
        let found = host.addresses().await;
        found.map_err(|e| Error::transient(&during, &e))
    };
    let servers = Error::within(&during, SERVER_TIMEOUT, addresses).await;
    let mut failures = Vec::new();
    for server in servers.map_err(|error| vec![error])? {
        match primary(&server).await {
            Ok((client, timeline)) => {
                return Ok(Primary {
                    timeline,
                    place,
                    server,
                    client,
                });
            }
            Err(error) => failures.push(error),
        }
    }
    Err(failures)
}

/// Connects to this server, if it takes writes, and tells its timeline.
async fn primary(server: &Target) -> Result<(Client, u32)> {
    let during = format!("connect to Postgres at {server}");
    let asking = async {
        let client = open(server, &during).await?;
        let row = client.query_one(TIMELINE, &[]).await;
        let timeline: Option<String> = row
            .and_then(|row| row.try_get(0))
            .map_err(|e| Error::sql(&during, &e))?;
        let Some(timeline) = timeline else {
            return Err(Error::Transient(format!(
                "Postgres at {server} is a standby: waiting until it is promoted, or another host of \
                 DATABASE_URL takes writes"
            )));
        };
        let number = u32::from_str_radix(&timeline, 16);
        let number = number
            .map_err(|_| Error::definite(format!("{during}: {timeline} is not a timeline")))?;
        Ok((client, number))
    };
    Error::within(&during, SERVER_TIMEOUT, asking).await
}

async fn open(server: &Target, during: &str) -> Result<Client> {
    let connected = server.connect().await;
    let (client, _) = connected.map_err(|error| match explain(&error) {
        Some(why) => Error::Definite(format!("{during}: {why}")),
        None => Error::sql(during, &error),
    })?;
    let set = client.batch_execute(SESSION).await;
    set.map_err(|e| Error::sql(during, &e))?;
    Ok(client)
}

/// What all the servers said. Only if all of it waits for hands does waiting not help.
fn all(mut failures: Vec<Error>) -> Error {
    if failures.len() == 1
        && let Some(only) = failures.pop()
    {
        return only;
    }
    let is_definite = |error: &Error| matches!(error, Error::Definite(_));
    let definite = failures.iter().all(is_definite);
    let each: Vec<String> = failures.iter().map(ToString::to_string).collect();
    let text = format!("no server of DATABASE_URL can be used: {}", each.join("; "));
    if definite {
        Error::Definite(text)
    } else {
        Error::Transient(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_server_that_may_come_back_is_enough_to_wait_for() {
        let wrong = || Error::Definite("wrong password".to_owned());
        let gone = || Error::Transient("connection refused".to_owned());
        assert!(matches!(all(vec![wrong(), wrong()]), Error::Definite(_)));
        let mixed = all(vec![wrong(), gone()]);
        assert!(
            matches!(&mixed, Error::Transient(text) if text.contains("wrong password; connection"))
        );
        assert!(
            matches!(all(vec![gone()]), Error::Transient(text) if text == "connection refused")
        );
    }
}
