//! The publisher that most people would write: take a batch of rows from the table, publish them with
//! the acknowledgements pipelined, delete them, commit. It is at-least-once, and so is its order.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use async_nats::HeaderMap;
use async_nats::jetstream::{self, context::PublishAckFuture};
use serde_json::json;
use tokio_postgres::{NoTls, Row};
use uuid::Uuid;

use super::Arguments;
use crate::bench::backlog::POLLED;

/// Rows in one transaction: more gained nothing here.
const BATCH: i64 = 1000;

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(poll(arguments))
}

async fn poll(arguments: &Arguments) -> Result<()> {
    let url = arguments.database.as_ref().context("no database")?;
    let (mut sql, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    let client = async_nats::connect(&arguments.nats).await?;
    let jetstream = jetstream::new(client);
    let backend: i32 = sql.query_one("SELECT pg_backend_pid()", &[]).await?.get(0);
    let take = format!(
        "SELECT id, aggregatetype, aggregateid, type, payload FROM {POLLED} \
         ORDER BY id LIMIT {BATCH} FOR UPDATE SKIP LOCKED"
    );
    let delete = format!("DELETE FROM {POLLED} WHERE id = ANY($1)");
    let (take, delete) = (sql.prepare(&take).await?, sql.prepare(&delete).await?);
    super::prepared(&json!({ "backend": backend }))?;

    let begun = Instant::now();
    let mut published = 0;
    while published < arguments.count {
        let transaction = sql.transaction().await?;
        let rows = transaction.query(&take, &[]).await?;
        ensure!(!rows.is_empty(), "the table holds {published} rows only");
        let mut acknowledgements = Vec::with_capacity(rows.len());
        for row in &rows {
            acknowledgements.push(publish(&jetstream, row).await?);
        }
        for acknowledgement in acknowledgements {
            acknowledgement.await?;
        }
        let ids: Vec<Uuid> = rows.iter().map(|row| row.get(0)).collect();
        transaction.execute(&delete, &[&ids]).await?;
        transaction.commit().await?;
        published += rows.len();
    }
    super::done(begun)
}

async fn publish(jetstream: &jetstream::Context, row: &Row) -> Result<PublishAckFuture> {
    let event_type: &str = row.get(3);
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Msg-Id", row.get::<_, Uuid>(0).to_string());
    headers.insert("Event-Type", event_type);
    headers.insert("Aggregate-Type", row.get::<_, &str>(1));
    headers.insert("Aggregate-Id", row.get::<_, &str>(2));
    let payload: Vec<u8> = row.get(4);
    let subject = format!("events.{event_type}");
    let sent = jetstream.publish_with_headers(subject, headers, payload.into());
    Ok(sent.await?)
}
