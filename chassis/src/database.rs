//! The connection pool to the process's own Postgres, its migrations and its readiness.

use std::time::Duration;

use anyhow::{Context as _, bail};
use deadpool_postgres::{
    ClientWrapper, Hook, HookError, Manager, ManagerConfig, Object, Pool, PoolError,
    RecyclingMethod, Runtime, Timeouts,
};
use refinery::Runner;
use tokio::time::{sleep, timeout};
use tokio_postgres::{NoTls, config::SslMode, error::SqlState};
use tokio_util::sync::CancellationToken;

use crate::{backoff, config, health::Check};

/// For a free connection, a new one, and the check of a used one, each: a request that waited
/// longer is better refused.
const POOL_WAIT: Duration = Duration::from_secs(10);
/// A host that does not answer is given up after this, when the URL says nothing else.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// What every connection of the pool is set to: a statement that hangs, or a transaction whose
/// process is gone, must not hold row locks for ever.
const SESSION: &str =
    "SET statement_timeout = '30s'; SET idle_in_transaction_session_timeout = '60s'";
/// A migration may rewrite a table.
const MIGRATION_SESSION: &str =
    "SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0";
/// The advisory lock that replicas contend for before they migrate: "chassis" in ASCII.
const MIGRATION_LOCK: i64 = 0x0063_6861_7373_6973;
/// How often the lock is tried. A blocking wait would hold a snapshot, for which a
/// `CREATE INDEX CONCURRENTLY` in the migration would wait in turn.
const LOCK_POLL: Duration = Duration::from_millis(200);
/// How often readiness is looked at, and how long the answer may take.
const PING_EVERY: Duration = Duration::from_secs(1);
const PING_TIMEOUT: Duration = Duration::from_secs(3);

/// Builds the pool and waits for Postgres, with backoff, logging why it waits.
///
/// Fails only on what waiting does not mend: a refused login, or a URL that cannot work.
pub async fn connect(config: &config::Database, application_name: &str) -> anyhow::Result<Pool> {
    let mut parameters = config
        .url
        .config()
        .with_context(|| format!("DATABASE_URL {}", config.url))?;
    if parameters.get_ssl_mode() == SslMode::Require {
        bail!(
            "DATABASE_URL {}: sslmode=require, but TLS is not built in",
            config.url
        );
    }
    if parameters.get_application_name().is_none() {
        parameters.application_name(application_name);
    }
    if parameters.get_connect_timeout().is_none() {
        parameters.connect_timeout(CONNECT_TIMEOUT);
    }
    let recycling = ManagerConfig {
        recycling_method: RecyclingMethod::Fast,
    };
    let pool = Pool::builder(Manager::from_config(parameters, NoTls, recycling))
        .max_size(config.pool_size)
        .timeouts(Timeouts {
            wait: Some(POOL_WAIT),
            create: Some(POOL_WAIT),
            recycle: Some(POOL_WAIT),
        })
        .runtime(Runtime::Tokio1)
        .post_create(Hook::async_fn(|client, _| {
            Box::pin(async move {
                let set = client.batch_execute(SESSION).await;
                set.map_err(HookError::Backend)
            })
        }))
        .build()
        .context("cannot build the connection pool")?;
    wait_for(&pool, &config.url).await?;
    Ok(pool)
}

async fn wait_for(pool: &Pool, url: &config::DatabaseUrl) -> anyhow::Result<()> {
    let mut attempt = 0;
    loop {
        let error = match pool.get().await {
            Ok(_) => {
                tracing::info!(database = %url, "connected to Postgres");
                return Ok(());
            }
            Err(error) => error,
        };
        let why = chain(&error);
        if is_definite(&error) {
            bail!("Postgres at {url} refuses us: {why}; correct DATABASE_URL");
        }
        let wait = backoff::delay(attempt);
        attempt += 1;
        tracing::warn!(database = %url, error = why, ?wait, "waiting for Postgres");
        sleep(wait).await;
    }
}

/// Whether waiting cannot mend it. A database that does not exist yet may come, by an init script.
fn is_definite(error: &PoolError) -> bool {
    let PoolError::Backend(error) = error else {
        return false;
    };
    matches!(
        error.code(),
        Some(&SqlState::INVALID_PASSWORD | &SqlState::INVALID_AUTHORIZATION_SPECIFICATION)
    )
}

/// An error with its causes in one line: tokio-postgres tells the reason only in the cause.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

/// Applies each set of migrations in turn, with its own history table, on one connection under
/// one advisory lock: of replicas that start together one migrates and the others find it done.
///
/// Each migration is one transaction. The error names the migration and Postgres's reason; those
/// before it stay applied.
pub async fn migrate(pool: &Pool, sets: Vec<(&str, Runner)>) -> anyhow::Result<()> {
    let pooled = pool
        .get()
        .await
        .context("no connection for the migrations")?;
    // Taken out of the pool for good: dropping it closes the session, which frees the lock on
    // every way out, a panic included.
    let mut connection = Object::take(pooled);
    connection
        .batch_execute(MIGRATION_SESSION)
        .await
        .context("cannot set up the connection for the migrations")?;
    lock(&connection).await?;
    for (history, mut runner) in sets {
        runner.set_migration_table_name(history);
        let report = runner
            .run_async(&mut *connection)
            .await
            .map_err(|error| anyhow::anyhow!("migrations of {history}: {}", chain(&error)))?;
        for applied in report.applied_migrations() {
            tracing::info!(history, migration = %applied, "migrated");
        }
    }
    Ok(())
}

async fn lock(connection: &tokio_postgres::Client) -> anyhow::Result<()> {
    let mut told = false;
    loop {
        let row = connection
            .query_one("SELECT pg_try_advisory_lock($1)", &[&MIGRATION_LOCK])
            .await
            .context("cannot take the lock of the migrations")?;
        if row.get(0) {
            return Ok(());
        }
        if !told {
            tracing::info!("another replica migrates: waiting for it");
            told = true;
        }
        sleep(LOCK_POLL).await;
    }
}

/// Keeps `check` true while Postgres answers, until the token is cancelled.
///
/// It has a connection of its own beside the pool: a pool whose connections are all busy says
/// nothing of Postgres, and a busy replica that calls itself unready burdens the next.
pub async fn watch(pool: Pool, check: Check, token: CancellationToken) -> anyhow::Result<()> {
    let watching = async {
        let mut connection = None;
        loop {
            let answered = timeout(PING_TIMEOUT, ping(&pool, &mut connection)).await;
            let ready = matches!(answered, Ok(Ok(())));
            if !ready {
                connection = None;
            }
            check.set(ready);
            sleep(PING_EVERY).await;
        }
    };
    token.run_until_cancelled(watching).await;
    Ok(())
}

async fn ping(pool: &Pool, connection: &mut Option<ClientWrapper>) -> anyhow::Result<()> {
    let client = match connection {
        Some(client) => client,
        None => connection.insert(Object::take(pool.get().await?)),
    };
    client.simple_query("").await?;
    Ok(())
}
