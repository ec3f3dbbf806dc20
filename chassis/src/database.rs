//! The connection pool to the process's own Postgres, its migrations and its readiness.

mod owner;

use std::{pin::Pin, time::Duration};

use anyhow::{Context as _, bail};
use deadpool_postgres::{
    Hook, HookError, Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime,
    Timeouts,
};
use refinery::{Migration, Report, Runner};
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_postgres::{Client, SimpleQueryMessage, error::SqlState};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    backoff, config,
    health::Check,
    postgres::{Target, explain},
};

pub use owner::{Grants, prepare};

/// For a free connection, a new one, and the check of a used one, each: a request that waited
/// longer is better refused.
const POOL_WAIT: Duration = Duration::from_secs(10);
/// What every connection of the pool is set to: a statement that hangs, or a transaction whose
/// process is gone, must not hold row locks for ever.
const SESSION: &str =
    "SET statement_timeout = '30s'; SET idle_in_transaction_session_timeout = '60s'";
/// A migration may rewrite a table.
const MIGRATION_SESSION: &str =
    "SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0";
/// How long a migration may wait for a table, since everything that comes to the table after it,
/// a plain `SELECT` too, waits behind it: far less than the statement timeout of [`SESSION`].
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);
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
    connect_by(config, application_name, "DATABASE_URL").await
}

/// The same, by the URL that stands in `variable`.
async fn connect_by(
    config: &config::Database,
    application_name: &str,
    variable: &str,
) -> anyhow::Result<Pool> {
    let wrong = |error| anyhow::anyhow!("{variable}: {error}");
    let url = config.url().map_err(wrong)?;
    // Found wrong now, a file is named at once.
    url.password().map_err(wrong)?;
    let target = Target::new(&url, application_name);
    let recycling = ManagerConfig {
        recycling_method: RecyclingMethod::Fast,
    };
    let parameters = target.parameters().clone();
    let pool = Pool::builder(Manager::from_connect(parameters, target, recycling))
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
    wait_for(&pool, &url, variable).await?;
    Ok(pool)
}

impl deadpool_postgres::Connect for Target {
    fn connect(&self, _: &tokio_postgres::Config) -> Connecting<'_> {
        Box::pin(Target::connect(self))
    }
}

type Connecting<'a> = Pin<
    Box<dyn Future<Output = Result<(Client, JoinHandle<()>), tokio_postgres::Error>> + Send + 'a>,
>;

async fn wait_for(pool: &Pool, url: &config::DatabaseUrl, variable: &str) -> anyhow::Result<()> {
    let mut attempt = 0;
    loop {
        let error = match pool.get().await {
            Ok(_) => {
                tracing::info!(database = %url, "connected to Postgres");
                return Ok(());
            }
            Err(error) => error,
        };
        let tls = explain(&error);
        let is_definite = tls.is_some() || is_refused(&error);
        let why = tls.unwrap_or_else(|| chain(&error));
        if is_definite {
            let file = url
                .password_file()
                .map_or("", |_| ", or the file of its password");
            bail!("Postgres at {url} refuses us: {why}; correct {variable}{file}");
        }
        let wait = backoff::delay(attempt);
        attempt += 1;
        tracing::warn!(database = %url, error = why, ?wait, "waiting for Postgres");
        sleep(wait).await;
    }
}

/// Whether waiting cannot mend it. A database that does not exist yet may come, by an init script.
fn is_refused(error: &PoolError) -> bool {
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
/// before it stay applied. One that does not soon get its table is rolled back, and tried again until
/// it does: the service is not ready meanwhile, and the replicas that run go on. Migrations that a newer version has applied are left as they are, so that
/// this version can start beside it, or after it was withdrawn.
pub async fn migrate(pool: &Pool, sets: Vec<(&str, Runner)>) -> anyhow::Result<()> {
    let pooled = pool
        .get()
        .await
        .context("no connection for the migrations")?;
    // Taken out of the pool for good: dropping it closes the session, which frees the lock on
    // every way out, a panic included.
    let mut connection = Object::take(pooled);
    let session = format!(
        "{MIGRATION_SESSION}; SET lock_timeout = {}",
        LOCK_TIMEOUT.as_millis()
    );
    connection
        .batch_execute(&session)
        .await
        .context("cannot set up the connection for the migrations")?;
    lock(&connection).await?;
    for (history, runner) in sets {
        let runner = beside_newer(runner, history, &mut connection).await?;
        apply(&runner, history, &mut connection).await?;
    }
    Ok(())
}

/// Runs what is left of the set, again for as long as something else holds a table that it needs.
async fn apply(runner: &Runner, history: &str, connection: &mut Client) -> anyhow::Result<()> {
    let mut attempt = 0;
    loop {
        let error = match runner.run_async(connection).await {
            Ok(report) => {
                tell(history, &report);
                return Ok(());
            }
            Err(error) => error,
        };
        // What was applied before the one that failed stays so.
        error.report().inspect(|report| tell(history, report));
        let why = chain(&error);
        if !is_lock_timeout(&error) {
            bail!("migrations of {history}: {why}");
        }
        let wait = backoff::delay(attempt);
        attempt += 1;
        tracing::warn!(
            history,
            error = why,
            ?wait,
            "a migration waits for its table, which a long transaction holds: see pg_stat_activity"
        );
        sleep(wait).await;
    }
}

fn tell(history: &str, report: &Report) {
    for applied in report.applied_migrations() {
        tracing::info!(history, migration = %applied, "migrated");
    }
}

/// Whether [`LOCK_TIMEOUT`] ended it.
fn is_lock_timeout(error: &(dyn std::error::Error + 'static)) -> bool {
    let postgres = error.downcast_ref::<tokio_postgres::Error>();
    postgres.is_some_and(|error| error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE))
        || error.source().is_some_and(is_lock_timeout)
}

/// The set with what a newer version has applied beyond it, which the runner would refuse as missing.
/// It still refuses a gap below.
async fn beside_newer(
    mut ours: Runner,
    history: &str,
    connection: &mut Client,
) -> anyhow::Result<Runner> {
    ours.set_migration_table_name(history);
    let exists = connection
        .query_one("SELECT to_regclass($1) IS NOT NULL", &[&history])
        .await
        .with_context(|| format!("cannot look for the history {history}"))?;
    if !exists.get::<_, bool>(0) {
        return Ok(ours);
    }
    let applied = ours.get_applied_migrations_async(connection).await;
    let applied = applied.map_err(|error| anyhow::anyhow!("{history}: {}", chain(&error)))?;
    let newest = ours.get_migrations().iter().map(Migration::version).max();
    let newer: Vec<_> = applied
        .into_iter()
        .filter(|one| Some(one.version()) > newest)
        .collect();
    for migration in &newer {
        tracing::warn!(history, %migration, "a newer version has migrated: its migration is left as it is");
    }
    let mut all = Runner::new(&[ours.get_migrations().as_slice(), &newer].concat());
    all.set_migration_table_name(history);
    Ok(all)
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

/// Keeps `check` true while Postgres answers and takes writes, until the token is cancelled.
///
/// It has a connection of its own beside the pool: a pool whose connections are all busy says
/// nothing of Postgres, and a busy replica that calls itself unready burdens the next.
pub async fn watch(
    config: config::Database,
    application_name: &str,
    check: Check,
    token: CancellationToken,
) -> anyhow::Result<()> {
    let url = config.url().map_err(anyhow::Error::msg)?;
    let target = Target::new(&url, application_name);
    let watching = async {
        let mut connection = None;
        loop {
            let answered = timeout(PING_TIMEOUT, ping(&target, &mut connection)).await;
            let ready = matches!(answered, Ok(Ok(true)));
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

/// A client, and the task that works its socket.
type Connection = (Client, AbortOnDropHandle<()>);

/// Whether Postgres takes writes: a primary that was demoted answers, and refuses them all.
async fn ping(
    target: &Target,
    connection: &mut Option<Connection>,
) -> Result<bool, tokio_postgres::Error> {
    let (client, _) = match connection {
        Some(connection) => connection,
        None => {
            // The socket's error comes out of the next ping too.
            let (client, socket) = target.connect().await?;
            connection.insert((client, AbortOnDropHandle::new(socket)))
        }
    };
    let answer = client.simple_query("SHOW transaction_read_only").await?;
    Ok(answer.iter().any(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0) == Some("off"),
        _ => false,
    }))
}
