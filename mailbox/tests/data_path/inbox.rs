//! Claims: one for each event, and none without its effects (I4, I6).

use anyhow::Result;
use bytes::Bytes;
use mailbox::inbox::{Delivery, claim};
use uuid::Uuid;

use crate::world::World;

fn delivery(id: Uuid) -> Delivery {
    Delivery::new(id, "test.v1.Happened", "a thing", Bytes::new())
}

fn ids(count: usize) -> Vec<Uuid> {
    (0..count).map(|_| Uuid::now_v7()).collect()
}

/// Claims in a transaction of its own, and commits or rolls back.
async fn claimed(world: &World, consumer: &str, ids: &[Uuid], commit: bool) -> Result<Vec<Uuid>> {
    let mut client = world.pool.get().await?;
    let tx = client.transaction().await?;
    let deliveries = ids.iter().copied().map(delivery).collect();
    let claimed = claim(&tx, consumer, deliveries).await?;
    if commit {
        tx.commit().await?;
    } else {
        tx.rollback().await?;
    }
    Ok(claimed.iter().map(|event| event.id).collect())
}

#[tokio::test]
async fn an_event_is_claimed_once_by_each_consumer() -> Result<()> {
    let world = World::shared().await?;
    let events = ids(3);
    assert_eq!(claimed(&world, "a", &events[..2], true).await?, events[..2]);
    assert_eq!(claimed(&world, "a", &events, true).await?, events[2..]);
    assert!(claimed(&world, "a", &events, true).await?.is_empty());
    assert_eq!(claimed(&world, "b", &events, true).await?, events);
    assert!(claimed(&world, "a", &[], true).await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_claim_that_was_rolled_back_is_free_again() -> Result<()> {
    let world = World::shared().await?;
    let events = ids(2);
    assert_eq!(claimed(&world, "a", &events, false).await?, events);
    assert_eq!(claimed(&world, "a", &events, true).await?, events);
    Ok(())
}

#[tokio::test]
async fn repeats_within_a_batch_are_claimed_once_in_order_of_delivery() -> Result<()> {
    let world = World::shared().await?;
    let [a, b, c] = <[Uuid; 3]>::try_from(ids(3)).unwrap();
    let batch = [c, a, c, b, a];
    assert_eq!(claimed(&world, "x", &batch, true).await?, [c, a, b]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_in_opposite_orders_do_not_deadlock() -> Result<()> {
    let world = World::shared().await?;
    for _ in 0..10 {
        let forth = ids(2_000);
        let back: Vec<Uuid> = forth.iter().rev().copied().collect();
        let (one, other) = tokio::try_join!(
            claimed(&world, "x", &forth, true),
            claimed(&world, "x", &back, true)
        )?;
        assert_eq!(one.len() + other.len(), forth.len());
    }
    Ok(())
}
