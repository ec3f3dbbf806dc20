//! Days of the inbox that are dropped, and events that come for them afterwards.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use async_nats::HeaderMap;
use async_nats::jetstream::context::PublishAckFuture;
use async_nats::jetstream::stream;
use harness::eventually;
use mailbox::consumer::Config;
use mailbox::dead_letter::{Letters, ORIGINAL_PREFIX, SUBJECT_PREFIX};
use mailbox::envelope::{EVENT_ID, EVENT_TYPE};
use mailbox::retention::{self, TooShort};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::{ContextV7, Timestamp, Uuid};

use crate::world::{SOON, Script, World, header, subscriber_beside};

const DAY: u64 = 24 * 3600;
const TEN_DAYS: Duration = Duration::from_secs(10 * DAY);

/// An id that was drawn so many days ago, by the database's clock.
async fn id_of(world: &World, days_ago: u64) -> Result<Uuid> {
    let now = world
        .count("SELECT extract(epoch FROM now())::bigint")
        .await?;
    let seconds = u64::try_from(now)? - days_ago * DAY;
    let context = ContextV7::new();
    Ok(Uuid::new_v7(Timestamp::from_unix(&context, seconds, 0)))
}

/// Partitions for the days before this one, and a claim in each of `claims`: drawn and claimed so many
/// days ago.
async fn past(world: &World, claims: &[(u64, u64)]) -> Result<()> {
    let client = world.pool.get().await?;
    let days =
        "SELECT mailbox_ensure_partitions('inbox', (now() AT TIME ZONE 'UTC')::date - 20, 20)";
    client.execute(days, &[]).await?;
    for (drawn, claimed) in claims {
        let id = id_of(world, *drawn).await?;
        let claim =
            format!("INSERT INTO inbox VALUES ($1, 'x', now() - interval '{claimed} days')");
        client.execute(&claim, &[&id]).await?;
    }
    Ok(())
}

async fn days(world: &World) -> Result<i64> {
    let days = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'inbox'::regclass
        AND inhrelid::regclass::text <> 'inbox_default'";
    world.count(days).await
}

/// Of so many days ago the name of the partition, where there is one, the oldest first.
async fn days_since(world: &World, days_ago: u64) -> Result<Vec<String>> {
    let days = format!(
        "SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'inbox'::regclass AND c.relname ~ '[0-9]$' AND c.relname
            >= to_char((now() AT TIME ZONE 'UTC')::date - {days_ago}, '\"inbox_\"YYYYMMDD')
        ORDER BY 1"
    );
    world.column(&days).await
}

/// Keeps an event for four days, so that the inbox may forget after ten.
async fn create_limited_stream(world: &World) -> Result<()> {
    let config = stream::Config {
        name: world.name.clone(),
        subjects: vec![format!("{}.>", world.name)],
        max_age: Duration::from_secs(4 * DAY),
        ..stream::Config::default()
    };
    world.jetstream.create_stream(config).await?;
    Ok(())
}

/// An event that was drawn so many days ago, and becomes a dead letter.
async fn bury(world: &World, days_ago: u64) -> Result<()> {
    let mut headers = HeaderMap::new();
    headers.insert(EVENT_ID, id_of(world, days_ago).await?.to_string());
    headers.insert(EVENT_TYPE, "test.v1.Happened");
    world.publish_raw(headers, "refuse".into()).await?.await?;
    let replica = world.consume(&Script::default()).await?;
    eventually("the durable consumer", SOON, async || {
        Ok(world.durable().await.ok())
    })
    .await?;
    world.settled().await?;
    replica.stop().await
}

/// A letter as `bury` leaves it, of any durable consumer.
async fn letter(world: &World, durable: &str, id: Uuid) -> Result<PublishAckFuture> {
    let mut headers = HeaderMap::new();
    headers.insert(format!("{ORIGINAL_PREFIX}{EVENT_ID}"), id.to_string());
    let subject = format!("{SUBJECT_PREFIX}{durable}");
    let sent = world
        .jetstream
        .publish_with_headers(subject, headers, "".into());
    Ok(sent.await?)
}

/// As a service runs it. It ends with the round in which it is told to.
fn maintained(
    world: &World,
    consumers: Vec<Config>,
) -> (JoinHandle<Result<(), TooShort>>, CancellationToken) {
    let token = CancellationToken::new();
    let (pool, nats) = (world.pool.clone(), world.nats.clone());
    let run = retention::maintain(pool, nats, Some(TEN_DAYS), consumers, token.clone());
    (tokio::spawn(run), token)
}

async fn retire(world: &World, oldest: Option<f64>) -> Result<u32> {
    let retired = retention::retire(&world.pool, TEN_DAYS, oldest).await;
    retired.map_err(|error| anyhow!(error))
}

#[tokio::test]
async fn days_older_than_what_is_kept_are_dropped() -> Result<()> {
    let world = World::shared().await?;
    past(&world, &[(15, 15), (5, 5)]).await?;
    let before = days(&world).await?;
    assert_eq!(retire(&world, None).await?, 10);
    assert_eq!(days(&world).await?, before - 10);
    assert_eq!(world.count("SELECT count(*) FROM inbox").await?, 1);
    assert_eq!(retire(&world, None).await?, 0);
    Ok(())
}

#[tokio::test]
async fn a_day_with_a_claim_that_is_young_stays_and_so_do_those_after_it() -> Result<()> {
    let world = World::shared().await?;
    // Its consumer was away for a week.
    past(&world, &[(16, 9)]).await?;
    assert_eq!(retire(&world, None).await?, 4);
    assert_eq!(world.count("SELECT count(*) FROM inbox").await?, 1);
    Ok(())
}

#[tokio::test]
async fn the_days_from_that_of_the_oldest_dead_letter_on_stay() -> Result<()> {
    let world = World::shared().await?;
    past(&world, &[]).await?;
    let now = world
        .count("SELECT extract(epoch FROM now())::bigint")
        .await?;
    let letter = now as f64 - (18 * DAY) as f64;
    assert_eq!(retire(&world, Some(letter)).await?, 2);
    Ok(())
}

/// All of it: from the letter in its stream to the tables that are left.
#[tokio::test]
async fn an_hourly_round_spares_what_a_dead_letter_of_any_consumer_may_need() -> Result<()> {
    let world = World::shared().await?;
    create_limited_stream(&world).await?;
    past(&world, &[]).await?;
    bury(&world, 18).await?;
    let mut other = world.config();
    other.durable = format!("{}-other", world.name);
    letter(&world, &other.durable, id_of(&world, 15).await?)
        .await?
        .await?;

    let round = async |left: u64| {
        let expected = days_since(&world, left).await?;
        let consumers = vec![world.config(), other.clone()];
        let (maintained, token) = maintained(&world, consumers);
        let any = expected.len();
        eventually("days to go", SOON, async || {
            Ok((usize::try_from(days(&world).await?)? <= any).then_some(()))
        })
        .await?;
        token.cancel();
        maintained.await??;
        assert_eq!(days_since(&world, 100).await?, expected);
        anyhow::Ok(())
    };
    let discard = async |durable: &str| {
        let letters = Letters::new(world.nats.clone(), durable);
        let of_old = letters.page(0, 2).await?;
        assert_eq!(of_old.len(), 1, "{of_old:?}");
        letters.discard(of_old[0].sequence, "seen to").await?;
        anyhow::Ok(())
    };
    round(18).await?;
    discard(&world.name).await?;
    round(15).await?;
    discard(&other.durable).await?;
    round(10).await
}

/// Nobody has looked at them all, so that the oldest is not known.
#[tokio::test]
async fn with_more_dead_letters_than_are_looked_at_nothing_is_dropped() -> Result<()> {
    let _company = subscriber_beside();
    let (log, _subscriber) = log();
    let world = World::alone().await?;
    create_limited_stream(&world).await?;
    past(&world, &[]).await?;
    // Its stream is there then.
    bury(&world, 0).await?;
    let id = id_of(&world, 0).await?;
    for _ in 0..20 {
        let mut stored = Vec::new();
        for _ in 0..500 {
            stored.push(letter(&world, &world.name, id).await?);
        }
        for one in stored {
            one.await?;
        }
    }
    let before = days(&world).await?;
    let (maintained, token) = maintained(&world, vec![world.config()]);
    eventually("a round", SOON, async || {
        let log = String::from_utf8(log.lock().unwrap().clone())?;
        Ok(log.contains("more than 10000 dead letters").then_some(()))
    })
    .await?;
    assert_eq!(days(&world).await?, before);
    // One less is not too many.
    let letters = Letters::new(world.nats.clone(), &world.name);
    let first = letters.page(0, 1).await?.remove(0);
    letters.discard(first.sequence, "seen to").await?;
    eventually("days to go", SOON, async || {
        Ok((days(&world).await? == before - 10).then_some(()))
    })
    .await?;
    token.cancel();
    Ok(maintained.await??)
}

/// What is logged on this thread.
fn log() -> (Arc<Mutex<Vec<u8>>>, tracing::subscriber::DefaultGuard) {
    let log = Arc::new(Mutex::new(Vec::new()));
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_writer(move || Log(writer.clone()))
        .finish();
    (log, tracing::subscriber::set_default(subscriber))
}

struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// It could have been applied before: not applied rather than applied twice (I6, I10).
#[tokio::test]
async fn an_event_of_a_day_that_was_dropped_is_a_dead_letter() -> Result<()> {
    let world = World::shared().await?;
    world.create_stream().await?;
    past(&world, &[]).await?;
    retire(&world, None).await?;
    for days_ago in [15, 30, 5] {
        let mut headers = HeaderMap::new();
        headers.insert(EVENT_ID, id_of(&world, days_ago).await?.to_string());
        headers.insert(EVENT_TYPE, "test.v1.Happened");
        let payload = format!("{days_ago} days");
        world.publish_raw(headers, payload).await?.await?;
    }
    world.consume_all().await?;
    assert_eq!(world.applied().await?, ["5 days"]);
    let letters = world.dead_letters().await?;
    assert_eq!(letters.len(), 2);
    let reason = header(&letters[0], mailbox::dead_letter::REASON);
    assert!(reason.contains("forgotten the day"), "{reason}");
    Ok(())
}

#[tokio::test]
async fn a_day_is_not_dropped_while_somebody_claims_into_it_and_nobody_waits_for_that() -> Result<()>
{
    let world = World::shared().await?;
    past(&world, &[]).await?;
    let id = id_of(&world, 20).await?;
    let mut client = world.pool.get().await?;
    let tx = client.transaction().await?;
    tx.execute("INSERT INTO inbox VALUES ($1, 'x')", &[&id])
        .await?;
    let begun = Instant::now();
    let refused = retire(&world, None).await.unwrap_err();
    // So long at most are claims queued up behind it.
    assert!(begun.elapsed() < Duration::from_secs(2));
    let refused = refused.chain().map(ToString::to_string);
    let refused: Vec<String> = refused.collect();
    assert!(refused.join(": ").contains("lock timeout"), "{refused:?}");
    tx.commit().await?;
    assert_eq!(retire(&world, None).await?, 0, "a young claim");
    Ok(())
}

#[tokio::test]
async fn a_start_that_keeps_too_little_is_refused_with_both_figures() -> Result<()> {
    let world = World::shared().await?;
    let limited = |max_age| stream::Config {
        name: world.name.clone(),
        subjects: vec![format!("{}.>", world.name)],
        max_age,
        ..stream::Config::default()
    };
    let start = async |kept| {
        let token = CancellationToken::new();
        let consumers = vec![world.config()];
        let nats = world.nats.clone();
        let run = retention::maintain(
            world.pool.clone(),
            nats,
            Some(kept),
            consumers,
            token.clone(),
        );
        // One that is not refused goes on.
        tokio::time::timeout(Duration::from_secs(3), run).await
    };
    world
        .jetstream
        .create_stream(limited(Duration::ZERO))
        .await?;
    let refused = start(TEN_DAYS).await?.unwrap_err();
    assert!(matches!(refused, TooShort::Unlimited { .. }), "{refused}");
    let week = Duration::from_secs(7 * DAY);
    world.jetstream.update_stream(limited(week)).await?;
    let refused = start(TEN_DAYS).await?.unwrap_err().to_string();
    // Twice a week, and twice 4 s.
    assert!(
        refused.contains("864000 s") && refused.contains("1209608 s"),
        "{refused}"
    );
    assert!(
        start(Duration::from_secs(15 * DAY)).await.is_err(),
        "refused"
    );
    Ok(())
}
