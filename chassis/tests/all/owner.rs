//! The owner's part of a start: migrations and grants, and nothing after it.

use std::time::Duration;

use anyhow::Result;
use chassis::config::{Database, Owner};
use chassis::database::{Grants, prepare};
use harness::{Guard, Postgres, eventually};
use refinery::{Migration, Runner};

const SOON: Duration = Duration::from_secs(20);
const GRANTS: Grants<'_> = Grants {
    service: &["GRANT SELECT ON things TO :\"role\"", "SELECT :'role'"],
    relay: &["GRANT INSERT ON things TO :\"role\""],
    auditor: &[],
};

fn as_role(postgres: &Postgres, role: &str) -> Database {
    let url = postgres
        .url("postgres")
        .replace("//postgres:", &format!("//{role}:"));
    Database {
        url: url.parse().expect("a URL"),
        password_file: None,
        pool_size: 2,
    }
}

async fn prepared(postgres: &Postgres, owner: &Owner) -> Result<()> {
    let create = Migration::unapplied("V1__things", "CREATE TABLE things (a int)")?;
    let sets = vec![("history", Runner::new(&[create]))];
    prepare(&as_role(postgres, "running"), owner, "tests", sets, &GRANTS).await
}

#[tokio::test]
async fn it_migrates_waits_for_the_roles_grants_and_disconnects() -> Result<()> {
    let guard = Guard::start()?;
    let postgres = Postgres::start_with(&guard, &[]).await?;
    let client = postgres.connect("postgres").await?;
    let roles = format!(
        "CREATE ROLE owner LOGIN PASSWORD '{0}'; CREATE ROLE running LOGIN PASSWORD '{0}'; \
         GRANT ALL ON SCHEMA public TO owner",
        postgres.password()
    );
    client.batch_execute(&roles).await?;
    let file = guard.directory().join("owner");
    std::fs::write(&file, postgres.password())?;
    let without = format!("postgres://owner@127.0.0.1:{}/postgres", postgres.port());
    let owner = Owner {
        url: without.parse().ok(),
        password_file: Some(file),
        relay_role: Some("the \"relay\"".to_owned()),
        auditor_role: None,
    };
    let preparing = prepared(&postgres, &owner);
    let granted = "SELECT count(*) FROM pg_class WHERE relname = 'things' AND relacl::text LIKE '%running=r/owner%'";
    let waits_for_the_relay = eventually("the first grant", SOON, async || {
        let row = client.query_one(granted, &[]).await?;
        Ok((row.get::<_, i64>(0) == 1).then_some(()))
    });
    let mut preparing = std::pin::pin!(preparing);
    tokio::select! {
        done = &mut preparing => panic!("it did not wait: {done:?}"),
        waits = waits_for_the_relay => waits?,
    }
    client
        .batch_execute("CREATE ROLE \"the \"\"relay\"\"\"")
        .await?;
    preparing.await?;
    let inserts = "SELECT has_table_privilege('the \"relay\"', 'things', 'INSERT') AND \
                   NOT has_table_privilege('running', 'things', 'INSERT')";
    assert!(client.query_one(inserts, &[]).await?.get::<_, bool>(0));
    eventually("the owner to be gone", SOON, async || {
        let there = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'owner'";
        let row = client.query_one(there, &[]).await?;
        Ok((row.get::<_, i64>(0) == 0).then_some(()))
    })
    .await
}

#[tokio::test]
async fn a_refused_owner_and_a_grant_that_fails_are_named() -> Result<()> {
    let postgres = Postgres::start().await?;
    let client = postgres.connect("postgres").await?;
    client.batch_execute("CREATE ROLE running").await?;
    let mut owner = Owner {
        url: Some(as_role(&postgres, "nobody").url),
        ..Owner::default()
    };
    let error = prepared(&postgres, &owner).await.unwrap_err().to_string();
    assert!(error.contains("correct MIGRATIONS_DATABASE_URL"), "{error}");

    owner.url = Some(as_role(&postgres, "postgres").url);
    let grants = Grants {
        service: &["GRANT SELECT ON nothing TO :\"role\""],
        ..Grants::default()
    };
    let running = as_role(&postgres, "running");
    let failed = prepare(&running, &owner, "tests", Vec::new(), &grants).await;
    let error = format!("{:#}", failed.unwrap_err());
    assert!(error.contains("cannot grant running"), "{error}");
    assert!(error.contains("\"nothing\" does not exist"), "{error}");
    Ok(())
}
