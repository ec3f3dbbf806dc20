//! Which of `DATABASE_URL`'s servers takes writes, found anew for each session: so the relay follows a
//! promoted standby.
//!
//! The danger: the SQL connection and the replication connection belong together. What comes back with
//! the first is narrowed to its very address, and the second goes there.

use std::time::Duration;

use chassis::{
    config::DatabaseUrl,
    postgres::{Target, explain},
};
use tokio_postgres::{Client, config::TargetSessionAttrs};

use crate::error::{Error, Result};

/// How long one server may take to be connected to and asked what it is: the next one waits for it.
const SERVER_TIMEOUT: Duration = Duration::from_secs(10);

/// The relay waits inside transactions and between statements; a database's time-outs are not meant
/// for that.
const SESSION: &str = "\
    SET idle_in_transaction_session_timeout = 0; SET idle_session_timeout = 0; \
    SET statement_timeout = 0; SET lock_timeout = 0";

const IS_STANDBY: &str = "SELECT pg_is_in_recovery()";

/// Connects for SQL to the first server that takes writes. The connection ends with the client; the
/// target leads to the same server again.
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
    let mut failures = Vec::new();
    for host in Target::new(url, "cdc-relay").hosts() {
        let during = format!("resolve the name of Postgres at {host}");
        let addresses = async {
            let found = host.addresses().await;
            found.map_err(|e| Error::transient(&during, &e))
        };
        let servers = match Error::within(&during, SERVER_TIMEOUT, addresses).await {
            Ok(servers) => servers,
            Err(error) => {
                failures.push(error);
                continue;
            }
        };
        for server in servers {
            match primary(&server).await {
                Ok(client) => return Ok((server, client)),
                Err(error) => failures.push(error),
            }
        }
    }
    Err(all(failures))
}

/// Connects to this server, if it takes writes.
async fn primary(server: &Target) -> Result<Client> {
    let during = format!("connect to Postgres at {server}");
    let asking = async {
        let client = open(server, &during).await?;
        let row = client.query_one(IS_STANDBY, &[]).await;
        let is_standby = row.and_then(|row| row.try_get(0));
        match is_standby.map_err(|e| Error::sql(&during, &e))? {
            false => Ok(client),
            true => Err(Error::Transient(format!(
                "Postgres at {server} is a standby: waiting until it is promoted, or another host of \
                 DATABASE_URL takes writes"
            ))),
        }
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
