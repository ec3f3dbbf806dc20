//! Postgres: waiting for it, migrations, readiness.

use std::time::Duration;

use anyhow::Result;
use chassis::{config, database, failure, health::Health};
use futures_util::poll;
use harness::{Postgres, eventually};
use refinery::{Migration, Runner};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::Code;

const SOON: Duration = Duration::from_secs(20);

fn config(url: &str, pool_size: usize) -> config::Database {
    config::Database {
        url: url.parse().unwrap(),
        password_file: None,
        pool_size,
    }
}

fn runner(migrations: &[(&str, &str)]) -> Runner {
    let migrations: Vec<_> = migrations
        .iter()
        .map(|(name, sql)| Migration::unapplied(name, sql).unwrap())
        .collect();
    Runner::new(&migrations)
}

#[tokio::test]
async fn it_waits_for_a_postgres_that_comes_later() -> Result<()> {
    let postgres = Postgres::start().await?;
    let config = config(&postgres.url("postgres"), 2);
    postgres.stop().await?;
    let connecting = tokio::spawn(async move { database::connect(&config, "tests").await });
    postgres.start_again().await?;
    let pool = timeout(SOON, connecting).await???;
    let row = pool.get().await?;
    let row = row
        .query_one("SELECT current_setting('application_name')", &[])
        .await?;
    assert_eq!(row.get::<_, String>(0), "tests");
    Ok(())
}

#[tokio::test]
async fn a_refused_login_ends_the_start_and_is_told_without_the_password() -> Result<()> {
    let postgres = Postgres::start().await?;
    let url = postgres
        .url("postgres")
        .replace(postgres.password(), "hunter2");
    let error = timeout(SOON, database::connect(&config(&url, 2), "tests"))
        .await?
        .unwrap_err();
    let text = format!("{error:#}");
    assert!(text.contains("password authentication failed"), "{text}");
    assert!(text.contains("DATABASE_URL"), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
    Ok(())
}

#[tokio::test]
async fn replicas_that_start_together_migrate_once() -> Result<()> {
    let postgres = Postgres::start().await?;
    let url = postgres.url("postgres");
    let mut replicas = Vec::new();
    for _ in 0..8 {
        let config = config(&url, 2);
        replicas.push(tokio::spawn(async move {
            let pool = database::connect(&config, "tests").await?;
            let one = runner(&[
                ("V1__one", "CREATE TABLE one (id int)"),
                ("V2__fill", "INSERT INTO one SELECT 1 FROM pg_sleep(0.2)"),
            ]);
            let two = runner(&[("V1__two", "CREATE TABLE two (id int)")]);
            database::migrate(&pool, vec![("history_one", one), ("history_two", two)]).await
        }));
    }
    for replica in replicas {
        replica.await??;
    }
    let client = postgres.connect("postgres").await?;
    let count = "SELECT (SELECT count(*) FROM one), (SELECT count(*) FROM history_one),
                        (SELECT count(*) FROM history_two)";
    let row = client.query_one(count, &[]).await?;
    let counts: [i64; 3] = [row.get(0), row.get(1), row.get(2)];
    assert_eq!(counts, [1, 2, 1]);
    Ok(())
}

#[tokio::test]
async fn a_migration_that_fails_is_named_and_leaves_the_lock_free() -> Result<()> {
    let postgres = Postgres::start().await?;
    let pool = database::connect(&config(&postgres.url("postgres"), 2), "tests").await?;
    let good = ("V1__good", "CREATE TABLE good (id int)");
    let broken = runner(&[good, ("V2__broken", "CREATE TABLE broken (id nonsense)")]);
    let error = database::migrate(&pool, vec![("history", broken)])
        .await
        .unwrap_err();
    let text = format!("{error:#}");
    for part in ["history", "broken", "type \"nonsense\" does not exist"] {
        assert!(text.contains(part), "{part:?} is missing: {text}");
    }
    let mended = runner(&[good, ("V2__broken", "CREATE TABLE broken (id int)")]);
    timeout(SOON, database::migrate(&pool, vec![("history", mended)])).await??;
    let row = pool
        .get()
        .await?
        .query_one("SELECT count(*) FROM history", &[])
        .await?;
    assert_eq!(row.get::<_, i64>(0), 2);
    Ok(())
}

#[tokio::test]
async fn a_version_starts_beside_a_newer_ones_migrations_but_over_no_gap() -> Result<()> {
    let postgres = Postgres::start().await?;
    let pool = database::connect(&config(&postgres.url("postgres"), 2), "tests").await?;
    let one = ("V1__one", "CREATE TABLE one (id int)");
    let two = ("V2__two", "CREATE TABLE two (id int)");
    let three = ("V3__three", "CREATE TABLE three (id int)");
    let migrate = async |set: &[_]| database::migrate(&pool, vec![("history", runner(set))]).await;
    migrate(&[one, three]).await?;
    migrate(&[one]).await?;
    migrate(&[one, three]).await?;
    let error = migrate(&[one, two, three]).await.unwrap_err();
    assert!(format!("{error:#}").contains("two"), "{error:#}");
    let error = migrate(&[three]).await.unwrap_err();
    assert!(format!("{error:#}").contains("one"), "{error:#}");
    Ok(())
}

#[tokio::test]
async fn a_migration_that_waits_for_its_table_keeps_nobody_else_waiting() -> Result<()> {
    let postgres = Postgres::start().await?;
    let pool = database::connect(&config(&postgres.url("postgres"), 2), "tests").await?;
    let create = ("V1__create", "CREATE TABLE busy (id int)");
    let alter = ("V2__alter", "ALTER TABLE busy ADD COLUMN name text");
    database::migrate(&pool, vec![("history", runner(&[create]))]).await?;

    let holder = postgres.connect("postgres").await?;
    holder.batch_execute("BEGIN; SELECT * FROM busy").await?;
    let migrating = tokio::spawn(async move {
        database::migrate(&pool, vec![("history", runner(&[create, alter]))]).await
    });
    let reader = postgres.connect("postgres").await?;
    // Twice: it is tried again, and gives way again.
    for _ in 0..2 {
        eventually("the migration to wait for the table", SOON, async || {
            let waits = "SELECT FROM pg_locks WHERE relation = 'busy'::regclass AND NOT granted";
            Ok(reader.query_opt(waits, &[]).await?.map(drop))
        })
        .await?;
        timeout(SOON, reader.query("SELECT * FROM busy", &[])).await??;
    }
    assert!(!migrating.is_finished());

    holder.batch_execute("COMMIT").await?;
    timeout(SOON, migrating).await???;
    reader.query("SELECT name FROM busy", &[]).await?;
    Ok(())
}

#[tokio::test]
async fn readiness_follows_postgres_and_not_the_pools_load() -> Result<()> {
    let postgres = Postgres::start().await?;
    let config = config(&postgres.url("postgres"), 1);
    let pool = database::connect(&config, "tests").await?;
    let only = pool.get().await?;
    let (health, token) = (Health::new(), CancellationToken::new());
    let watching = tokio::spawn(database::watch(
        config,
        "tests",
        health.check("postgres"),
        token.clone(),
    ));
    let becomes = async |ready: bool| {
        eventually("readiness to change", SOON, async || {
            Ok((health.is_ready() == ready).then_some(()))
        })
        .await
    };
    becomes(true).await?;

    drop(only);
    let client = postgres.connect("postgres").await?;
    let demote = "ALTER SYSTEM SET default_transaction_read_only = ";
    for (read_only, ready) in [("on", false), ("off", true)] {
        client
            .batch_execute(&format!("{demote}{read_only}"))
            .await?;
        client.batch_execute("SELECT pg_reload_conf()").await?;
        becomes(ready).await?;
    }

    postgres.kill().await?;
    becomes(false).await?;
    postgres.start_again().await?;
    becomes(true).await?;
    token.cancel();
    timeout(SOON, watching).await???;
    Ok(())
}

#[tokio::test]
async fn the_pool_outlives_a_restart_of_postgres() -> Result<()> {
    let postgres = Postgres::start().await?;
    let pool = database::connect(&config(&postgres.url("postgres"), 2), "tests").await?;
    pool.get().await?.simple_query("SELECT 1").await?;
    postgres.kill().await?;
    postgres.start_again().await?;
    eventually("a connection that works", SOON, async || {
        pool.get().await?.simple_query("SELECT 1").await?;
        Ok(Some(()))
    })
    .await
}

#[tokio::test]
async fn when_too_many_wait_one_more_is_refused_at_once() -> Result<()> {
    let postgres = Postgres::start().await?;
    let pool = database::connect(&config(&postgres.url("postgres"), 1), "tests").await?;
    let held = failure::connection(&pool).await?;
    let mut waiting: Vec<_> = (0..16)
        .map(|_| Box::pin(failure::connection(&pool)))
        .collect();
    for one in &mut waiting {
        assert!(poll!(one).is_pending());
    }
    let refused = failure::connection(&pool).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().contains("too many requests"), "{refused}");
    // The service's own work waits its turn.
    let mut own = Box::pin(failure::own_connection(&pool));
    assert!(poll!(&mut own).is_pending());
    held.release();
    for one in waiting {
        one.await?.release();
    }
    own.await?.release();
    failure::connection(&pool).await?.release();
    Ok(())
}
