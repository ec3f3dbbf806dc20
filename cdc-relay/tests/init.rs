//! What `init` prints is all that a relay of no other rights needs, and it can be run again.

mod rig;

use anyhow::{Context as _, Result, ensure};
use harness::eventually;
use rig::{DATABASE, Rig, SOON};

fn url(rig: &Rig, role: &str) -> String {
    format!(
        "postgres://{role}:se%27cret@127.0.0.1:{}/{DATABASE}",
        rig.postgres.port()
    )
}

async fn init(rig: &Rig, environment: &[(&str, &str)]) -> Result<String> {
    let output = rig
        .command(&["init", "--with-password"], environment)
        .await?;
    ensure!(output.status.success(), "{output:?}");
    Ok(String::from_utf8(output.stdout)?)
}

#[tokio::test]
async fn a_role_made_by_init_is_enough_to_run_and_nothing_of_it_is_a_superusers() -> Result<()> {
    let rig = Rig::without_outbox(&[]).await?;
    let url = url(&rig, "the relay");
    let environment = [
        ("DATABASE_URL", url.as_str()),
        ("CDC_TABLE", "app.Events"),
        ("CDC_COLUMN_ID", "event_id"),
        ("CDC_COLUMN_TIME", "at"),
        ("CDC_CLOUDEVENTS_SOURCE", "/shop"),
        ("CDC_SUBJECT", "events.{tenant}.{type}"),
        ("CDC_COLUMNS_AS_HEADERS", "region=Region"),
    ];
    let script = init(&rig, &environment).await?;
    assert!(
        !script.contains("cret"),
        "the password is printed: {script}"
    );
    rig.sql.batch_execute(&script).await?;
    let rows = "INSERT INTO app.\"Events\" (aggregatetype, aggregateid, type, payload, tenant) \
                VALUES ('order', '1', 'Made', '{}', 'acme')";
    rig.sql.batch_execute(rows).await?;
    // Again, by an operator who is not sure.
    rig.sql.batch_execute(&script).await?;

    let output = rig.command(&["check"], &environment).await?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    let relay = rig.relay_with("relay", &environment)?;
    relay.wait_ready().await?;
    rig.sql.batch_execute(rows).await?;
    let stored = eventually("both rows", SOON, async || {
        let stored = rig.stored().await?;
        Ok((stored.len() == 2).then_some(stored))
    })
    .await?;
    assert_eq!(stored[1].subject, "events.acme.Made");
    assert!(stored[1].headers.get("ce-time").is_some());
    let role = "SELECT rolsuper OR rolcreaterole OR rolcreatedb OR rolbypassrls FROM pg_roles \
                WHERE rolname = 'the relay'";
    assert!(!rig.sql.query_one(role, &[]).await?.get::<_, bool>(0));
    Ok(())
}

#[tokio::test]
async fn a_table_that_is_there_is_left_as_it_is_and_joins_the_publication() -> Result<()> {
    let rig = Rig::start().await?;
    rig.sql
        .batch_execute("CREATE PUBLICATION cdc_relay")
        .await?;
    rig.insert("from before").await?;
    let url = url(&rig, "relay");
    let environment = [("DATABASE_URL", url.as_str())];
    rig.sql
        .batch_execute(&init(&rig, &environment).await?)
        .await?;
    let relay = rig.relay_with("relay", &environment)?;
    relay.wait_ready().await?;
    assert_eq!(rig.settled().await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_script_for_another_database_changes_nothing() -> Result<()> {
    let rig = Rig::start().await?;
    let url = url(&rig, "relay");
    let script = init(&rig, &[("DATABASE_URL", &url)]).await?;
    let elsewhere = rig.postgres.connect("postgres").await?;
    let refused = elsewhere.batch_execute(&script).await.unwrap_err();
    let refused = format!("{:?}", refused.as_db_error().context("no answer")?);
    assert!(refused.contains("this is database postgres"), "{refused}");
    let count = "SELECT count(*) FROM pg_roles WHERE rolname = 'relay'";
    assert_eq!(rig.sql.query_one(count, &[]).await?.get::<_, i64>(0), 0);
    Ok(())
}

/// A fenced block of the README's first section.
fn block<'a>(readme: &'a str, language: &str) -> Result<&'a str> {
    let fence = format!("```{language}\n");
    let (_, section) = readme
        .split_once("## In five minutes")
        .context("no quick start")?;
    let (_, block) = section.split_once(&fence).context("no such block")?;
    let (block, _) = block.split_once("```").context("an open block")?;
    Ok(block)
}

#[tokio::test]
async fn the_quick_start_of_the_readme_works_word_for_word() -> Result<()> {
    let readme = include_str!("../README.md");
    let rig = Rig::without_outbox(&[]).await?;
    let nats = rig.nats.url();
    let settings = block(readme, "toml")?
        .replace(
            "localhost:5432",
            &format!("127.0.0.1:{}", rig.postgres.port()),
        )
        .replace("nats://localhost:4222", &nats);
    let file = rig.guard.directory().join("relay.toml");
    std::fs::write(&file, settings)?;
    let file = file.to_string_lossy().into_owned();
    // The file must be enough.
    let nothing = [
        ("DATABASE_URL", ""),
        ("NATS_URL", ""),
        ("CDC_SLOT", ""),
        ("CDC_STREAM", ""),
    ];
    let mut ran = Vec::new();
    for line in block(readme, "sh")?
        .lines()
        .filter(|line| line.starts_with("cdc-relay "))
    {
        let (command, pipe) = line.split_once(" | ").unwrap_or((line, ""));
        let command = command
            .split('#')
            .next()
            .unwrap_or_default()
            .replace("relay.toml", &file);
        let arguments: Vec<&str> = command.split_whitespace().skip(1).collect();
        ran.push(arguments[0].to_owned());
        if arguments[0] == "run" {
            continue;
        }
        let output = rig.command(&arguments, &nothing).await?;
        ensure!(output.status.success(), "{line}: {output:?}");
        if pipe.starts_with("psql") {
            rig.sql
                .batch_execute(&String::from_utf8(output.stdout)?)
                .await?;
        }
    }
    assert_eq!(ran, ["init", "check", "run"]);
    let environment = [
        nothing.as_slice(),
        &[("CDC_STREAM_SUBJECTS", ""), ("CDC_CONFIG", &file)],
    ]
    .concat();
    let relay = rig.relay_with("relay", &environment)?;
    relay.wait_ready().await?;
    rig.sql.batch_execute(block(readme, "sql")?).await?;
    let stored = eventually("the event", SOON, async || {
        let stored = rig.stored().await?;
        Ok((!stored.is_empty()).then_some(stored))
    })
    .await?;
    assert_eq!(stored[0].subject, "events.OrderCreated");
    assert_eq!(
        stored[0].headers.get("tenant").map(|value| value.as_str()),
        Some("a")
    );
    Ok(())
}
