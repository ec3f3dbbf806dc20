//! Daily partitions.

use anyhow::Result;
use mailbox::partitions;
use tokio_util::sync::CancellationToken;
use uuid::{ContextV7, Timestamp, Uuid};

use crate::world::{SOON, World, pool};

const DAY: u64 = 24 * 3600;

/// An id of the database's clock, some days before (−) or after now.
async fn id_of(world: &World, days: i64) -> Result<Uuid> {
    let now = world
        .count("SELECT extract(epoch FROM now())::bigint")
        .await?;
    let seconds = u64::try_from(now + days * DAY as i64)?;
    let context = ContextV7::new();
    Ok(Uuid::new_v7(Timestamp::from_unix(&context, seconds, 0)))
}

/// Inserts a claim with this id and returns the partition that it lands in.
async fn partition_of(world: &World, id: Uuid) -> Result<String> {
    let client = world.pool.get().await?;
    let insert = "INSERT INTO inbox (event_id, consumer) VALUES ($1, 'x') RETURNING tableoid::regclass::text";
    Ok(client.query_one(insert, &[&id]).await?.get(0))
}

async fn daily(world: &World, days: i64) -> Result<String> {
    let query =
        format!("SELECT to_char((now() AT TIME ZONE 'UTC')::date + {days}, '\"inbox_\"YYYYMMDD')");
    Ok(world.column(&query).await?.remove(0))
}

#[tokio::test]
async fn an_id_of_today_lands_in_its_day_and_one_of_last_year_in_the_default() -> Result<()> {
    let world = World::shared().await?;
    for days in [0, 1, 6] {
        let id = id_of(&world, days).await?;
        assert_eq!(partition_of(&world, id).await?, daily(&world, days).await?);
    }
    for days in [-365, 7, 365] {
        let id = id_of(&world, days).await?;
        assert_eq!(partition_of(&world, id).await?, "inbox_default");
    }
    // Attached by its own primary key, not given another one.
    let today = daily(&world, 0).await?;
    let indexes = format!("SELECT count(*) FROM pg_index WHERE indrelid = '{today}'::regclass");
    assert_eq!(world.count(&indexes).await?, 1);
    Ok(())
}

#[tokio::test]
async fn the_floor_of_a_time_is_below_its_ids_and_above_the_ids_before() -> Result<()> {
    let world = World::shared().await?;
    let client = world.pool.get().await?;
    let query = "SELECT mailbox_uuidv7_floor(to_timestamp($1::bigint / 1000.0))";
    for milliseconds in [0_i64, 1, 999, 1_700_000_000_000, 1_790_000_000_123] {
        let floor: Uuid = client.query_one(query, &[&milliseconds]).await?.get(0);
        let at = |ms: i64, random: u8| {
            uuid::Builder::from_unix_timestamp_millis(ms as u64, &[random; 10]).into_uuid()
        };
        assert!(floor <= at(milliseconds, 0), "{milliseconds}");
        assert!(
            milliseconds == 0 || at(milliseconds - 1, 0xff) < floor,
            "{milliseconds}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_calls_do_not_collide() -> Result<()> {
    let world = World::shared().await?;
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let pool = world.pool.clone();
        calls.spawn(async move {
            let client = pool.get().await?;
            anyhow::Ok(partitions::ensure(&client, 30).await?)
        });
    }
    let mut created = 0;
    while let Some(call) = calls.join_next().await {
        created += call??;
    }
    assert_eq!(created, 2 * (30 - 7), "the migrations made seven of each");
    let id = id_of(&world, 29).await?;
    assert_eq!(partition_of(&world, id).await?, daily(&world, 29).await?);
    Ok(())
}

#[tokio::test]
async fn a_day_with_rows_in_the_default_partition_stays_there() -> Result<()> {
    let world = World::shared().await?;
    let id = id_of(&world, 8).await?;
    assert_eq!(partition_of(&world, id).await?, "inbox_default");
    let client = world.pool.get().await?;
    assert_eq!(partitions::ensure(&client, 10).await?, 2 * 3 - 1);
    let (same_day, next_day) = (id_of(&world, 8).await?, id_of(&world, 9).await?);
    assert_eq!(partition_of(&world, same_day).await?, "inbox_default");
    assert_eq!(
        partition_of(&world, next_day).await?,
        daily(&world, 9).await?
    );
    Ok(())
}

/// Attaching a partition reads the whole default partition, however large that has become.
#[tokio::test]
async fn maintenance_may_take_longer_than_the_pool_allows_a_statement() -> Result<()> {
    let world = World::shared().await?;
    let today = daily(&world, 0).await?;
    let mut client = world.pool.get().await?;
    client.batch_execute(&format!("DROP TABLE {today}")).await?;
    // Makes it slow.
    let lock =
        "SELECT pg_advisory_xact_lock(hashtextextended('mailbox_ensure_partitions', 0))::text";
    let other = client.transaction().await?;
    other.execute(lock, &[]).await?;
    let url = world.servers.postgres.url(&world.name);
    let impatient = pool(&format!("{url}?options=-c%20statement_timeout%3D200"))?;
    let token = CancellationToken::new();
    let task = tokio::spawn(partitions::maintain(impatient, token.clone()));
    harness::eventually("maintenance to last", SOON, async || {
        let query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
            AND wait_event_type = 'Lock' AND now() - query_start > '400ms'";
        Ok((world.count(query).await? == 1).then_some(()))
    })
    .await?;
    other.rollback().await?;
    harness::eventually("today's partition", SOON, async || {
        let query = format!("SELECT count(to_regclass('{today}'))");
        Ok((world.count(&query).await? == 1).then_some(()))
    })
    .await?;
    token.cancel();
    tokio::time::timeout(SOON, task).await??;
    Ok(())
}

#[tokio::test]
async fn maintenance_creates_what_is_missing_and_stops_when_told() -> Result<()> {
    let world = World::shared().await?;
    let today = daily(&world, 0).await?;
    let client = world.pool.get().await?;
    client.batch_execute(&format!("DROP TABLE {today}")).await?;
    let token = CancellationToken::new();
    let task = tokio::spawn(partitions::maintain(world.pool.clone(), token.clone()));
    harness::eventually("today's partition", SOON, async || {
        let query = format!("SELECT count(to_regclass('{today}'))");
        Ok((world.count(&query).await? == 1).then_some(()))
    })
    .await?;
    token.cancel();
    tokio::time::timeout(SOON, task).await??;
    Ok(())
}
