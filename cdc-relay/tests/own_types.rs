//! Columns of a database's own types, by the WAL and by the first copy: domains, enums, and what goes out
//! as text does.

mod rig;

use anyhow::{Result, ensure};
use harness::eventually;
use mailbox::envelope::{COMMIT, POSITION};
use rig::{Rig, SOON, Stored};

/// What the extension `citext` does to make its type, which not every Postgres has at hand.
const LIKE_CITEXT: &str = "
    CREATE TYPE citext;
    CREATE FUNCTION citextin(cstring) RETURNS citext AS 'textin' LANGUAGE internal IMMUTABLE STRICT;
    CREATE FUNCTION citextout(citext) RETURNS cstring AS 'textout' LANGUAGE internal IMMUTABLE STRICT;
    CREATE FUNCTION citextrecv(internal) RETURNS citext AS 'textrecv' LANGUAGE internal STABLE STRICT;
    CREATE FUNCTION citextsend(citext) RETURNS bytea AS 'textsend' LANGUAGE internal STABLE STRICT;
    CREATE TYPE citext (INPUT = citextin, OUTPUT = citextout, RECEIVE = citextrecv, SEND = citextsend,
        INTERNALLENGTH = VARIABLE, STORAGE = extended, CATEGORY = 'S');";

async fn citext(rig: &Rig) -> Result<()> {
    let query = "SELECT count(*) FROM pg_available_extensions WHERE name = 'citext'";
    let there: i64 = rig.sql.query_one(query, &[]).await?.get(0);
    let make = match there {
        0 => LIKE_CITEXT,
        _ => "CREATE EXTENSION citext",
    };
    rig.sql.batch_execute(make).await?;
    Ok(())
}

async fn stored(rig: &Rig, count: usize) -> Result<Vec<Stored>> {
    eventually("the events", SOON, async || {
        let stored = rig.stored().await?;
        Ok((stored.len() == count).then_some(stored))
    })
    .await
}

/// Headers without those of place and identity.
fn content(stored: &Stored) -> (String, String, Vec<String>) {
    let own = [POSITION, COMMIT];
    let mut headers: Vec<String> = stored
        .headers
        .iter()
        .filter(|(name, _)| {
            let name: &str = name.as_ref();
            !own.contains(&name) && !name.starts_with("Nats-")
        })
        .map(|(name, values)| format!("{name}: {values:?}"))
        .collect();
    headers.sort();
    (stored.subject.clone(), stored.payload.clone(), headers)
}

/// A row of this table is the same message by the first copy and by the WAL; and `check` finds nothing
/// wrong.
async fn both_ways(table: &str, row: &str, environment: &[(&str, &str)]) -> Result<(Rig, Stored)> {
    let rig = Rig::without_outbox(&[]).await?;
    citext(&rig).await?;
    rig.sql.batch_execute(table).await?;
    rig.sql.batch_execute(row).await?;
    let check = rig.command(&["check"], environment).await?;
    let said = String::from_utf8_lossy(&check.stdout);
    ensure!(check.status.success(), "{said}");
    let relay = rig.relay_with("relay", environment)?;
    relay.wait_ready().await?;
    rig.sql.batch_execute(row).await?;
    let mut stored = stored(&rig, 2).await?;
    assert_eq!(content(&stored[0]), content(&stored[1]));
    relay.ensure_alive()?;
    Ok((rig, stored.remove(1)))
}

#[tokio::test]
async fn domains_enums_and_citext_serve_wherever_text_does() -> Result<()> {
    let table = r#"
        CREATE DOMAIN event_id AS uuid;
        CREATE TYPE kind AS ENUM ('order', 'customer');
        CREATE DOMAIN short AS varchar(20) CHECK (value <> '');
        CREATE DOMAIN shorter AS short;
        CREATE DOMAIN tenant AS citext;
        CREATE DOMAIN body AS bytea;
        CREATE DOMAIN extras AS jsonb;
        CREATE DOMAIN moment AS timestamptz;
        CREATE TABLE outbox (id event_id PRIMARY KEY DEFAULT gen_random_uuid(), aggregatetype kind NOT NULL,
            aggregateid citext NOT NULL, type shorter NOT NULL, payload body NOT NULL, headers extras,
            tenant tenant NOT NULL, at moment)"#;
    let row = r#"
        INSERT INTO outbox (aggregatetype, aggregateid, type, payload, headers, tenant, at) VALUES ('order', 'Nr1',
            'Made', 'body', '{"who": "ana"}', 'Acme', '2026-01-02 03:04:05.6Z')"#;
    let environment = [
        ("CDC_SUBJECT", "events.{tenant}.{aggregatetype}.{type}"),
        ("CDC_COLUMNS_AS_HEADERS", "at=At"),
    ];
    let (_rig, stored) = both_ways(table, row, &environment).await?;
    assert_eq!(stored.subject, "events.Acme.order.Made");
    assert_eq!(stored.payload, "body");
    let header = |name: &str| {
        stored
            .headers
            .get(name)
            .map(|value| value.as_str().to_owned())
    };
    assert_eq!(header("At").as_deref(), Some("2026-01-02T03:04:05.600000Z"));
    assert_eq!(header("who").as_deref(), Some("ana"));
    assert_eq!(header("Aggregate-Id").as_deref(), Some("Nr1"));
    Ok(())
}

#[tokio::test]
async fn domains_over_numbers_json_and_text_serve_as_id_and_payload() -> Result<()> {
    let table = "
        CREATE SEQUENCE ids;
        CREATE DOMAIN event_id AS bigint;
        CREATE DOMAIN document AS jsonb;
        CREATE TABLE outbox (id event_id PRIMARY KEY DEFAULT nextval('ids'), aggregatetype text NOT NULL,
            aggregateid text NOT NULL, type text NOT NULL, payload document NOT NULL)";
    let row = "INSERT INTO outbox (aggregatetype, aggregateid, type, payload) \
               VALUES ('order', '1', 'Made', '{\"a\": 1}')";
    let (_rig, stored) = both_ways(table, row, &[]).await?;
    assert_eq!(
        (stored.id.as_str(), stored.payload.as_str()),
        ("2", "{\"a\": 1}")
    );

    let table = "
        CREATE DOMAIN note AS text;
        CREATE TABLE outbox (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), aggregatetype text NOT NULL,
            aggregateid text NOT NULL, type text NOT NULL, payload note NOT NULL)";
    let row = "INSERT INTO outbox (aggregatetype, aggregateid, type, payload) \
               VALUES ('order', '1', 'Made', 'Grüße')";
    let (_rig, stored) = both_ways(table, row, &[]).await?;
    assert_eq!(stored.payload, "Grüße");
    Ok(())
}

#[tokio::test]
async fn a_type_that_is_made_while_the_relay_runs_is_read_too() -> Result<()> {
    let rig = Rig::start().await?;
    let relay = rig.relay("relay")?;
    relay.wait_ready().await?;
    rig.insert("before").await?;
    stored(&rig, 1).await?;
    let alter = "
        CREATE TYPE kind AS ENUM ('thing', 'order');
        ALTER TABLE outbox ALTER COLUMN aggregatetype DROP DEFAULT;
        ALTER TABLE outbox ALTER COLUMN aggregatetype TYPE kind USING aggregatetype::kind;
        INSERT INTO outbox (aggregatetype, payload) VALUES ('order', 'after')";
    rig.sql.batch_execute(alter).await?;
    let stored = stored(&rig, 2).await?;
    assert_eq!(
        stored[1]
            .headers
            .get("Aggregate-Type")
            .map(|value| value.as_str()),
        Some("order")
    );
    relay.ensure_alive()
}

#[tokio::test]
async fn a_row_in_quarantine_keeps_what_its_types_were() -> Result<()> {
    let rig = Rig::without_outbox(&[]).await?;
    let table = "
        CREATE DOMAIN body AS bytea;
        CREATE DOMAIN event_id AS uuid;
        CREATE TABLE outbox (id event_id PRIMARY KEY DEFAULT gen_random_uuid(), aggregatetype text NOT NULL \
            DEFAULT 'thing', aggregateid text NOT NULL DEFAULT '1', type text NOT NULL, payload body NOT NULL)";
    rig.sql.batch_execute(table).await?;
    let relay = rig.relay("relay")?;
    relay.wait_ready().await?;
    let row =
        "INSERT INTO outbox (type, payload) VALUES ('no such subject', 'body') RETURNING id::text";
    let id: String = rig.sql.query_one(row, &[]).await?.get(0);
    eventually("the row to stand in quarantine", SOON, async || {
        Ok((relay.metric("cdc_relay_quarantine_open").await? == Some(1.0)).then_some(()))
    })
    .await?;
    // Nothing can ask the database for these any more.
    let forget = "DROP TABLE outbox; DROP DOMAIN body; DROP DOMAIN event_id";
    rig.sql.batch_execute(forget).await?;
    for arguments in [["fix", &id, "--type", "Made"].as_slice(), &["release", &id]] {
        let output = rig
            .command(&[&["quarantine"], arguments].concat(), &[])
            .await?;
        ensure!(output.status.success(), "{output:?}");
    }
    let stored = stored(&rig, 1).await?;
    assert_eq!((&stored[0].id, stored[0].payload.as_str()), (&id, "body"));
    Ok(())
}
