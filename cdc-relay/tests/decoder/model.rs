//! Random transactions on an outbox, and a model of what was committed: by what SQL returned for each
//! row, and by which savepoints were rolled back.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use rand::{Rng, RngExt as _, rngs::StdRng};
use tokio_postgres::{Client, Row};

/// An event as its row says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub id: String,
    pub aggregate_type: String,
    pub aggregate_id: String,
    pub event_type: String,
    pub payload: Vec<u8>,
    pub headers: BTreeMap<String, String>,
}

/// One of the tables that an outbox may be.
#[derive(Debug)]
pub struct Shape {
    id: &'static str,
    aggregate_id: &'static str,
    payload: &'static str,
    headers: Option<&'static str>,
    pub is_partitioned: bool,
    /// A column of a type of one's own, of which Postgres tells the name.
    has_mood: bool,
    publish: &'static str,
}

impl Shape {
    pub fn random(rng: &mut StdRng, round: u64) -> Self {
        let is_partitioned = rng.random_bool(0.3);
        Self {
            id: pick(rng, &["uuid", "text", "bigint", "varchar"]),
            aggregate_id: pick(rng, &["uuid", "text", "bigint"]),
            payload: pick(rng, &["bytea", "jsonb", "json", "text"]),
            headers: pick(rng, &[None, Some("jsonb"), Some("json")]),
            is_partitioned,
            has_mood: round.is_multiple_of(2),
            publish: match round.is_multiple_of(3) {
                true => "insert, update, delete, truncate",
                false => pick(rng, &["insert", "insert, update, delete, truncate"]),
            },
        }
    }

    pub fn statements(&self) -> String {
        let headers = self.headers.map(|kind| format!("headers {kind},"));
        let (mood, partitions) = (
            if self.has_mood { "mood mood," } else { "" },
            if self.is_partitioned {
                "PARTITION BY HASH (id);
                 CREATE TABLE outbox_0 PARTITION OF outbox FOR VALUES WITH (MODULUS 2, REMAINDER 0);
                 CREATE TABLE outbox_1 PARTITION OF outbox FOR VALUES WITH (MODULUS 2, REMAINDER 1)"
            } else {
                ""
            },
        );
        format!(
            "CREATE TYPE mood AS ENUM ('good', 'bad');
             CREATE TABLE other (id serial PRIMARY KEY, x text);
             CREATE TABLE outbox (
                note text, id {} PRIMARY KEY, aggregatetype text NOT NULL,
                aggregateid {} NOT NULL, {mood} type varchar NOT NULL, {} payload {} NOT NULL
             ) {partitions};
             ALTER TABLE outbox ALTER COLUMN note SET STORAGE EXTERNAL;
             CREATE PUBLICATION relay FOR TABLE outbox, other
                WITH (publish = '{}', publish_via_partition_root = true);",
            self.id,
            self.aggregate_id,
            headers.unwrap_or_default(),
            self.payload,
            self.publish
        )
    }

    /// An insert of so many rows that returns them.
    pub fn insert(&self, rng: &mut StdRng, count: usize, next: &mut i64) -> String {
        let rows: Vec<String> = (0..count).map(|_| self.row(rng, next)).collect();
        let headers = if self.headers.is_some() {
            ", headers"
        } else {
            ""
        };
        let payload = match self.payload {
            "bytea" => "payload",
            _ => "convert_to(payload::text, 'UTF8')",
        };
        let returned = if self.headers.is_some() {
            "headers::text"
        } else {
            "NULL::text"
        };
        format!(
            "INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload, note{headers}) VALUES {} \
             RETURNING id::text, aggregatetype, aggregateid::text, type::text, {payload}, {returned}",
            rows.join(", ")
        )
    }

    fn row(&self, rng: &mut StdRng, next: &mut i64) -> String {
        *next += 1;
        let key = |kind, rng: &mut StdRng| match kind {
            "uuid" => format!("'{}'", uuid::Uuid::from_u128(rng.random())),
            "bigint" => if rng.random_bool(0.1) {
                i64::MIN + *next
            } else {
                *next
            }
            .to_string(),
            _ => format!("'{} é {next}'", text(rng, 5)),
        };
        let id = key(self.id, rng);
        let aggregate = key(self.aggregate_id, rng);
        let size = size(rng);
        let payload = match self.payload {
            "bytea" => {
                let mut bytes = vec![0; size];
                rng.fill_bytes(&mut bytes);
                let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                format!("'\\x{digits}'")
            }
            "text" => format!("'{}'", text(rng, size)),
            _ => format!("'{{\"b\" : [1,  null], \"a\": \"{}\"}}'", text(rng, size)),
        };
        let note = match rng.random_range(0..4) {
            0 => "NULL".to_owned(),
            1 => format!("'{}'", text(rng, 9000)),
            _ => format!("'{}'", text(rng, 10)),
        };
        let headers = match (self.headers, rng.random_range(0..4)) {
            (None, _) => String::new(),
            (_, 0) => ", NULL".to_owned(),
            (_, 1) => ", '{}'".to_owned(),
            _ => format!(
                ", '{{\"tenant\": \"{}\", \"n\": {next}, \"none\": null, \"flag\": true}}'",
                text(rng, 8)
            ),
        };
        let kind = pick(rng, &["Made", "orders.v1.OrderCreated", "gone"]);
        format!("({id}, 'thing', {aggregate}, '{kind}', {payload}, {note}{headers})")
    }
}

/// A returned row.
pub fn event(row: &Row) -> Result<Event> {
    let headers: Option<String> = row.try_get(5)?;
    let mut map = BTreeMap::new();
    if let Some(headers) = headers {
        let headers: serde_json::Value = serde_json::from_str(&headers)?;
        for (name, value) in headers.as_object().context("not an object")? {
            match value {
                serde_json::Value::Null => None,
                serde_json::Value::String(text) => map.insert(name.clone(), text.clone()),
                other => map.insert(name.clone(), other.to_string()),
            };
        }
    }
    Ok(Event {
        id: row.try_get(0)?,
        aggregate_type: row.try_get(1)?,
        aggregate_id: row.try_get(2)?,
        event_type: row.try_get(3)?,
        payload: row.try_get(4)?,
        headers: map,
    })
}

/// A connection, and what its open transaction has done: a level for each savepoint.
pub struct Session {
    pub client: Client,
    pub levels: Vec<Vec<Event>>,
}

impl Session {
    pub fn is_open(&self) -> bool {
        !self.levels.is_empty()
    }

    /// Runs a statement that leaves the model as it is.
    pub async fn run(&self, statement: &str) -> Result<()> {
        let done = self.client.batch_execute(statement).await;
        done.with_context(|| statement.chars().take(300).collect::<String>())
    }

    pub async fn insert(&mut self, statement: &str) -> Result<()> {
        let rows = self.client.query(statement, &[]).await?;
        let events: Vec<Event> = rows.iter().map(event).collect::<Result<_>>()?;
        let level = self.levels.last_mut().context("no transaction is open")?;
        level.extend(events);
        Ok(())
    }

    pub async fn savepoint(&mut self) -> Result<()> {
        self.run(&format!("SAVEPOINT s{}", self.levels.len()))
            .await?;
        self.levels.push(Vec::new());
        Ok(())
    }

    /// Ends the savepoints from `depth` on.
    pub async fn leave(&mut self, depth: usize, release: bool) -> Result<()> {
        let gone: Vec<Event> = self.levels.drain(depth..).flatten().collect();
        if release {
            self.run(&format!("RELEASE s{depth}")).await?;
            let level = self.levels.last_mut().context("no transaction is open")?;
            level.extend(gone);
        } else {
            self.run(&format!("ROLLBACK TO s{depth}; RELEASE s{depth}"))
                .await?;
        }
        Ok(())
    }

    /// Ends the transaction; the events that it has committed.
    pub async fn end(&mut self, commit: bool) -> Result<Vec<Event>> {
        self.run(if commit { "COMMIT" } else { "ROLLBACK" }).await?;
        let events = self.levels.drain(..).flatten().collect();
        Ok(if commit { events } else { Vec::new() })
    }
}

pub fn pick<T: Copy>(rng: &mut StdRng, from: &[T]) -> T {
    from[rng.random_range(0..from.len())]
}

/// Mostly small, now and then empty, now and then so large that Postgres stores it apart.
fn size(rng: &mut StdRng) -> usize {
    match rng.random_range(0..40) {
        0 => 0,
        1..=2 => rng.random_range(2000..20_000),
        _ => rng.random_range(1..100),
    }
}

fn text(rng: &mut StdRng, size: usize) -> String {
    let letters: Vec<char> = "abcdefghijklmnopqrstuvwxyzé 漢0123456789".chars().collect();
    (0..size).map(|_| pick(rng, &letters)).collect()
}
