//! The pool over TLS: whom it trusts, which of several hosts it takes, and that its cancellations arrive.

use std::time::Duration;

use anyhow::{Result, ensure};
use chassis::{config, database, failure};
use harness::{Guard, Postgres, certificates::Authority, eventually};
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(20);

fn config(url: &str) -> config::Database {
    config::Database {
        url: url.parse().unwrap(),
        pool_size: 1,
    }
}

async fn secured(guard: &Guard, authority: &Authority) -> Result<Postgres> {
    let server = authority.sign(&["127.0.0.1"])?;
    let (certificate, key) = (
        server.certificate.display().to_string(),
        server.key.display().to_string(),
    );
    let settings = [
        ("ssl", "on"),
        ("ssl_cert_file", certificate.as_str()),
        ("ssl_key_file", &key),
    ];
    Postgres::start_with(guard, &settings).await
}

#[tokio::test]
async fn the_pool_trusts_the_named_authority_alone() -> Result<()> {
    let guard = Guard::start()?;
    let authority = Authority::new(&guard, "authority")?;
    let stranger = Authority::new(&guard, "stranger")?;
    let postgres = secured(&guard, &authority).await?;
    let url = |ca: &Authority| {
        let (base, ca) = (postgres.url("postgres"), ca.certificate().display());
        format!("{base}?sslmode=verify-full&sslrootcert={ca}&channel_binding=require")
    };
    let pool = timeout(SOON, database::connect(&config(&url(&authority)), "tests")).await??;
    let query = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let row = pool.get().await?.query_one(query, &[]).await?;
    ensure!(row.get::<_, bool>(0), "it is not encrypted");

    let refused = timeout(SOON, database::connect(&config(&url(&stranger)), "tests")).await?;
    let text = format!("{:#}", refused.unwrap_err());
    ensure!(
        text.contains("the right CA's certificate in sslrootcert"),
        "{text}"
    );
    Ok(())
}

#[tokio::test]
async fn what_a_dropped_request_left_running_is_cancelled_over_tls_too() -> Result<()> {
    let guard = Guard::start()?;
    let authority = Authority::new(&guard, "authority")?;
    let postgres = secured(&guard, &authority).await?;
    let url = format!("{}?sslmode=require", postgres.url("postgres"));
    let pool = timeout(SOON, database::connect(&config(&url), "tests")).await??;
    let lease = failure::connection(&pool).await?;
    let sleeping = lease.batch_execute("SELECT pg_sleep(1000)");
    timeout(Duration::from_millis(500), sleeping)
        .await
        .unwrap_err();
    drop(lease);
    let watching = postgres.connect("postgres").await?;
    let query = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep(1000)' \
                 AND pid <> pg_backend_pid()";
    eventually("the end of the statement", SOON, async || {
        let count: i64 = watching.query_one(query, &[]).await?.get(0);
        Ok((count == 0).then_some(()))
    })
    .await
}

#[tokio::test]
async fn of_several_hosts_the_pool_takes_the_one_that_takes_writes() -> Result<()> {
    let postgres = Postgres::start().await?;
    let standby = postgres.standby("standby", "postgres", &[]).await?;
    let own = format!("127.0.0.1:{}", postgres.port());
    let both = format!("127.0.0.1:{},{own}", standby.port());
    let url = postgres.url("postgres").replace(&own, &both);
    let pool = timeout(SOON, database::connect(&config(&url), "tests")).await??;
    let row = pool
        .get()
        .await?
        .query_one("SELECT pg_is_in_recovery()", &[])
        .await?;
    ensure!(!row.get::<_, bool>(0), "it took the standby");
    Ok(())
}
