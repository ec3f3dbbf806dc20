//! The backlog: an outbox full of rows, behind a slot that nobody reads. Each drain reads a copy of that
//! slot, so that one backlog serves all contenders and passes.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use harness::{Guard, Postgres, eventually};
use tokio_postgres::{Client, types::PgLsn};

use super::server;

pub(super) const DATABASE: &str = "bench";
pub(super) const PUBLICATION: &str = "bench";
/// The slot that is only copied.
const MASTER: &str = "backlog";
/// The copy that a contender drains.
pub(super) const SLOT: &str = "drain";
pub(super) const TABLE: &str = "outbox";
/// What the polling publisher eats: a table is emptied only once.
pub(super) const POLLED: &str = "polled";

/// A walsender sees that its client has gone within moments.
const SLOT_FREE: Duration = Duration::from_secs(30);

/// The columns of Debezium's outbox event router. Ids ascend, as UUIDv7 do.
pub(super) const SCHEMA: &str = "
    CREATE TABLE outbox (
        id uuid PRIMARY KEY,
        aggregatetype text NOT NULL,
        aggregateid text NOT NULL,
        type text NOT NULL,
        payload bytea NOT NULL,
        headers jsonb NOT NULL DEFAULT '{}'
    );
    CREATE TABLE polled (LIKE outbox INCLUDING ALL);
    CREATE PUBLICATION bench FOR TABLE outbox WITH (publish = 'insert');
    CREATE FUNCTION event(n bigint, bytes int) RETURNS SETOF outbox LANGUAGE sql STABLE AS $$
        SELECT ('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 'order',
               ('00000000-0000-7000-9000-' || lpad(to_hex(n % 100000), 12, '0')),
               'orders.v1.OrderCreated',
               substr(decode(repeat(md5(n::text), bytes / 16 + 1), 'hex'), 1, bytes),
               '{}'::jsonb
    $$;
    CREATE PROCEDURE fill(transactions bigint, rows bigint, bytes int) LANGUAGE plpgsql AS $$
    BEGIN
        FOR t IN 0..transactions - 1 LOOP
            INSERT INTO outbox
                SELECT e.* FROM generate_series(t * rows + 1, (t + 1) * rows) n, event(n, bytes) e;
            COMMIT;
        END LOOP;
    END $$;";

const COPY_SLOT: &str = "SELECT pg_copy_logical_replication_slot($1::text::name, $2::text::name)";

/// A Postgres of its own with the rows.
#[derive(Debug)]
pub(super) struct Backlog {
    pub(super) postgres: Postgres,
    pub(super) rows: u64,
    /// Every commit of the backlog ends before it.
    pub(super) end: PgLsn,
    sql: Client,
}

impl Backlog {
    /// Builds it: `rows` rows, so many in each transaction.
    pub(super) async fn build(rows: u64, each: u64, payload_bytes: u32) -> Result<Self> {
        let begun = Instant::now();
        let postgres = server::postgres(&Guard::start()?).await?;
        postgres.create_database(DATABASE).await?;
        let sql = postgres.connect(DATABASE).await?;
        sql.batch_execute(SCHEMA).await?;
        let create = format!("SELECT pg_create_logical_replication_slot('{MASTER}', 'pgoutput')");
        sql.batch_execute(&create).await?;
        let transactions = rows.div_ceil(each);
        // What the WAL holds is the same; nobody measures how it came there.
        let fill = format!(
            "SET synchronous_commit = off; CALL fill({transactions}, {each}, {payload_bytes})"
        );
        for statement in fill.split("; ") {
            sql.batch_execute(statement).await?;
        }
        sql.batch_execute("SET synchronous_commit = on").await?;
        sql.batch_execute("VACUUM ANALYZE outbox").await?;
        sql.batch_execute("CHECKPOINT").await?;
        let row = sql
            .query_one("SELECT pg_current_wal_flush_lsn()", &[])
            .await?;
        let rows = transactions * each;
        eprintln!(
            "  backlog: {rows} rows, {each} a transaction, built in {:.0} s",
            begun.elapsed().as_secs_f64()
        );
        Ok(Self {
            postgres,
            rows,
            end: row.get(0),
            sql,
        })
    }

    /// A slot at the backlog's beginning.
    pub(super) async fn copy_slot(&self) -> Result<()> {
        self.sql.execute(COPY_SLOT, &[&MASTER, &SLOT]).await?;
        Ok(())
    }

    /// Removes the copy, once whoever read it has gone.
    pub(super) async fn drop_slot(&self) -> Result<()> {
        let drop = format!("SELECT pg_drop_replication_slot('{SLOT}')");
        eventually("the drained slot to be free", SLOT_FREE, async || {
            self.sql
                .batch_execute(&drop)
                .await
                .context("still in use")?;
            Ok(Some(()))
        })
        .await
    }

    /// The process that reads the WAL for the slot's client, once there is one.
    pub(super) async fn walsender(&self) -> Result<Option<u32>> {
        let active = "SELECT active_pid FROM pg_replication_slots WHERE slot_name = $1::text::name";
        let row = self.sql.query_opt(active, &[&SLOT]).await?;
        let pid = row.and_then(|row| row.get::<_, Option<i32>>(0));
        Ok(pid.and_then(|pid| u32::try_from(pid).ok()))
    }

    /// Fills the polling publisher's table with the first `rows` rows of the backlog.
    pub(super) async fn refill_polled(&self, rows: u64) -> Result<()> {
        let mut script = String::new();
        write!(
            script,
            "TRUNCATE {POLLED}|INSERT INTO {POLLED} SELECT * FROM {TABLE} ORDER BY id LIMIT {rows}|VACUUM ANALYZE {POLLED}|CHECKPOINT"
        )?;
        for statement in script.split('|') {
            self.sql.batch_execute(statement).await?;
        }
        Ok(())
    }
}
