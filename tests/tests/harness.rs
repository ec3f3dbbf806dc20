//! The harness keeps its promises.

use std::time::Duration;

use anyhow::{Result, bail};
use harness::{Nats, Postgres, eventually};

#[tokio::test]
async fn postgres_keeps_its_data_over_stop_and_kill() {
    let postgres = Postgres::start().await.unwrap();
    postgres.create_database("shop").await.unwrap();
    let client = postgres.connect("shop").await.unwrap();
    let level = client.query_one("SHOW wal_level", &[]).await.unwrap();
    assert_eq!(level.get::<_, String>(0), "logical");
    client
        .batch_execute("CREATE TABLE t (n int); INSERT INTO t VALUES (1)")
        .await
        .unwrap();
    let port = postgres.port();

    postgres.stop().await.unwrap();
    postgres.connect("shop").await.unwrap_err();
    postgres.start_again().await.unwrap();
    let client = postgres.connect("shop").await.unwrap();
    client
        .batch_execute("INSERT INTO t VALUES (2)")
        .await
        .unwrap();

    postgres.kill().await.unwrap();
    postgres.start_again().await.unwrap();
    assert_eq!(postgres.port(), port);
    let client = postgres.connect("shop").await.unwrap();
    let count = client
        .query_one("SELECT count(*) FROM t", &[])
        .await
        .unwrap();
    assert_eq!(count.get::<_, i64>(0), 2);
}

#[tokio::test]
async fn nats_keeps_its_streams_over_stop_and_kill() {
    let nats = Nats::start().await.unwrap();
    let url = nats.url();
    let jetstream = async_nats::jetstream::new(nats.client().await.unwrap());
    jetstream
        .create_stream(async_nats::jetstream::stream::Config {
            name: "S".into(),
            subjects: vec!["s.>".into()],
            ..Default::default()
        })
        .await
        .unwrap();
    for end in [true, false] {
        jetstream
            .publish("s.a", "x".into())
            .await
            .unwrap()
            .await
            .unwrap();
        if end {
            nats.stop().await.unwrap();
        } else {
            nats.kill().await.unwrap();
        }
        nats.client().await.unwrap_err();
        nats.start_again().await.unwrap();
        assert_eq!(nats.url(), url);
        eventually(
            "the client to be back",
            Duration::from_secs(20),
            async || {
                jetstream.query_account().await?;
                Ok(Some(()))
            },
        )
        .await
        .unwrap();
    }
    let stream = jetstream.get_stream("S").await.unwrap();
    assert_eq!(stream.cached_info().state.messages, 2);
}

#[tokio::test]
async fn a_wrong_password_is_refused() {
    let postgres = Postgres::start().await.unwrap();
    let url = postgres
        .url("postgres")
        .replace(postgres.password(), "wrong");
    let error = tokio_postgres::connect(&url, tokio_postgres::NoTls)
        .await
        .err()
        .unwrap();
    assert_eq!(error.code().unwrap().code(), "28P01");
}

#[tokio::test]
async fn eventually_tells_what_was_awaited_and_the_last_state() {
    let deadline = Duration::from_millis(100);
    let outcome: Result<()> = eventually("ten approved", deadline, async || bail!("3 of 10")).await;
    let message = format!("{:#}", outcome.unwrap_err());
    assert!(
        message.contains("ten approved") && message.contains("3 of 10"),
        "{message}"
    );

    // A probe that hangs does not hang the test.
    let hung: Result<()> =
        eventually("an answer", deadline, async || std::future::pending().await).await;
    assert!(format!("{:#}", hung.unwrap_err()).contains("did not answer"));
}
