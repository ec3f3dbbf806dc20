//! What is wrong is named, with its mend; and mending it is all that is needed.

mod rig;

use anyhow::{Result, ensure};
use harness::{Process, eventually};
use rig::{DATABASE, Rig, SLOT, SOON};

/// Awaits a line of the relay's log.
async fn says(relay: &Process, text: &str) -> Result<()> {
    eventually(&format!("the relay to say `{text}`"), SOON, async || {
        ensure!(relay.log().text().contains(text), "{}", relay.log().tail());
        Ok(Some(()))
    })
    .await
}

#[tokio::test]
async fn a_server_without_logical_wal_is_told_how_to_get_it() -> Result<()> {
    let rig = Rig::without_outbox(&[("wal_level", "replica")]).await?;
    let relay = rig.relay("relay")?;
    says(&relay, "ALTER SYSTEM SET wal_level = logical").await
}

#[tokio::test]
async fn a_table_that_comes_later_is_awaited() -> Result<()> {
    let rig = Rig::without_outbox(&[]).await?;
    let relay = rig.relay("relay")?;
    says(&relay, "waiting for its owner to create it").await?;
    let table = "CREATE TABLE outbox (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), aggregatetype text \
                 DEFAULT 'a', aggregateid text DEFAULT 'b', type text DEFAULT 'c', payload bytea)";
    rig.sql.batch_execute(table).await?;
    rig.insert("now").await?;
    relay.wait_ready().await?;
    rig.settled().await?;
    Ok(())
}

#[tokio::test]
async fn a_slot_of_another_database_is_refused_by_name() -> Result<()> {
    let rig = Rig::start().await?;
    rig.postgres.create_database("other").await?;
    let other = rig.postgres.connect("other").await?;
    let create = "SELECT pg_create_logical_replication_slot($1, 'pgoutput')";
    other.execute(create, &[&SLOT]).await?;
    let relay = rig.relay("relay")?;
    says(&relay, "give this relay another CDC_SLOT").await
}

#[tokio::test]
async fn a_publication_that_leaves_the_table_out_is_refused_with_its_mend() -> Result<()> {
    let rig = Rig::start().await?;
    rig.sql
        .batch_execute("CREATE PUBLICATION cdc_relay")
        .await?;
    let relay = rig.relay("relay")?;
    let mend = "ALTER PUBLICATION \\\"cdc_relay\\\" ADD TABLE \\\"public\\\".\\\"outbox\\\"";
    says(&relay, mend).await?;
    rig.sql
        .batch_execute("ALTER PUBLICATION cdc_relay ADD TABLE outbox")
        .await?;
    relay.wait_ready().await?;
    rig.insert("mended").await?;
    rig.settled().await?;
    Ok(())
}

#[tokio::test]
async fn an_event_that_nats_cannot_take_is_named_and_nothing_is_confirmed_past_it() -> Result<()> {
    let rig = Rig::start().await?;
    let relay = rig.relay("relay")?;
    relay.wait_ready().await?;
    let huge = "INSERT INTO outbox VALUES ('01890a5d-ac96-774b-bcce-b302099a8057', 'a', 'b', 'c', \
                convert_to(repeat('x', 2000000), 'UTF8'))";
    rig.sql.batch_execute(huge).await?;
    let committed = rig.wal_end().await?;
    rig.insert("behind it").await?;
    says(&relay, "event 01890a5d-ac96-774b-bcce-b302099a8057 at").await?;
    says(&relay, "raise its `max_payload`").await?;
    assert!(rig.confirmed().await? < committed);
    Ok(())
}

#[tokio::test]
async fn a_wrong_password_is_said_and_never_shown() -> Result<()> {
    let rig = Rig::start().await?;
    let url = rig
        .postgres
        .url(DATABASE)
        .replace(rig.postgres.password(), "sesame");
    let relay = rig.relay_with("relay", &[("DATABASE_URL", &url)])?;
    says(&relay, "password authentication failed").await?;
    assert!(!relay.log().text().contains("sesame"));
    Ok(())
}
