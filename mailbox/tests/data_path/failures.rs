//! Events that cannot be applied, now or ever: none is dropped (I10).

use anyhow::{Result, ensure};
use async_nats::HeaderMap;
use async_nats::jetstream::message::StreamMessage;
use harness::eventually;
use mailbox::dead_letter;
use mailbox::envelope::{AGGREGATE_ID, EVENT_ID, EVENT_TYPE};
use uuid::Uuid;

use crate::world::{ACK_WAIT, SOON, Script, World, header};

/// What a stream leaves a dead letter, as docs/configuration.md says (`CDC_STREAM_MAX_MESSAGE_BYTES`).
const ROOM: usize = 16 * 1024;

/// Publishes, consumes, and waits until all is settled; returns the events' ids and the dead letters.
async fn after(
    world: &World,
    script: &Script,
    payloads: &[&str],
) -> Result<(Vec<Uuid>, Vec<StreamMessage>)> {
    world.create_stream().await?;
    let ids = world.publish(payloads.iter().copied()).await?;
    let replica = world.consume(script).await?;
    eventually("the durable consumer", SOON, async || {
        Ok(world.durable().await.ok())
    })
    .await?;
    world.settled().await?;
    replica.stop().await?;
    Ok((ids, world.dead_letters().await?))
}

#[tokio::test]
async fn a_poison_event_is_dead_lettered_and_the_others_of_its_batch_are_applied() -> Result<()> {
    let world = World::shared().await?;
    let payloads = ["1", "2", "refuse this", "4", "5"];
    let (ids, letters) = after(&world, &Script::default(), &payloads).await?;
    assert_eq!(world.applied().await?, ["1", "2", "4", "5"]);
    let claims = format!("SELECT count(*) FROM inbox WHERE event_id = '{}'", ids[2]);
    assert_eq!(
        world.count(&claims).await?,
        0,
        "a claim without its effects"
    );

    let [letter] = letters.as_slice() else {
        panic!("{} dead letters", letters.len())
    };
    assert_eq!(&letter.payload[..], b"refuse this");
    for (name, value) in [
        (dead_letter::REASON, "refused by the handler"),
        (dead_letter::DURABLE, &world.name),
        (dead_letter::ORIGIN_STREAM, &world.name),
        (dead_letter::ORIGIN_SEQUENCE, "3"),
        (
            dead_letter::ORIGIN_SUBJECT,
            &format!("{}.test.v1.Happened", world.name),
        ),
        (dead_letter::ATTEMPTS, "1"),
        ("Original-Nats-Msg-Id", &ids[2].to_string()),
        ("Original-Event-Type", "test.v1.Happened"),
        ("Original-Aggregate-Id", "a thing"),
    ] {
        assert_eq!(header(letter, name), value, "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn data_that_postgres_refuses_is_dead_lettered_with_the_constraint() -> Result<()> {
    let world = World::shared().await?;
    let payloads = ["cost 1", "cost -1", "once a", "once a", "cost 2"];
    let (_, letters) = after(&world, &Script::default(), &payloads).await?;
    assert_eq!(world.applied().await?, ["cost 1", "once a", "cost 2"]);
    let reasons: Vec<&str> = letters
        .iter()
        .map(|l| header(l, dead_letter::REASON))
        .collect();
    assert_eq!(reasons.len(), 2, "{reasons:?}");
    assert!(reasons[0].contains("23514") && reasons[0].contains("cost_not_negative"));
    assert!(
        reasons[1].contains("23505") && reasons[1].contains("only_once"),
        "refused at the commit"
    );
    Ok(())
}

#[tokio::test]
async fn a_transient_failure_is_retried_until_it_succeeds_and_never_dead_lettered() -> Result<()> {
    let world = World::shared().await?;
    let script = Script::default();
    // More often than a panic would be forgiven.
    let (ids, letters) = after(&world, &script, &["1", "fail 6", "3"]).await?;
    assert_eq!(
        world.applied().await?,
        ["1", "3", "fail 6"],
        "it held up others"
    );
    assert_eq!(script.tries(ids[1]), 7);
    assert!(letters.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_handler_that_never_returns_is_given_up_and_tried_again() -> Result<()> {
    let world = World::shared().await?;
    let (_, letters) = after(&world, &Script::default(), &["1", "hang 2", "3"]).await?;
    let mut applied = world.applied().await?;
    applied.sort_unstable();
    assert_eq!(applied, ["1", "3", "hang 2"]);
    assert!(letters.is_empty());
    Ok(())
}

/// The server notices a closed connection only when it next writes to it or reads from it.
#[tokio::test]
async fn an_attempt_that_was_given_up_does_not_go_on_waiting_in_postgres() -> Result<()> {
    let world = World::shared().await?;
    world.create_stream().await?;
    let ids = world.publish(["1"]).await?;
    let mut other = world.pool.get().await?;
    let claim = other.transaction().await?;
    let insert = "INSERT INTO inbox (event_id, consumer) VALUES ($1, $2)";
    claim.execute(insert, &[&ids[0], &world.name]).await?;
    let replica = world.consume(&Script::default()).await?;
    eventually("a second attempt", SOON, async || {
        Ok((world.durable().await?.delivered.consumer_sequence >= 2).then_some(()))
    })
    .await?;
    replica.stop().await?;
    eventually(
        "the attempts to end in Postgres",
        2 * ACK_WAIT,
        async || {
            let waiting = "SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND wait_event_type = 'Lock'";
            let waiting = world.count(waiting).await?;
            ensure!(waiting == 0, "{waiting} wait for the claim");
            Ok(Some(()))
        },
    )
    .await?;
    claim.rollback().await?;
    let replica = world.consume(&Script::default()).await?;
    world.settled().await?;
    assert_eq!(world.applied().await?, ["1"]);
    replica.stop().await
}

#[tokio::test]
async fn a_malformed_envelope_is_dead_lettered() -> Result<()> {
    let world = World::shared().await?;
    world.create_stream().await?;
    let mut no_type = HeaderMap::new();
    no_type.insert(EVENT_ID, Uuid::now_v7().to_string());
    let mut no_uuid = HeaderMap::new();
    no_uuid.insert(EVENT_ID, "17");
    no_uuid.insert(EVENT_TYPE, "test.v1.Happened");
    for headers in [HeaderMap::new(), no_type, no_uuid] {
        world
            .publish_raw(headers, "malformed".into())
            .await?
            .await?;
    }
    world.publish(["fine"]).await?;
    let replica = world.consume(&Script::default()).await?;
    eventually("the good one", SOON, async || {
        Ok((world.applied().await? == ["fine"]).then_some(()))
    })
    .await?;
    world.settled().await?;
    let letters = world.dead_letters().await?;
    let reasons: Vec<&str> = letters
        .iter()
        .map(|l| header(l, dead_letter::REASON))
        .collect();
    let expected = [
        "malformed envelope: the header Nats-Msg-Id is missing",
        "malformed envelope: the header Event-Type is missing or empty",
        "malformed envelope: the header Nats-Msg-Id is not a UUID: `17`",
    ];
    assert_eq!(reasons, expected);
    assert!(letters.iter().all(|l| &l.payload[..] == b"malformed"));
    replica.stop().await
}

#[tokio::test]
async fn a_panic_is_forgiven_a_few_times_and_then_dead_lettered() -> Result<()> {
    let world = World::shared().await?;
    let (ids, letters) = after(&world, &Script::default(), &["panic 2", "panic", "3"]).await?;
    assert_eq!(world.applied().await?, ["3", "panic 2"]);
    let [letter] = letters.as_slice() else {
        panic!("{} dead letters", letters.len())
    };
    assert_eq!(header(letter, "Original-Nats-Msg-Id"), ids[1].to_string());
    assert_eq!(header(letter, dead_letter::ATTEMPTS), "5");
    let reason = "the handler panicked: at the sight of a thing";
    assert_eq!(header(letter, dead_letter::REASON), reason);
    Ok(())
}

/// Deliveries say nothing about it: retries, stops and deaths of replicas make them too.
#[tokio::test]
async fn a_first_panic_is_forgiven_after_any_number_of_deliveries() -> Result<()> {
    let world = World::shared().await?;
    let (_, letters) = after(&world, &Script::default(), &["stumble 4"]).await?;
    assert_eq!(world.applied().await?, ["stumble 4"]);
    assert!(letters.is_empty());
    Ok(())
}

/// The client takes Postgres's answer to COMMIT for success even when it is a rollback.
#[tokio::test]
async fn an_sql_error_that_the_handler_swallowed_is_not_acknowledged() -> Result<()> {
    let world = World::shared().await?;
    let (_, letters) = after(&world, &Script::default(), &["1", "swallow", "3"]).await?;
    assert_eq!(world.applied().await?, ["1", "3"]);
    assert_eq!(letters.len(), 1, "the event is gone");
    assert!(header(&letters[0], dead_letter::REASON).contains("a statement had failed"));
    Ok(())
}

#[tokio::test]
async fn a_repeated_dead_letter_is_one() -> Result<()> {
    let world = World::shared().await?;
    let (_, letters) = after(&world, &Script::default(), &["refuse"]).await?;
    assert_eq!(letters.len(), 1);
    // As if the consumer had crashed before the termination: it is delivered and refused again.
    world.delete_durable().await?;
    let script = Script::default();
    let replica = world.consume(&script).await?;
    eventually("the durable consumer", SOON, async || {
        Ok(world.durable().await.ok())
    })
    .await?;
    world.settled().await?;
    replica.stop().await?;
    assert_eq!(world.dead_letters().await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_poison_event_too_large_for_a_dead_letter_leaves_a_pointer() -> Result<()> {
    let world = World::shared().await?;
    let large = format!("refuse {}", "x".repeat(world.nats.max_payload() - 300));
    let (_, letters) = after(&world, &Script::default(), &[&large]).await?;
    let [letter] = letters.as_slice() else {
        panic!("{} dead letters", letters.len())
    };
    assert!(letter.payload.is_empty());
    assert_eq!(
        header(letter, dead_letter::PAYLOAD_OMITTED),
        large.len().to_string()
    );
    assert_eq!(header(letter, dead_letter::ORIGIN_SEQUENCE), "1");
    Ok(())
}

#[tokio::test]
async fn a_poison_event_that_leaves_16_kib_becomes_a_whole_dead_letter() -> Result<()> {
    let world = World::shared().await?;
    world.create_stream().await?;
    let mut headers = HeaderMap::new();
    let event_id = Uuid::now_v7().to_string();
    headers.insert(EVENT_ID, event_id.as_str());
    headers.insert(EVENT_TYPE, "test.v1.Happened");
    headers.insert(AGGREGATE_ID, "a thing");
    // Each is longer by a prefix in the letter.
    for number in 0..500 {
        headers.insert(format!("X-{number:04}").as_str(), "as a row may have it");
    }
    // `Name: value` in lines, below `NATS/1.0` and above an empty one.
    let line = |name: &str, value: &str| name.len() + value.len() + 4;
    let lines = headers.iter().flat_map(|(name, values)| {
        let name: &str = name.as_ref();
        values.iter().map(move |value| line(name, value.as_str()))
    });
    let room = world.nats.max_payload() - ROOM - 12 - lines.sum::<usize>();
    let large = format!("refuse {}", "x".repeat(room - "refuse ".len()));
    world.publish_raw(headers, large.clone()).await?.await?;
    world.consume_all().await?;
    let letters = world.dead_letters().await?;
    let [letter] = letters.as_slice() else {
        panic!("{} dead letters", letters.len())
    };
    assert_eq!(letter.payload.len(), large.len());
    assert_eq!(header(letter, "Original-X-0499"), "as a row may have it");
    Ok(())
}

#[tokio::test]
async fn a_retry_is_counted() -> Result<()> {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let rendered = recorder.handle();
    // The consumer runs on this thread.
    let _installed = metrics::set_default_local_recorder(&recorder);
    let world = World::shared().await?;
    after(&world, &Script::default(), &["fail 3"]).await?;
    let rendered = rendered.render();
    assert!(
        rendered.contains("\nmailbox_events_retried_total 3\n"),
        "{rendered}"
    );
    Ok(())
}
