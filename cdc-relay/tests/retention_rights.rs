//! A role with what `init` prints can remove what is old, and `check` tells when one cannot.

mod rig;

use anyhow::{Result, ensure};
use harness::eventually;
use rig::{DATABASE, Rig, SOON};
use serde_json::Value as Json;

const KEPT: (&str, &str) = ("CDC_RETENTION_SECONDS", "1200");
const BY_COLUMN: (&str, &str) = ("CDC_RETENTION_COLUMN", "written");

fn url(rig: &Rig) -> String {
    format!(
        "postgres://the%20relay:secret@127.0.0.1:{}/{DATABASE}",
        rig.postgres.port()
    )
}

async fn init(rig: &Rig, environment: &[(&str, &str)]) -> Result<()> {
    let output = rig
        .command(&["init", "--with-password"], environment)
        .await?;
    ensure!(output.status.success(), "{output:?}");
    let script = String::from_utf8(output.stdout)?;
    rig.sql.batch_execute(&script).await?;
    // Again, by an operator who is not sure.
    rig.sql.batch_execute(&script).await?;
    Ok(())
}

/// Level, text and mend of what `check` finds about retention.
async fn found(rig: &Rig, environment: &[(&str, &str)]) -> Result<Vec<[String; 3]>> {
    let output = rig.command(&["check", "--json"], environment).await?;
    let document: Json = serde_json::from_slice(&output.stdout)?;
    let findings = document["findings"].as_array().into_iter().flatten();
    let text = |finding: &Json, of: &str| finding[of].as_str().unwrap_or_default().to_owned();
    let of_retention = findings.filter(|finding| finding["what"] == "retention");
    Ok(of_retention
        .map(|finding| ["level", "text", "mend"].map(|of| text(finding, of)))
        .collect())
}

#[track_caller]
fn only(found: &[[String; 3]], level: &str, text: &str, mend: &str) {
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(found[0][0], level, "{found:#?}");
    assert!(found[0][1].contains(text), "{found:#?}");
    assert!(found[0][2].contains(mend), "{found:#?}");
}

/// Runs a relay until the table holds so many rows.
async fn left(rig: &Rig, environment: &[(&str, &str)], rows: i64) -> Result<()> {
    // The stream keeps everything, which the table could not give it again.
    let all = [environment, &[("CDC_STREAM_DELETED", "refuse")]].concat();
    let relay = rig.relay_with("relay", &all)?;
    eventually("the old rows to go", SOON, async || {
        let count = "SELECT count(*) FROM outbox";
        let left: i64 = rig.sql.query_one(count, &[]).await?.get(0);
        ensure!(left == rows, "{left} rows; {}", relay.log().tail());
        Ok(Some(()))
    })
    .await
}

#[tokio::test]
async fn a_role_made_by_init_deletes_what_is_old() -> Result<()> {
    let rig = Rig::without_outbox(&[]).await?;
    let url = url(&rig);
    let environment = [("DATABASE_URL", url.as_str()), KEPT, BY_COLUMN];
    init(&rig, &environment).await?;
    let rows = "INSERT INTO outbox (aggregatetype, aggregateid, type, payload, written) \
                VALUES ('order', '1', 'Made', '1', now()), ('order', '1', 'Made', '2', now() - interval '1 h')";
    rig.sql.batch_execute(rows).await?;
    let findings = found(&rig, &environment).await?;
    only(&findings, "ok", "the relay may delete from", "");
    left(&rig, &environment, 1).await?;
    assert_eq!(rig.count().await?, 2);

    rig.sql
        .batch_execute("REVOKE DELETE ON outbox FROM \"the relay\"")
        .await?;
    let findings = found(&rig, &environment).await?;
    let mend = "GRANT DELETE ON \"public\".\"outbox\" TO \"the relay\"";
    only(&findings, "wrong", "may not delete", mend);
    Ok(())
}

#[tokio::test]
async fn a_role_made_by_init_drops_the_partitions_of_others() -> Result<()> {
    let rig = Rig::without_outbox(&[]).await?;
    let table = "
        CREATE ROLE app; GRANT CREATE ON SCHEMA public TO app; SET ROLE app;
        CREATE TABLE outbox (id uuid NOT NULL DEFAULT gen_random_uuid(), aggregatetype text DEFAULT 'a',
            aggregateid text DEFAULT 'b', type text DEFAULT 'c', payload bytea DEFAULT '',
            written timestamptz NOT NULL DEFAULT now()) PARTITION BY RANGE (written);
        CREATE TABLE outbox_old PARTITION OF outbox FOR VALUES FROM ('2020-01-01Z') TO ('2021-01-01Z');
        CREATE TABLE outbox_new PARTITION OF outbox FOR VALUES FROM ('2021-01-01Z') TO (MAXVALUE);
        CREATE TABLE outbox_rest PARTITION OF outbox DEFAULT;
        RESET ROLE;
        INSERT INTO outbox (written) VALUES ('2020-06-01Z'), ('2019-01-01Z'), (now())";
    rig.sql.batch_execute(table).await?;
    let url = url(&rig);
    let environment = [("DATABASE_URL", url.as_str()), KEPT, BY_COLUMN];
    // What a role needs that removes nothing, and one right more that is of no use here.
    init(&rig, &environment[..1]).await?;
    rig.sql
        .batch_execute("GRANT DELETE ON outbox TO \"the relay\"")
        .await?;
    let findings = found(&rig, &environment).await?;
    let text = "may not drop 3 of the 3 partitions of \"public\".\"outbox\", such as outbox_new: it belongs to app";
    only(&findings, "wrong", text, "GRANT \"app\" TO \"the relay\"");

    init(&rig, &environment).await?;
    let findings = found(&rig, &environment).await?;
    only(&findings, "ok", "may drop the partitions", "");
    left(&rig, &environment, 1).await?;
    let gone = "SELECT to_regclass('outbox_old') IS NULL";
    assert!(rig.sql.query_one(gone, &[]).await?.get::<_, bool>(0));
    Ok(())
}

#[tokio::test]
async fn init_gives_no_superusers_rights_away() -> Result<()> {
    let rig = Rig::without_outbox(&[]).await?;
    let table = "
        CREATE TABLE outbox (id uuid NOT NULL, aggregatetype text, aggregateid text, type text, payload bytea)
            PARTITION BY RANGE (id);
        CREATE TABLE outbox_rest PARTITION OF outbox DEFAULT;
        CREATE TABLE outbox_all PARTITION OF outbox FOR VALUES FROM (MINVALUE) TO ('80000000-0000-7000-8000-000000000000')";
    rig.sql.batch_execute(table).await?;
    let url = url(&rig);
    let environment = [("DATABASE_URL", url.as_str()), KEPT];
    init(&rig, &environment).await?;
    let member = "SELECT count(*) FROM pg_auth_members WHERE member = '\"the relay\"'::regrole";
    assert_eq!(rig.sql.query_one(member, &[]).await?.get::<_, i64>(0), 0);
    let findings = found(&rig, &environment).await?;
    let mend = "to a role that is no superuser";
    only(&findings, "wrong", "belongs to postgres", mend);
    Ok(())
}

#[tokio::test]
async fn rows_that_do_not_tell_their_age_are_named() -> Result<()> {
    let rig = Rig::without_outbox(&[]).await?;
    let table = "CREATE TABLE outbox (id bigint, aggregatetype text, aggregateid text, type text, \
                 payload bytea, at timestamp); \
                 CREATE PUBLICATION all_of_it FOR TABLE outbox";
    rig.sql.batch_execute(table).await?;
    let wrong = async |environment: &[(&str, &str)]| {
        let found = found(&rig, environment).await?;
        anyhow::Ok(format!("{found:?}"))
    };
    let by_id = wrong(&[KEPT]).await?;
    assert!(by_id.contains("id: bigint, and such ids"), "{by_id}");
    assert!(by_id.contains("has no replica identity"), "{by_id}");
    assert!(by_id.contains("while all_of_it publishes"), "{by_id}");
    let none = wrong(&[KEPT, BY_COLUMN]).await?;
    assert!(none.contains("there is no column written"), "{none}");
    let other = wrong(&[KEPT, ("CDC_RETENTION_COLUMN", "at")]).await?;
    assert!(other.contains("at: timestamp without time zone"), "{other}");
    assert_eq!(wrong(&[]).await?, "[]");
    Ok(())
}

#[tokio::test]
async fn partitions_go_by_their_owners_function_and_the_role_is_not_a_member_of_it() -> Result<()> {
    let rig = Rig::without_outbox(&[]).await?;
    let table = "
        CREATE ROLE app; GRANT CREATE ON SCHEMA public TO app; SET ROLE app;
        CREATE TABLE outbox (id uuid NOT NULL DEFAULT gen_random_uuid(), aggregatetype text DEFAULT 'a',
            aggregateid text DEFAULT 'b', type text DEFAULT 'c', payload bytea DEFAULT '',
            written timestamptz NOT NULL DEFAULT now()) PARTITION BY RANGE (written);
        CREATE TABLE outbox_old PARTITION OF outbox FOR VALUES FROM ('2020-01-01Z') TO ('2021-01-01Z');
        CREATE TABLE outbox_new PARTITION OF outbox FOR VALUES FROM ('2021-01-01Z') TO (MAXVALUE);
        CREATE TABLE outbox_rest PARTITION OF outbox DEFAULT;
        RESET ROLE;
        INSERT INTO outbox (written) VALUES ('2020-06-01Z'), ('2019-01-01Z'), (now())";
    rig.sql.batch_execute(table).await?;
    let url = url(&rig);
    let function = ("CDC_RETENTION_FUNCTION", "public.retire it");
    let environment = [("DATABASE_URL", url.as_str()), KEPT, BY_COLUMN, function];
    init(&rig, &environment[..1]).await?;
    let findings = found(&rig, &environment).await?;
    let mend =
        "GRANT EXECUTE ON FUNCTION \"public\".\"retire it\"(regclass, boolean) TO \"the relay\"";
    only(&findings, "wrong", "may not drop 3 of the 3", mend);

    init(&rig, &environment).await?;
    let findings = found(&rig, &environment).await?;
    only(&findings, "ok", "may drop the partitions", "");
    let member = "SELECT count(*) FROM pg_auth_members WHERE member = '\"the relay\"'::regrole";
    assert_eq!(rig.sql.query_one(member, &[]).await?.get::<_, i64>(0), 0);
    left(&rig, &environment, 1).await?;
    let gone = "SELECT to_regclass('outbox_old') IS NULL";
    assert!(rig.sql.query_one(gone, &[]).await?.get::<_, bool>(0));
    Ok(())
}
