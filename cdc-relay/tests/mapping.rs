//! A table of one's own: other names and types of columns, further columns in subject and headers; the
//! first copy reads it as the WAL does.

mod rig;

use anyhow::{Result, ensure};
use harness::{Process, eventually};
use rig::{Rig, SOON, Stored};

const TABLE: &str = "
    CREATE TABLE \"Events\" (
        at timestamptz NOT NULL DEFAULT '2026-11-25 04:05:06.789+02', data jsonb NOT NULL,
        tenant text, event_id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, \"Kind\" varchar(40) NOT NULL,
        entity text NOT NULL, entity_id uuid NOT NULL, region text, urgent boolean, meta json)";

const ROW: &str = "
    INSERT INTO \"Events\" (data, tenant, \"Kind\", entity, entity_id, region, urgent, meta) VALUES
        ('{\"a\": 1}', 'acme', 'Made', 'order', '01890a5d-ac96-774b-bcce-b302099a8057', 'eu', true,
         '{\"traceparent\": \"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\"}')";

const SETTINGS: &str = r#"
[source]
table = "public.Events"

[columns]
id = "event_id"
type = "Kind"
aggregate_type = "entity"
aggregate_id = "entity_id"
payload = "data"
headers = "meta"
time = "at"
as_headers = { region = "X-Region", urgent = "X-Urgent", at = "X-At" }

[message]
subject = "events.{tenant}.{type}"
headers = { X-Source = "shop, the first" }
cloudevents_source = "/shop"

[stream]
name = "from the environment instead"
"#;

fn relay(rig: &Rig, settings: &str) -> Result<Process> {
    let file = rig.guard.directory().join("relay.toml");
    std::fs::write(&file, settings)?;
    let file = file.to_string_lossy();
    rig.relay_with("relay", &[("CDC_CONFIG", &file)])
}

async fn stored(rig: &Rig, count: usize) -> Result<Vec<Stored>> {
    eventually("the rows", SOON, async || {
        let stored = rig.stored().await?;
        ensure!(stored.len() == count, "{} of {count}", stored.len());
        Ok(Some(stored))
    })
    .await
}

#[tokio::test]
async fn a_table_of_other_columns_reads_the_same_in_the_first_copy_and_from_the_wal() -> Result<()>
{
    let rig = Rig::without_outbox(&[]).await?;
    rig.sql.batch_execute(TABLE).await?;
    // A zone and a style that plain text would show.
    let style = "ALTER ROLE postgres SET timezone = 'Asia/Tokyo'; ALTER ROLE postgres SET datestyle = 'German'";
    rig.sql.batch_execute(style).await?;
    rig.sql.batch_execute(ROW).await?;
    // The environment goes before the file, whose name of the stream is refused for its blanks.
    let settings = SETTINGS.replace("from the environment instead", "OTHER");
    let relay = relay(&rig, &settings)?;
    relay.wait_ready().await?;
    rig.sql.batch_execute(ROW).await?;
    let stored = stored(&rig, 2).await?;
    for (event, id) in stored.iter().zip(["1", "2"]) {
        assert_eq!(event.id, id);
        assert_eq!(event.subject, "events.acme.Made");
        assert_eq!(event.payload, "{\"a\": 1}");
        for (name, value) in [
            ("Event-Type", "Made"),
            ("Aggregate-Type", "order"),
            ("Aggregate-Id", "01890a5d-ac96-774b-bcce-b302099a8057"),
            ("X-Region", "eu"),
            ("X-Urgent", "true"),
            ("X-At", "2026-11-25T02:05:06.789000Z"),
            ("X-Source", "shop, the first"),
            (
                "traceparent",
                "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            ),
            ("ce-specversion", "1.0"),
            ("ce-id", id),
            ("ce-source", "/shop"),
            ("ce-type", "Made"),
            ("ce-subject", "01890a5d-ac96-774b-bcce-b302099a8057"),
            ("ce-time", "2026-11-25T02:05:06.789000Z"),
            ("ce-datacontenttype", "application/json"),
        ] {
            let found = event.headers.get(name).map(|value| value.as_str());
            assert_eq!(found, Some(value), "{name} of {id}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_column_that_is_not_there_is_named_and_its_coming_is_enough() -> Result<()> {
    let rig = Rig::without_outbox(&[]).await?;
    rig.sql.batch_execute(TABLE).await?;
    let settings = SETTINGS
        .replace("{tenant}", "{shard}")
        .replace("from the environment instead", "OTHER");
    let relay = relay(&rig, &settings)?;
    eventually("the relay to name the column", SOON, async || {
        ensure!(
            relay.log().text().contains("no column `shard`"),
            "{}",
            relay.log().tail()
        );
        Ok(Some(()))
    })
    .await?;
    let mend = "ALTER TABLE \"Events\" ADD COLUMN shard int NOT NULL DEFAULT 7";
    rig.sql.batch_execute(mend).await?;
    rig.sql.batch_execute(ROW).await?;
    relay.wait_ready().await?;
    assert_eq!(stored(&rig, 1).await?[0].subject, "events.7.Made");
    Ok(())
}
