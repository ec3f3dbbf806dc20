//! What stands in the outbox stands in the stream: in commit order, with its headers, whatever the
//! size of its transaction, and whenever it was written.

mod rig;

use anyhow::Result;
use harness::eventually;
use mailbox::envelope::{AGGREGATE_ID, AGGREGATE_TYPE, COMMIT, EVENT_TYPE, TRACEPARENT};
use rig::{DATABASE, Rig, SOON, insert};

#[tokio::test]
async fn events_stand_in_commit_order_and_rolled_back_ones_do_not_stand_at_all() -> Result<()> {
    let rig = Rig::start().await?;
    let relay = rig.relay("relay")?;
    relay.wait_ready().await?;

    let mut early = rig.postgres.connect(DATABASE).await?;
    let begun_first = early.transaction().await?;
    let statement = "INSERT INTO outbox (payload) VALUES ('late-1'), ('late-2')";
    begun_first.execute(statement, &[]).await?;
    let mut other = rig.postgres.connect(DATABASE).await?;
    let refused = other.transaction().await?;
    refused
        .execute("INSERT INTO outbox (payload) VALUES ('never')", &[])
        .await?;
    refused.rollback().await?;
    insert(&other, "first").await?;
    begun_first.commit().await?;

    let payloads: Vec<_> = rig
        .settled()
        .await?
        .into_iter()
        .map(|m| m.payload)
        .collect();
    assert_eq!(payloads, ["first", "late-1", "late-2"]);
    Ok(())
}

#[tokio::test]
async fn an_event_carries_its_row() -> Result<()> {
    let rig = Rig::start().await?;
    let relay = rig.relay("relay")?;
    relay.wait_ready().await?;
    let statement = "INSERT INTO outbox VALUES ('01890a5d-ac96-774b-bcce-b302099a8057', 'order', '42', \
                     'orders.v1.OrderCreated', '\\x00ff', '{\"traceparent\": \"00-ab-cd-01\", \"tenant\": 7}')";
    rig.sql.batch_execute(statement).await?;

    let stored = rig.settled().await?;
    let event = &stored[0];
    let header = |name: &str| event.headers.get(name).map(|value| value.as_str());
    assert_eq!(event.id, "01890a5d-ac96-774b-bcce-b302099a8057");
    assert_eq!(event.subject, "events.orders.v1.OrderCreated");
    assert_eq!(header(EVENT_TYPE), Some("orders.v1.OrderCreated"));
    assert_eq!(header(AGGREGATE_TYPE), Some("order"));
    assert_eq!(header(AGGREGATE_ID), Some("42"));
    assert_eq!(header(TRACEPARENT), Some("00-ab-cd-01"));
    assert_eq!(header("tenant"), Some("7"));
    Ok(())
}

#[tokio::test]
async fn rows_from_before_the_slot_are_published_first() -> Result<()> {
    let rig = Rig::start().await?;
    let before = "INSERT INTO outbox (payload) SELECT convert_to('before-' || n, 'UTF8') \
                  FROM generate_series(1, 2500) n";
    rig.sql.batch_execute(before).await?;
    let relay = rig.relay("relay")?;
    relay.wait_ready().await?;
    rig.insert("after").await?;

    let stored = rig.settled().await?;
    assert_eq!(stored.len(), 2501);
    assert_eq!(stored[2500].payload, "after");
    Ok(())
}

#[tokio::test]
async fn a_dropped_slot_loses_nothing_and_repeats_nothing() -> Result<()> {
    let rig = Rig::start().await?;
    let relay = rig.relay("relay")?;
    relay.wait_ready().await?;
    rig.insert("one").await?;
    rig.settled().await?;
    relay.kill().await?;
    rig.insert("two").await?;
    eventually("the slot to be free", SOON, async || {
        rig.sql
            .execute("SELECT pg_drop_replication_slot($1)", &[&rig::SLOT])
            .await?;
        Ok(Some(()))
    })
    .await?;
    rig.insert("three").await?;
    relay.start_again()?;
    relay.wait_ready().await?;
    rig.insert("four").await?;

    let mut payloads: Vec<_> = rig
        .settled()
        .await?
        .into_iter()
        .map(|m| m.payload)
        .collect();
    // Ids are random here, and a copy goes by id: `two` and `three` may change places.
    payloads[1..3].sort();
    assert_eq!(payloads, ["one", "three", "two", "four"]);
    Ok(())
}

#[tokio::test]
async fn a_transaction_larger_than_a_batch_arrives_whole_and_in_order() -> Result<()> {
    let rig = Rig::start().await?;
    let relay = rig.relay("relay")?;
    relay.wait_ready().await?;
    let large = "INSERT INTO outbox (payload) SELECT convert_to('row-' || n || repeat('x', 2000), 'UTF8') \
                 FROM generate_series(1, 7321) n";
    rig.sql.batch_execute(large).await?;
    rig.insert("after").await?;

    let stored = rig.settled().await?;
    assert_eq!(stored.len(), 7322);
    for (at, event) in stored[..7321].iter().enumerate() {
        assert!(
            event.payload.starts_with(&format!("row-{}x", at + 1)),
            "at {at}"
        );
        assert_eq!(usize::try_from(event.position.index)?, at);
    }
    // Whatever the batches that it came in, a reader can tell where it ends.
    let marks: Vec<_> = stored
        .iter()
        .enumerate()
        .filter_map(|(at, event)| Some((at, event.headers.get(COMMIT)?.as_str())))
        .collect();
    assert_eq!(marks, [(7320, "7321"), (7321, "1")]);
    Ok(())
}

#[tokio::test]
async fn a_table_of_ones_own_is_served_and_so_is_a_partitioned_one() -> Result<()> {
    let rig = Rig::without_outbox(&[]).await?;
    let tables = "
        CREATE SCHEMA app;
        CREATE TABLE app.events (
            note text, payload jsonb NOT NULL, type varchar NOT NULL, id bigint GENERATED ALWAYS AS IDENTITY,
            aggregateid uuid NOT NULL, aggregatetype text NOT NULL, PRIMARY KEY (id)
        ) PARTITION BY RANGE (id);
        CREATE TABLE app.events_1 PARTITION OF app.events DEFAULT;
        CREATE TABLE app.unrelated (id bigint);
    ";
    rig.sql.batch_execute(tables).await?;
    let environment = [
        ("CDC_TABLE", "app.events"),
        ("CDC_SUBJECT", "events.{aggregatetype}.{type}"),
    ];
    let relay = rig.relay_with("relay", &environment)?;
    relay.wait_ready().await?;
    let rows = "
        BEGIN; INSERT INTO app.unrelated VALUES (1);
        INSERT INTO app.events (payload, type, aggregateid, aggregatetype)
            VALUES ('{\"a\": 1}', 'Made', '01890a5d-ac96-774b-bcce-b302099a8057', 'thing');
        COMMIT; ALTER TABLE app.events ADD COLUMN more text;
        INSERT INTO app.events (payload, type, aggregateid, aggregatetype, more)
            VALUES ('[]', 'Made', '01890a5d-ac96-774b-bcce-b302099a8057', 'thing', 'm');
    ";
    rig.sql.batch_execute(rows).await?;
    let stored = eventually("both rows", SOON, async || {
        let stored = rig.stored().await?;
        Ok((stored.len() == 2).then_some(stored))
    })
    .await?;
    assert_eq!((stored[0].id.as_str(), stored[1].id.as_str()), ("1", "2"));
    assert_eq!(stored[0].subject, "events.thing.Made");
    assert_eq!(stored[0].payload, "{\"a\": 1}");
    Ok(())
}
