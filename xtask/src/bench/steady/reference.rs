//! What nobody can be quicker than: one synced commit, and one message acknowledged, each alone.

use std::time::Instant;

use anyhow::{Context, Result};
use async_nats::jetstream::{self, stream::Config};
use harness::Nats;
use hdrhistogram::Histogram;
use tokio_postgres::Client;

/// The same row into a table that is not published.
const INSERT: &str = "INSERT INTO polled SELECT e.* FROM event($1, $2) e";
const SUBJECT: &str = "reference";
const WARM_UP: i64 = 200;
const ROUNDS: i64 = 1000;

/// The median of both together, in microseconds.
pub(super) async fn measure(sql: &Client, nats: &Nats, bytes: u32) -> Result<u64> {
    let context = jetstream::new(nats.client().await?);
    let stream = Config {
        name: "REFERENCE".to_owned(),
        subjects: vec![SUBJECT.to_owned()],
        ..Config::default()
    };
    context
        .create_stream(stream)
        .await
        .context("cannot create the stream")?;
    let insert = sql.prepare(INSERT).await?;
    let payload = vec![b'x'; usize::try_from(bytes)?];
    let mut histogram = Histogram::<u64>::new(3)?;
    for round in 0..WARM_UP + ROUNDS {
        let begun = Instant::now();
        sql.execute(&insert, &[&round, &bytes.cast_signed()])
            .await?;
        context
            .publish(SUBJECT, payload.clone().into())
            .await?
            .await?;
        if round >= WARM_UP {
            histogram.record(super::microseconds(begun, Instant::now()))?;
        }
    }
    Ok(histogram.value_at_quantile(0.5))
}
