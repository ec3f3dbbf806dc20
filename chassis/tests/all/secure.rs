//! The pool's ways to Postgres: whom it trusts over TLS, which of several hosts it takes, that its
//! cancellations arrive, and a password that is changed.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use chassis::{config, database, failure};
use harness::{
    Guard, Postgres,
    certificates::{Authority, Identity},
    eventually,
};
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(20);

fn config(url: &str) -> config::Database {
    config::Database {
        url: url.parse().unwrap(),
        password_file: None,
        pool_size: 1,
    }
}

async fn secured(guard: &Guard, authority: &Authority) -> Result<Postgres> {
    secured_by(guard, &authority.sign(&["127.0.0.1"])?, &[]).await
}

async fn secured_by(
    guard: &Guard,
    server: &Identity,
    further: &[(&str, &str)],
) -> Result<Postgres> {
    let (certificate, key) = (
        server.certificate.display().to_string(),
        server.key.display().to_string(),
    );
    let settings = [
        ("ssl", "on"),
        ("ssl_cert_file", certificate.as_str()),
        ("ssl_key_file", &key),
    ];
    Postgres::start_with(guard, &[&settings, further].concat()).await
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
async fn an_expired_certificate_is_refused_by_the_pool_and_by_postgres() -> Result<()> {
    let guard = Guard::start()?;
    let authority = Authority::new(&guard, "authority")?;
    let logins = guard.directory().join("pg_hba.conf");
    let hba = "hostssl all badge 127.0.0.1/32 cert\nhost all all 127.0.0.1/32 scram-sha-256\n";
    fs::write(&logins, hba)?;
    let server = authority.sign_expired(&["127.0.0.1"])?;
    let (logins, ca) = (
        logins.display().to_string(),
        authority.certificate().display().to_string(),
    );
    let further = [("hba_file", logins.as_str()), ("ssl_ca_file", &ca)];
    let postgres = secured_by(&guard, &server, &further).await?;
    let own = postgres.connect("postgres").await?;
    own.batch_execute("CREATE ROLE badge LOGIN").await?;
    let shown = authority.sign_expired(&["badge"])?;
    let url = format!(
        "postgres://badge@127.0.0.1:{}/postgres?sslmode=verify-full&sslrootcert={ca}&sslcert={}&sslkey={}",
        postgres.port(),
        shown.certificate.display(),
        shown.key.display()
    );
    let refused = async |mend: &str| {
        let refused = timeout(SOON, database::connect(&config(&url), "tests")).await?;
        let text = format!("{:#}", refused.err().context("it was let in")?);
        ensure!(text.contains(mend), "{text}");
        anyhow::Ok(())
    };
    refused("the server's certificate has expired: renew it").await?;
    authority.sign(&["127.0.0.1"])?.replace(&server)?;
    own.batch_execute("SELECT pg_reload_conf()").await?;
    let mend = "the client certificate in sslcert and sslkey of DATABASE_URL has expired: renew it";
    eventually("the client's to be refused", SOON, async || {
        refused(mend).await.map(Some)
    })
    .await?;
    authority.sign(&["badge"])?.replace(&shown)?;
    timeout(SOON, database::connect(&config(&url), "tests")).await??;
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

#[tokio::test]
async fn a_password_that_is_changed_in_its_file_is_used_by_connections_from_then_on() -> Result<()>
{
    let guard = Guard::start()?;
    let postgres = Postgres::start_with(&guard, &[]).await?;
    let file = guard.directory().join("password");
    let own = postgres.connect("postgres").await?;
    let change = async |role: &str, file_has: &str| {
        let sql = format!("ALTER ROLE app PASSWORD '{role}'");
        own.batch_execute(&sql).await?;
        fs::write(&file, file_has)?;
        // What is open stays so: end it.
        let end =
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename = 'app'";
        own.query(end, &[]).await?;
        anyhow::Ok(())
    };
    own.batch_execute("CREATE ROLE app LOGIN").await?;
    change("first", "first\n").await?;
    let url = format!("postgres://app@127.0.0.1:{}/postgres", postgres.port());
    let mut config = config(&url);
    config.password_file = Some(file.clone());
    let pool = timeout(SOON, database::connect(&config, "tests")).await??;
    let works = async || -> Result<()> {
        pool.get().await?.simple_query("SELECT 1").await?;
        Ok(())
    };
    works().await?;
    change("second", "second").await?;
    eventually("a login by the second", SOON, async || {
        Ok(works().await.ok())
    })
    .await?;
    // The file comes later than the role.
    change("third", "second").await?;
    ensure!(
        works().await.is_err(),
        "the role's former password was taken"
    );
    fs::write(&file, "third")?;
    eventually("a login by the third", SOON, async || {
        Ok(works().await.ok())
    })
    .await?;

    config.url = format!("postgres://app:x@127.0.0.1:{}/postgres", postgres.port())
        .parse()
        .unwrap();
    let refused = database::connect(&config, "tests").await.unwrap_err();
    ensure!(refused.to_string().contains("keep one"), "{refused:#}");
    config.url = url.parse().unwrap();
    config.password_file = Some("/nowhere/password".into());
    let refused = database::connect(&config, "tests")
        .await
        .unwrap_err()
        .to_string();
    let said = "DATABASE_URL: cannot read the file of its password, /nowhere/password";
    ensure!(refused.contains(said), "{refused}");
    Ok(())
}
