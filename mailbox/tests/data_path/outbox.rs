//! The outbox, row by row.

use anyhow::Result;
use mailbox::outbox::{self, Event};
use serde_json::Value;
use uuid::Uuid;

use crate::world::World;

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Happened {
    #[prost(string, tag = "1")]
    pub(crate) what: String,
}

impl prost::Name for Happened {
    const NAME: &'static str = "Happened";
    const PACKAGE: &'static str = "test.v1";
}

pub(crate) fn event(what: &str) -> Event {
    let what = what.to_owned();
    Event::new("thing", Uuid::now_v7(), &Happened { what })
}

#[tokio::test]
async fn rows_stand_in_the_order_of_the_slice() -> Result<()> {
    let world = World::shared().await?;
    let mut events: Vec<Event> = (0..500).map(|n| event(&n.to_string())).collect();
    events.reverse(); // Against the order of ids, which would come out right by chance.
    let mut client = world.pool.get().await?;
    let tx = client.transaction().await?;
    outbox::append(&tx, &events).await?;
    tx.commit().await?;
    let rows = world
        .column("SELECT id::text FROM outbox ORDER BY tableoid, ctid")
        .await?;
    let expected: Vec<String> = events.iter().map(|e| e.id.to_string()).collect();
    assert_eq!(rows, expected);
    Ok(())
}

#[tokio::test]
async fn an_append_rolls_back_with_its_transaction() -> Result<()> {
    let world = World::shared().await?;
    let mut client = world.pool.get().await?;
    let tx = client.transaction().await?;
    tx.execute("INSERT INTO applied (payload) VALUES ('state')", &[])
        .await?;
    outbox::append(&tx, &[event("lost")]).await?;
    tx.rollback().await?;
    assert_eq!(world.count("SELECT count(*) FROM outbox").await?, 0);
    assert_eq!(world.count("SELECT count(*) FROM applied").await?, 0);
    Ok(())
}

#[tokio::test]
async fn a_row_holds_what_the_relay_publishes() -> Result<()> {
    let world = World::shared().await?;
    let event = event("something");
    let mut client = world.pool.get().await?;
    let tx = client.transaction().await?;
    outbox::append(&tx, std::slice::from_ref(&event)).await?;
    outbox::append(&tx, &[]).await?;
    tx.commit().await?;
    let query = "SELECT id, aggregatetype, aggregateid, type, payload, headers FROM outbox";
    let row = client.query_one(query, &[]).await?;
    assert_eq!(row.get::<_, Uuid>(0), event.id);
    assert_eq!(row.get::<_, String>(1), "thing");
    assert_eq!(row.get::<_, String>(2), event.aggregate_id.to_string());
    assert_eq!(row.get::<_, String>(3), "test.v1.Happened");
    assert_eq!(row.get::<_, Vec<u8>>(4), b"\x0a\x09something");
    assert_eq!(row.get::<_, Value>(5), serde_json::json!({}));
    Ok(())
}

#[tokio::test]
async fn ids_of_one_process_ascend() {
    let events: Vec<Event> = (0..10_000).map(|_| event("")).collect();
    assert!(events.is_sorted_by(|a, b| a.id < b.id));
    assert_eq!(events[0].id.get_version_num(), 7);
}
