//! Dead letters that people look at, apply once more, and discard.

use std::time::Duration;

use anyhow::{Result, ensure};
use async_nats::jetstream::message::StreamMessage;
use mailbox::dead_letter::{self, Letters, Outcome, Redrive};
use tokio::task::JoinSet;

use crate::world::{Script, World, header};

/// Lets the database refuse the event; [`mend`] makes it fit.
const REFUSED: &str = "cost -1";

async fn mend(world: &World) -> Result<()> {
    let client = world.pool.get().await?;
    let mend = "ALTER TABLE applied DROP CONSTRAINT cost_not_negative";
    Ok(client.batch_execute(mend).await?)
}

/// The consumer has made dead letters of `payloads`; returns their sequences.
async fn dead(world: &World, payloads: &[&str]) -> Result<Vec<u64>> {
    world.create_stream().await?;
    world.publish(payloads.iter().copied()).await?;
    world.consume_all().await?;
    let letters = world.dead_letters().await?;
    ensure!(letters.len() == payloads.len(), "{} letters", letters.len());
    Ok(letters.iter().map(|letter| letter.sequence).collect())
}

fn letters(world: &World) -> Letters {
    Letters::new(world.nats.clone(), &world.name)
}

fn redrive(world: &World) -> Redrive<Script> {
    let within = Duration::from_secs(10);
    Redrive::new(
        letters(world),
        world.pool.clone(),
        Script::default(),
        within,
    )
}

#[tokio::test]
async fn a_letter_that_fails_again_stays_and_one_that_is_applied_goes() -> Result<()> {
    let world = World::shared().await?;
    let letter = dead(&world, &[REFUSED]).await?[0];
    let Outcome::Failed(why) = redrive(&world).redrive(letter).await? else {
        panic!("it was applied")
    };
    assert!(why.contains("cost_not_negative"), "{why}");
    assert_eq!(world.dead_letters().await?.len(), 1, "it is lost");

    mend(&world).await?;
    let outcome = redrive(&world).redrive(letter).await?;
    assert_eq!(outcome, Outcome::Applied(None));
    assert_eq!(world.applied().await?, [REFUSED]);
    assert!(world.dead_letters().await?.is_empty());
    let again = redrive(&world).redrive(letter).await?;
    assert_eq!(again, Outcome::NotFound);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redrives_at_once_apply_an_event_once() -> Result<()> {
    let world = World::shared().await?;
    let letter = dead(&world, &[REFUSED]).await?[0];
    mend(&world).await?;
    let mut calls = JoinSet::new();
    for _ in 0..6 {
        let redrive = redrive(&world);
        calls.spawn(async move { redrive.redrive(letter).await });
    }
    let mut applied = 0;
    while let Some(call) = calls.join_next().await {
        match call?? {
            Outcome::Applied(_) => applied += 1,
            Outcome::AlreadyApplied(_) | Outcome::NotFound => {}
            failed @ Outcome::Failed(_) => panic!("{failed:?}"),
        }
    }
    assert_eq!(applied, 1);
    assert_eq!(world.applied().await?, [REFUSED]);
    assert!(world.dead_letters().await?.is_empty());
    Ok(())
}

async fn put_back(world: &World, letter: &StreamMessage) -> Result<u64> {
    let mut headers = letter.headers.clone();
    headers.insert("Nats-Msg-Id", uuid::Uuid::now_v7().to_string());
    let subject = letter.subject.clone();
    let stored = world
        .jetstream
        .publish_with_headers(subject, headers, letter.payload.clone());
    Ok(stored.await?.await?.sequence)
}

#[tokio::test]
async fn a_crash_between_commit_and_deletion_is_absorbed_by_the_inbox() -> Result<()> {
    let world = World::shared().await?;
    let letter = dead(&world, &[REFUSED]).await?[0];
    let stored = world.dead_letters().await?.remove(0);
    mend(&world).await?;
    redrive(&world).redrive(letter).await?;
    // As if the deletion had not come to pass.
    let left = put_back(&world, &stored).await?;
    let outcome = redrive(&world).redrive(left).await?;
    assert_eq!(outcome, Outcome::AlreadyApplied(None));
    assert_eq!(world.applied().await?, [REFUSED], "applied twice");
    assert!(world.dead_letters().await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_letter_without_its_payload_is_redriven_from_its_stream() -> Result<()> {
    let world = World::shared().await?;
    let large = format!("refuse {}", "x".repeat(world.nats.max_payload() - 300));
    let letter = dead(&world, &[&large]).await?[0];
    let opened = letters(&world).open(letter).await?.unwrap();
    assert!(opened.payload.is_none() && opened.letter.payload_omitted);
    let payload = letters(&world).payload(&opened).await?;
    assert_eq!(payload.as_deref(), Some(large.as_bytes()));
    let outcome = redrive(&world).redrive(letter).await?;
    assert_eq!(outcome, Outcome::Failed("refused\nby the handler".into()));

    // Another message at the same place is not taken for it.
    world.jetstream.delete_stream(&world.name).await?;
    world.create_stream().await?;
    world.publish([large.as_str()]).await?;
    let Outcome::Failed(why) = redrive(&world).redrive(letter).await? else {
        panic!("it was applied")
    };
    assert!(why.contains("does not hold it"), "{why}");
    Ok(())
}

#[tokio::test]
async fn a_discarded_letter_leaves_a_trace_with_its_event_and_the_reason() -> Result<()> {
    let world = World::shared().await?;
    let letter = dead(&world, &["refuse it"]).await?[0];
    let discarded = letters(&world).discard(letter, "a test's\nevent").await?;
    assert_eq!(
        discarded.map(|letter| letter.reason).as_deref(),
        Some("refused by the handler")
    );
    assert!(world.dead_letters().await?.is_empty());
    assert!(letters(&world).discard(letter, "again").await?.is_none());

    let stream = world
        .jetstream
        .get_stream(dead_letter::DISCARDED_STREAM)
        .await?;
    let subject = format!("discarded.{}", world.name);
    let trace = stream.get_last_raw_message_by_subject(&subject).await?;
    assert_eq!(&trace.payload[..], b"refuse it");
    assert_eq!(
        header(&trace, dead_letter::DISCARD_REASON),
        "a test's event"
    );
    assert_eq!(
        header(&trace, dead_letter::REASON),
        "refused by the handler"
    );
    assert_eq!(header(&trace, "Original-Event-Type"), "test.v1.Happened");
    Ok(())
}

#[tokio::test]
async fn a_letter_that_leaves_no_room_for_a_reason_is_discarded_with_a_pointer() -> Result<()> {
    let world = World::shared().await?;
    dead(&world, &["refuse it"]).await?;
    let mut stored = world.dead_letters().await?.remove(0);
    // As large as a letter can be: a further header does not fit. Another id will have its length.
    let id = uuid::Uuid::now_v7().to_string();
    stored.headers.insert("Nats-Msg-Id", id);
    let headers = stored.headers.iter().flat_map(|(name, values)| {
        let name: &str = name.as_ref();
        values
            .iter()
            .map(move |value| format!("{name}: {value}\r\n").len())
    });
    let headers = headers.sum::<usize>() + "NATS/1.0\r\n\r\n".len();
    let bytes = world.nats.max_payload() - headers - 40;
    stored.payload = "x".repeat(bytes).into();
    let letter = put_back(&world, &stored).await?;
    let discarded = letters(&world).discard(letter, "too large").await?;
    ensure!(discarded.is_some());
    let left = world.dead_letters().await?;
    ensure!(left.iter().all(|left| left.sequence != letter));
    let discarded = dead_letter::DISCARDED_STREAM;
    let stream = world.jetstream.get_stream(discarded).await?;
    let subject = format!("discarded.{}", world.name);
    let trace = stream.get_last_raw_message_by_subject(&subject).await?;
    assert_eq!(header(&trace, dead_letter::DISCARD_REASON), "too large");
    let omitted = header(&trace, dead_letter::PAYLOAD_OMITTED);
    assert_eq!(omitted, bytes.to_string());
    assert!(trace.payload.is_empty());
    Ok(())
}

#[tokio::test]
async fn letters_are_paged_and_those_of_others_are_not_seen() -> Result<()> {
    let (world, other) = (World::shared().await?, World::shared().await?);
    let sequences = dead(&world, &["refuse 1", "refuse 2", "refuse 3"]).await?;
    let foreign = dead(&other, &["refuse"]).await?[0];
    let mine = letters(&world);
    let page = async |after, max| -> Result<Vec<u64>> {
        let page = mine.page(after, max).await?;
        Ok(page.iter().map(|letter| letter.sequence).collect())
    };
    assert_eq!(page(0, 2).await?, sequences[..2]);
    assert_eq!(page(sequences[1], 2).await?, sequences[2..]);
    assert!(page(sequences[2], 2).await?.is_empty());

    assert!(mine.open(foreign).await?.is_none());
    assert!(mine.discard(foreign, "not mine").await?.is_none());
    assert_eq!(redrive(&world).redrive(foreign).await?, Outcome::NotFound);
    assert_eq!(other.dead_letters().await?.len(), 1);
    let unknown = Letters::new(world.nats.clone(), "nobody");
    assert!(unknown.page(0, 10).await?.is_empty());
    Ok(())
}
