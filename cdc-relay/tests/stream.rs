//! The stream is made as it is configured, or only looked at; and one that could not say where to go on
//! is refused.

mod rig;

use anyhow::{Result, ensure};
use async_nats::jetstream::{
    self,
    stream::{Compression, Config, DiscardPolicy, RetentionPolicy, StorageType},
};
use cdc_relay::stream::Headers;
use rig::{Rig, STREAM, says};

async fn made(rig: &Rig, config: Config) -> Result<jetstream::stream::Stream> {
    let jetstream = jetstream::new(rig.nats.client().await?);
    Ok(jetstream.create_stream(config).await?)
}

fn stream() -> Config {
    Config {
        name: STREAM.to_owned(),
        subjects: vec!["events.>".to_owned()],
        allow_atomic_publish: true,
        ..Config::default()
    }
}

#[tokio::test]
async fn a_stream_is_created_as_it_is_configured() -> Result<()> {
    let rig = Rig::start().await?;
    let environment = [
        ("CDC_STREAM_SUBJECTS", "events.>,more.*"),
        ("CDC_STREAM_STORAGE", "memory"),
        ("CDC_STREAM_MAX_AGE_SECONDS", "3600"),
        ("CDC_STREAM_MAX_BYTES", "1000000"),
        ("CDC_STREAM_MAX_MESSAGE_BYTES", "1032192"),
        ("CDC_STREAM_DISCARD", "new"),
        ("CDC_STREAM_COMPRESSION", "s2"),
        ("CDC_STREAM_DUPLICATE_WINDOW_SECONDS", "60"),
    ];
    let relay = rig.relay_with("relay", &environment)?;
    relay.wait_ready().await?;
    let jetstream = jetstream::new(rig.nats.client().await?);
    let found = jetstream
        .get_stream(STREAM)
        .await?
        .cached_info()
        .config
        .clone();
    assert_eq!(found.subjects, ["events.>", "more.*"]);
    assert_eq!(found.storage, StorageType::Memory);
    assert_eq!(found.max_age.as_secs(), 3600);
    assert_eq!(found.max_bytes, 1_000_000);
    assert_eq!(found.max_message_size, 1_032_192);
    assert_eq!(found.discard, DiscardPolicy::New);
    assert_eq!(found.compression, Some(Compression::S2));
    assert_eq!(found.duplicate_window.as_secs(), 60);
    assert!(found.allow_atomic_publish);
    Ok(())
}

#[tokio::test]
async fn subjects_that_nobody_names_are_what_the_template_can_become() -> Result<()> {
    let rig = Rig::start().await?;
    let file = rig.guard.directory().join("relay.toml");
    std::fs::write(
        &file,
        "[message]\nsubject = \"shop.{aggregatetype}.{type}\"\n",
    )?;
    let environment = [
        ("CDC_STREAM_SUBJECTS", ""),
        ("CDC_CONFIG", &file.to_string_lossy()),
    ];
    let relay = rig.relay_with("relay", &environment)?;
    rig.insert("one").await?;
    relay.wait_ready().await?;
    let stored = rig.settled().await?;
    assert_eq!(stored[0].subject, "shop.thing.Made");
    Ok(())
}

#[tokio::test]
async fn a_full_stream_that_discards_new_events_loses_none() -> Result<()> {
    let rig = Rig::start().await?;
    let environment = [
        ("CDC_STREAM_MAX_BYTES", "20000"),
        ("CDC_STREAM_DISCARD", "new"),
    ];
    let relay = rig.relay_with("relay", &environment)?;
    relay.wait_ready().await?;
    for number in 0..30 {
        rig.insert(&format!("{number} {}", "x".repeat(1000)))
            .await?;
    }
    says(&relay, "maximum bytes exceeded").await?;
    let jetstream = jetstream::new(rig.nats.client().await?);
    let stream = jetstream.get_stream(STREAM).await?;
    let mut wider = stream.cached_info().config.clone();
    wider.max_bytes = 1_000_000;
    jetstream.update_stream(&wider).await?;
    assert_eq!(rig.settled().await?.len(), 30);
    Ok(())
}

#[tokio::test]
async fn a_stream_that_the_relay_may_not_create_is_awaited() -> Result<()> {
    let rig = Rig::start().await?;
    rig.insert("one").await?;
    let relay = rig.relay_with("relay", &[("CDC_STREAM_CREATE", "never")])?;
    says(
        &relay,
        "CDC_STREAM_CREATE=never says that somebody else makes it",
    )
    .await?;
    made(&rig, stream()).await?;
    relay.wait_ready().await?;
    rig.settled().await?;
    Ok(())
}

#[tokio::test]
async fn a_stream_that_forgets_what_was_consumed_is_refused() -> Result<()> {
    for retention in [RetentionPolicy::WorkQueue, RetentionPolicy::Interest] {
        let rig = Rig::start().await?;
        rig.insert("one").await?;
        let config = Config {
            retention,
            ..stream()
        };
        let mut stream = made(&rig, config).await?;
        let relay = rig.relay("relay")?;
        says(&relay, "its last event cannot say where to go on").await?;
        assert_eq!(stream.info().await?.state.last_sequence, 0);
    }
    Ok(())
}

#[tokio::test]
async fn a_stream_less_safe_than_asked_for_is_served_and_told() -> Result<()> {
    let rig = Rig::start().await?;
    let config = Config {
        storage: StorageType::Memory,
        max_message_size: 20_000,
        ..stream()
    };
    made(&rig, config).await?;
    let relay = rig.relay("relay")?;
    says(&relay, "it is kept in memory").await?;
    relay.wait_ready().await?;
    rig.insert("small").await?;
    rig.settled().await?;
    rig.insert(&"x".repeat(20_001)).await?;
    says(&relay, "raise the stream's `max_msg_size`").await?;
    assert_eq!(rig.count().await?, 1);
    Ok(())
}

#[tokio::test]
async fn reading_goes_on_to_the_leaders_end_whatever_the_consumer_counts() -> Result<()> {
    let rig = Rig::start().await?;
    let stream = made(&rig, stream()).await?;
    let jetstream = jetstream::new(rig.nats.client().await?);
    let publish = async |subject: &'static str| -> Result<u64> {
        let stored = jetstream.publish(subject, "".into()).await?;
        Ok(stored.await?.sequence)
    };
    let filters = vec!["events.a".to_owned(), "events.b".to_owned()];
    // As on a server that has fallen behind, the consumer counts nothing pending when it is made.
    let mut headers = Headers::behind(&stream, 0, filters, "test").await?;
    for subject in ["events.a", "events.b"] {
        let sequence = publish(subject).await?;
        let read = headers.next().await?;
        ensure!(
            read.is_some_and(|(at, _)| at == sequence),
            "{subject} was not read"
        );
    }
    publish("events.other").await?;
    ensure!(
        headers.next().await?.is_none(),
        "the filters are not kept to"
    );
    Ok(())
}
