//! Days of requests that are made and forgotten.

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Result, anyhow};
use deadpool_postgres::Pool;
use harness::eventually;
use mailbox::requests::{self, Found, Key, Unusable};
use refinery::Target;
use tokio_postgres::Transaction;
use uuid::{ContextV7, Timestamp, Uuid};

use crate::world::{SOON, World, pool};

const DAY: u64 = 24 * 3600;
const WEEK: Duration = Duration::from_secs(7 * DAY);
const TWO_DAYS: Duration = Duration::from_secs(2 * DAY);

/// A database with the table as the migrations up to this one left it.
async fn world(version: Option<i32>) -> Result<World> {
    let world = World::shared().await?;
    migrate(&world, version).await?;
    Ok(world)
}

async fn migrate(world: &World, version: Option<i32>) -> Result<()> {
    let mut runner = requests::migrations();
    if let Some(version) = version {
        runner = runner.set_target(Target::Version(version));
    }
    runner.set_migration_table_name("requests_migrations");
    let mut client = world.pool.get().await?;
    runner.run_async(&mut **client).await?;
    Ok(())
}

/// A request whose id was drawn so many days ago.
fn drawn(days_ago: u64) -> Key {
    let now = SystemTime::now();
    let seconds = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs()
        - days_ago * DAY;
    let id = Uuid::new_v7(Timestamp::from_unix(ContextV7::new(), seconds, 0));
    Key::new(id, "test.v1.Do", &(), now, 400 * Duration::from_secs(DAY)).unwrap()
}

async fn keep(pool: &Pool, kept: Duration) -> Result<i32> {
    let kept = requests::maintain_once(pool, kept).await;
    kept.map_err(|error| anyhow!(error))
}

/// Executes the request, unless it is refused.
async fn execute(world: &World, request: &Key) -> Result<Option<Unusable>> {
    let mut client = world.pool.get().await?;
    let tx = client.transaction().await?;
    match requests::record(&tx, request, &()).await {
        Ok(first) => assert!(first, "a repeat"),
        Err(error) => return Unusable::of(&error).map(Some).ok_or_else(|| error.into()),
    }
    tx.commit().await?;
    Ok(None)
}

async fn find(world: &World, request: &Key) -> Result<Found> {
    let mut client = world.pool.get().await?;
    let tx = client.transaction().await?;
    Ok(requests::find(&tx, request).await?)
}

async fn count(world: &World, table: &str) -> Result<i64> {
    world.count(&format!("SELECT count(*) FROM {table}")).await
}

/// Records it, and does not commit.
async fn begin(tx: &Transaction<'_>, request: &Key) -> Result<()> {
    assert!(requests::record(tx, request, &()).await?);
    Ok(())
}

#[tokio::test]
async fn a_day_is_not_forgotten_while_somebody_records_into_it_and_nobody_waits_for_that()
-> Result<()> {
    let world = world(None).await?;
    let slow = drawn(5);
    let mut client = world.pool.get().await?;
    let tx = client.transaction().await?;
    begin(&tx, &slow).await?;

    let begun = Instant::now();
    let today = drawn(0);
    let (refused, executed) = tokio::join!(keep(&world.pool, TWO_DAYS), async {
        // In the queue behind who wants to drop the day.
        eventually("the drop to wait", SOON, async || {
            let waiting = "pg_locks WHERE NOT granted AND relation = 'requests'::regclass";
            Ok((count(&world, waiting).await? == 1).then_some(()))
        })
        .await?;
        execute(&world, &today).await
    });
    assert_eq!(executed?, None);
    let waited = begun.elapsed();
    assert!(waited < Duration::from_secs(2), "{waited:?}");
    let refused = refused.unwrap_err();
    let refused: Vec<_> = refused.chain().map(ToString::to_string).collect();
    assert!(refused.join(": ").contains("lock timeout"), "{refused:?}");

    tx.commit().await?;
    assert!(matches!(find(&world, &slow).await?, Found::Answer(_)));
    assert_eq!(keep(&world.pool, TWO_DAYS).await?, 5);
    assert_eq!(find(&world, &slow).await?, Found::Nothing);
    assert_eq!(execute(&world, &slow).await?, Some(Unusable::TooOld));
    Ok(())
}

#[tokio::test]
async fn forgetting_may_take_longer_than_the_pool_allows_a_statement() -> Result<()> {
    let world = world(None).await?;
    let client = world.pool.get().await?;
    let slow = "CREATE FUNCTION slow() RETURNS event_trigger LANGUAGE plpgsql
            AS 'BEGIN PERFORM pg_sleep(0.4); END';
        CREATE EVENT TRIGGER slow ON sql_drop WHEN TAG IN ('DROP TABLE') EXECUTE FUNCTION slow()";
    client.batch_execute(slow).await?;
    let url = world.servers.postgres.url(&world.name);
    let impatient = pool(&format!("{url}?options=-c%20statement_timeout%3D200"))?;
    let six_days = Duration::from_secs(6 * DAY);
    assert_eq!(keep(&impatient, six_days).await?, 1);
    // Nor does it stay so for who gets the connection next.
    let left = impatient.get().await?;
    let left = left.query_one("SHOW statement_timeout", &[]).await?;
    assert_eq!(left.get::<_, &str>(0), "200ms");
    Ok(())
}

/// They came when their days had no partition.
#[tokio::test]
async fn what_stands_in_the_default_partition_goes_in_its_time_too() -> Result<()> {
    let world = world(None).await?;
    let client = world.pool.get().await?;
    let lost = "SELECT string_agg(format('DROP TABLE %I;', relname), '') FROM pg_class
        WHERE relname ~ '^requests_[0-9]{8}$'";
    let lost: String = client.query_one(lost, &[]).await?.get(0);
    client.batch_execute(&lost).await?;
    let (old, young) = (drawn(5), drawn(1));
    for request in [&old, &young] {
        assert_eq!(execute(&world, request).await?, None);
    }
    assert_eq!(count(&world, "requests_default").await?, 2);

    keep(&world.pool, WEEK).await?;
    assert_eq!(count(&world, "requests_default").await?, 2);
    keep(&world.pool, TWO_DAYS).await?;
    assert_eq!(count(&world, "requests_default").await?, 1);
    assert!(matches!(find(&world, &young).await?, Found::Answer(_)));
    assert_eq!(execute(&world, &old).await?, Some(Unusable::TooOld));
    keep(&world.pool, WEEK).await?;
    assert_eq!(execute(&world, &old).await?, Some(Unusable::TooOld));
    Ok(())
}

/// Nobody wrote down what the version before had dropped.
#[tokio::test]
async fn an_upgrade_takes_no_day_for_new_that_was_dropped_before_it() -> Result<()> {
    let world = world(Some(2)).await?;
    let client = world.pool.get().await?;
    let (old, young) = (drawn(5), drawn(2));
    for request in [&old, &young] {
        assert_eq!(execute(&world, request).await?, None);
    }
    let before = format!("SELECT requests_keep({})", TWO_DAYS.as_secs());
    client.execute(&before, &[]).await?;
    assert_eq!(find(&world, &old).await?, Found::Nothing);

    migrate(&world, None).await?;
    keep(&world.pool, WEEK).await?;
    assert_eq!(execute(&world, &old).await?, Some(Unusable::TooOld));
    assert!(matches!(find(&world, &young).await?, Found::Answer(_)));
    assert_eq!(execute(&world, &drawn(2)).await?, None);
    Ok(())
}

/// As docs/configuration.md says.
#[tokio::test]
async fn what_was_forgotten_by_a_wrong_clock_can_be_taken_again_by_hand() -> Result<()> {
    let world = world(None).await?;
    let client = world.pool.get().await?;
    let ahead = "SELECT requests_maintain(current_date + 300, current_date + 310)";
    while client.query_one(ahead, &[]).await?.get::<_, i32>(0) > 0 {}
    keep(&world.pool, WEEK).await?;
    assert_eq!(execute(&world, &drawn(0)).await?, Some(Unusable::TooOld));

    let by_hand = "ALTER TABLE requests_default DROP CONSTRAINT requests_forgotten";
    client.batch_execute(by_hand).await?;
    assert_eq!(execute(&world, &drawn(0)).await?, None);
    keep(&world.pool, WEEK).await?;
    assert_eq!(execute(&world, &drawn(0)).await?, None);
    assert_eq!(execute(&world, &drawn(6)).await?, None);
    assert_eq!(execute(&world, &drawn(20)).await?, Some(Unusable::TooOld));
    Ok(())
}

/// The version before calls it once an hour, and one day passes in a day.
#[tokio::test]
async fn a_step_forgets_one_day_and_makes_what_is_missing_first() -> Result<()> {
    let world = world(None).await?;
    let client = world.pool.get().await?;
    let last = "SELECT max(relname)::text FROM pg_class WHERE relname ~ '^requests_[0-9]{8}$'";
    let last = world.column(last).await?.remove(0);
    client.batch_execute(&format!("DROP TABLE {last}")).await?;
    let days = "pg_inherits WHERE inhparent = 'requests'::regclass";
    let before = count(&world, days).await?;
    let step = format!("SELECT requests_keep({})", TWO_DAYS.as_secs());
    for expected in [before + 1, before, before - 1] {
        client.execute(&step, &[]).await?;
        assert_eq!(count(&world, days).await?, expected);
    }
    Ok(())
}

/// Two groups that share requests would deadlock otherwise.
#[tokio::test]
async fn answers_are_recorded_in_the_order_of_their_ids() -> Result<()> {
    let world = world(None).await?;
    let mut requests = [drawn(0), drawn(0), drawn(0)];
    requests.sort_by_key(Key::id);
    let [least, middle, greatest] = &requests;
    let mut client = world.pool.get().await?;
    let other = client.transaction().await?;
    begin(&other, middle).await?;

    let mut client = world.pool.get().await?;
    let tx = client.transaction().await?;
    let all = [greatest, middle, least].map(|key| (key, Vec::new()));
    let look = async {
        eventually("the group to wait", SOON, async || {
            let waiting = "pg_locks WHERE NOT granted AND locktype = 'transactionid'
                AND database IS NULL AND pid IN (SELECT pid FROM pg_stat_activity
                    WHERE datname = current_database())";
            Ok((count(&world, waiting).await? == 1).then_some(()))
        })
        .await?;
        let mut client = world.pool.get().await?;
        let mut has = async |request| {
            let tx = client.transaction().await?;
            tx.batch_execute("SET LOCAL lock_timeout = '100ms'").await?;
            anyhow::Ok(requests::record(&tx, request, &()).await.is_err())
        };
        let has = (has(least).await?, has(greatest).await?);
        other.rollback().await?;
        anyhow::Ok(has)
    };
    let record = async { Ok(requests::record_all(&tx, &all).await?) };
    let (recorded, has) = tokio::try_join!(record, look)?;
    assert_eq!(has, (true, false), "the least, and not the greatest");
    assert_eq!(recorded.len(), 3);
    Ok(())
}
