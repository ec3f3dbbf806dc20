//! What is wrong is named, with its mend; and mending it is all that is needed.

mod rig;

use anyhow::Result;
use harness::eventually;
use rig::{DATABASE, Rig, SLOT, SOON, says};

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
async fn a_publication_mended_behind_a_slot_costs_no_event() -> Result<()> {
    let rig = Rig::start().await?;
    let relay = rig.relay("relay")?;
    relay.wait_ready().await?;
    rig.insert("one").await?;
    rig.settled().await?;
    relay.kill().await?;
    rig.sql
        .batch_execute("ALTER PUBLICATION cdc_relay DROP TABLE outbox")
        .await?;
    rig.insert("never decoded by this slot").await?;
    relay.start_again()?;
    says(&relay, "SELECT pg_drop_replication_slot('relay')").await?;
    let mend =
        "ALTER PUBLICATION cdc_relay ADD TABLE outbox; SELECT pg_drop_replication_slot('relay')";
    rig.sql.batch_execute(mend).await?;
    rig.insert("after").await?;
    relay.wait_ready().await?;
    assert_eq!(rig.settled().await?.len(), 3);
    Ok(())
}

#[tokio::test]
async fn without_a_quarantine_an_event_that_nats_cannot_take_stops_the_relay_and_loses_nothing()
-> Result<()> {
    let rig = Rig::start().await?;
    let relay = rig.relay_with("relay", &[("CDC_QUARANTINE_STREAM", "none")])?;
    relay.wait_ready().await?;
    relay.kill().await?;
    // All of it in one read: the relay is away while it is written.
    rig.insert("before it").await?;
    let committed_before = rig.wal_end().await?;
    let huge = "INSERT INTO outbox VALUES ('01890a5d-ac96-774b-bcce-b302099a8057', 'a', 'b', 'c', \
                convert_to(repeat('x', 2000000), 'UTF8'))";
    rig.sql.batch_execute(huge).await?;
    let committed = rig.wal_end().await?;
    rig.insert("behind it").await?;
    relay.start_again()?;
    says(&relay, "event 01890a5d-ac96-774b-bcce-b302099a8057 at").await?;
    says(&relay, "raise the NATS server's `max_payload`").await?;
    let payloads: Vec<_> = rig.stored().await?.into_iter().map(|m| m.payload).collect();
    assert_eq!(payloads, ["before it"]);
    let confirmed = rig.confirmed().await?;
    assert!(
        committed_before <= confirmed && confirmed < committed,
        "{confirmed}"
    );

    // The mend that the log gives.
    let mend =
        "UPDATE outbox SET payload = 'small' WHERE id = '01890a5d-ac96-774b-bcce-b302099a8057'";
    rig.sql.batch_execute(mend).await?;
    eventually("the slot to be free", SOON, async || {
        rig.sql
            .execute("SELECT pg_drop_replication_slot($1)", &[&SLOT])
            .await?;
        Ok(Some(()))
    })
    .await?;
    assert_eq!(rig.settled().await?.len(), 3);
    Ok(())
}

#[tokio::test]
async fn a_stream_with_an_event_that_this_server_never_wrote_is_refused_where_healing_is()
-> Result<()> {
    let rig = Rig::start().await?;
    let relay = rig.relay_with("relay", &[("CDC_HEAL", "refuse")])?;
    relay.wait_ready().await?;
    rig.insert("one").await?;
    let last = rig.settled().await?.remove(0);
    relay.kill().await?;
    // As after a restore: the stream has an event at a place that this WAL now gives to another.
    rig.insert("in the place of another").await?;
    let mut position = last.position;
    position.lsn = u64::from(rig.wal_end().await?) - 1;
    let mut headers = async_nats::HeaderMap::new();
    headers.insert(mailbox::envelope::EVENT_ID, "gone with the restore");
    headers.insert(mailbox::envelope::POSITION, position.to_string());
    let jetstream = async_nats::jetstream::new(rig.nats.client().await?);
    let sent = jetstream
        .publish_with_headers("events.Made", headers, "x".into())
        .await?;
    sent.await?;
    rig.insert("later").await?;

    relay.start_again()?;
    says(&relay, "gone with the restore").await?;
    assert_eq!(rig.count().await?, 2, "something was published after it");
    let committed = rig.wal_end().await?;
    assert!(
        rig.confirmed().await? < committed,
        "rows were confirmed that nobody has published"
    );
    Ok(())
}

#[tokio::test]
async fn a_stream_of_another_server_is_refused_even_without_a_slot() -> Result<()> {
    let (rig, other) = (Rig::start().await?, Rig::start().await?);
    let relay = rig.relay("relay")?;
    relay.wait_ready().await?;
    rig.insert("one").await?;
    rig.settled().await?;
    relay.kill().await?;
    other.insert("another's").await?;
    let stranger = other.relay_with("stranger", &[("NATS_URL", &rig.nats.url())])?;
    says(&stranger, "was written from Postgres system").await?;
    assert_eq!(rig.count().await?, 1);
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
