//! What the owner of the tables does before the process runs: it migrates them, and grants the roles that
//! use them what they need. Its connection is closed then, and its password is not used again.

use anyhow::{Context as _, bail};
use deadpool_postgres::{Client, Pool};
use refinery::Runner;
use tokio::time::sleep;

use super::{LOCK_POLL, connect_by, migrate};
use crate::{backoff, config, failure};

/// How often grants are tried, when a table that they name goes or changes at that moment.
const TRIES: u32 = 5;

/// The statements that grant each role what it needs, run one after the other in one transaction. In them
/// `:"role"` stands for the role's name, and `:'role'` for the same as a text, as psql has it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Grants<'a> {
    /// To the role that the process runs as.
    pub service: &'a [&'a str],
    /// To the role of its relay.
    pub relay: &'a [&'a str],
    /// To the role that compares its tables with others'.
    pub auditor: &'a [&'a str],
}

/// Migrates, then grants; waits for Postgres, for the lock that another replica migrates under, and for
/// roles that somebody is about to create.
///
/// # Errors
/// A login that is refused, a migration or a grant that fails: with the reason.
pub async fn prepare(
    database: &config::Database,
    owner: &config::Owner,
    application_name: &str,
    sets: Vec<(&str, Runner)>,
    grants: &Grants<'_>,
) -> anyhow::Result<()> {
    let (url, password_file, variable) = match &owner.url {
        Some(url) => (url, &owner.password_file, "MIGRATIONS_DATABASE_URL"),
        None => (&database.url, &database.password_file, "DATABASE_URL"),
    };
    let one = config::Database {
        url: url.clone(),
        password_file: password_file.clone(),
        pool_size: 1,
    };
    let pool = connect_by(&one, application_name, variable).await?;
    migrate(&pool, sets).await?;
    let user = database.url.parameters().get_user();
    // Who owns the tables needs nothing granted.
    let running = user.filter(|user| Some(*user) != url.parameters().get_user());
    for (role, statements) in [
        (running, grants.service),
        (owner.relay_role.as_deref(), grants.relay),
        (owner.auditor_role.as_deref(), grants.auditor),
    ] {
        if let Some(role) = role {
            grant(&pool, role, statements).await?;
        }
    }
    pool.close();
    Ok(())
}

async fn grant(pool: &Pool, role: &str, statements: &[&str]) -> anyhow::Result<()> {
    let mut client = pool.get().await.context("no connection for the grants")?;
    wait_for(&client, role).await?;
    let mut attempt = 0;
    loop {
        let error = match granted(&mut client, role, statements).await {
            Ok(()) => return Ok(()),
            Err(error) => failure::chain(&error),
        };
        attempt += 1;
        if attempt == TRIES {
            bail!("cannot grant {role} what it needs: {error}");
        }
        tracing::warn!(role, error, "grants are tried again");
        sleep(backoff::delay(attempt)).await;
    }
}

async fn granted(
    client: &mut Client,
    role: &str,
    statements: &[&str],
) -> Result<(), tokio_postgres::Error> {
    let transaction = client.transaction().await?;
    for statement in statements {
        transaction
            .batch_execute(&with_role(statement, role))
            .await?;
    }
    transaction.commit().await
}

/// Until the role exists: an operator may create it a moment after the database.
async fn wait_for(client: &Client, role: &str) -> anyhow::Result<()> {
    let mut told = false;
    loop {
        let exists = "SELECT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = $1::text)";
        let row = client.query_one(exists, &[&role]).await;
        if row.context("cannot look for the role")?.get(0) {
            return Ok(());
        }
        if !told {
            tracing::warn!(
                role,
                "waiting for the role to be created, to grant it what it needs"
            );
            told = true;
        }
        sleep(LOCK_POLL).await;
    }
}

fn with_role(statement: &str, role: &str) -> String {
    let name = format!("\"{}\"", role.replace('"', "\"\""));
    let text = format!("'{}'", role.replace('\'', "''"));
    statement
        .replace(":\"role\"", &name)
        .replace(":'role'", &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_of_any_name_is_quoted() {
        let said = with_role("GRANT a TO :\"role\"; SELECT :'role'", "o'b\"c");
        assert_eq!(said, "GRANT a TO \"o'b\"\"c\"; SELECT 'o''b\"c'");
    }
}
