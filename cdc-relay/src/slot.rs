//! Publication and slot, over an ordinary SQL connection: looked at before each session, created
//! where missing. The slot is the relay's lease, and its confirmed position the server's memory.

use tokio_postgres::{Client, Config, NoTls, types::PgLsn};

use crate::{
    config::{Source, Table},
    error::{Error, Result},
};

/// What the server has under the slot's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// It can be streamed from, unless another relay does.
    Ready,
    /// There is none: what stands in the outbox has to be published first.
    Missing,
}

const WAL_LEVEL: &str = "SELECT current_setting('wal_level')";

const TABLE: &str = "\
    SELECT c.relkind::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
    WHERE n.nspname = $1 AND c.relname = $2";

const PUBLICATION: &str = "\
    SELECT p.pubinsert, p.pubviaroot, EXISTS (\
        SELECT FROM pg_publication_tables t \
        WHERE t.pubname = p.pubname AND t.schemaname = $2 AND t.tablename = $3) \
    FROM pg_publication p WHERE p.pubname = $1";

const SLOT: &str = "\
    SELECT plugin::text, database::text, database = current_database(), wal_status \
    FROM pg_replication_slots WHERE slot_name = $1";

const CONFIRMED: &str = "SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = $1";

/// Connects for SQL. The connection ends with the client.
pub async fn connect(config: &Config) -> Result<Client> {
    let during = "connect to Postgres";
    let connected = config.connect(NoTls).await;
    let (client, connection) = connected.map_err(|e| Error::sql(during, &e))?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "the SQL connection ended");
        }
    });
    Ok(client)
}

/// Checks the server's settings, the table and the publication, and looks for the slot.
///
/// # Errors
/// [`Error::Definite`] with the mend for each setting that is wrong; [`Error::Transient`] while the
/// table does not exist: its service may be about to create it.
pub async fn prepare(sql: &Client, source: &Source) -> Result<Slot> {
    check_wal_level(sql).await?;
    let is_partitioned = find_table(sql, &source.table).await?;
    ensure_publication(sql, source, is_partitioned).await?;
    find_slot(sql, &source.slot).await
}

/// The slot's confirmed position.
pub async fn confirmed(sql: &Client, slot: &str) -> Result<PgLsn> {
    let during = "read the slot's position";
    let row = sql.query_opt(CONFIRMED, &[&slot]).await;
    match row.map_err(|e| Error::sql(during, &e))? {
        Some(row) => row.try_get(0).map_err(|e| Error::sql(during, &e)),
        None => Err(Error::Transient(format!("{during}: slot {slot} is gone"))),
    }
}

async fn check_wal_level(sql: &Client) -> Result<()> {
    let during = "read wal_level";
    let row = sql.query_one(WAL_LEVEL, &[]).await;
    let level: String = row
        .and_then(|row| row.try_get(0))
        .map_err(|e| Error::sql(during, &e))?;
    if level == "logical" {
        return Ok(());
    }
    Err(Error::Definite(format!(
        "wal_level is `{level}`, and logical replication needs `logical`: \
         ALTER SYSTEM SET wal_level = logical; then restart Postgres"
    )))
}

/// Whether the table is partitioned.
async fn find_table(sql: &Client, table: &Table) -> Result<bool> {
    let during = "look for the outbox table";
    let row = sql.query_opt(TABLE, &[&table.schema, &table.name]).await;
    match row.map_err(|e| Error::sql(during, &e))? {
        Some(row) => {
            let kind: String = row.try_get(0).map_err(|e| Error::sql(during, &e))?;
            Ok(kind == "p")
        }
        None => Err(Error::Transient(format!(
            "{during}: there is no table {} yet; waiting for its owner to create it",
            table.quoted()
        ))),
    }
}

async fn ensure_publication(sql: &Client, source: &Source, is_partitioned: bool) -> Result<()> {
    let during = "look for the publication";
    let (name, table) = (&source.publication, &source.table);
    let row = sql
        .query_opt(PUBLICATION, &[name, &table.schema, &table.name])
        .await;
    let Some(row) = row.map_err(|e| Error::sql(during, &e))? else {
        return create_publication(sql, source).await;
    };
    let flag = |at: usize| {
        row.try_get::<_, bool>(at)
            .map_err(|e| Error::sql(during, &e))
    };
    let quoted = crate::wal::quote(name);
    let mend = if !flag(2)? {
        format!("ALTER PUBLICATION {quoted} ADD TABLE {}", table.quoted())
    } else if !flag(0)? {
        format!("ALTER PUBLICATION {quoted} SET (publish = 'insert')")
    } else if is_partitioned && !flag(1)? {
        format!("ALTER PUBLICATION {quoted} SET (publish_via_partition_root = true)")
    } else {
        return Ok(());
    };
    Err(Error::Definite(format!(
        "publication {quoted} does not publish the inserts of {} under the table's own name: {mend}",
        table.quoted()
    )))
}

async fn create_publication(sql: &Client, source: &Source) -> Result<()> {
    let name = crate::wal::quote(&source.publication);
    let table = source.table.quoted();
    tracing::info!(publication = source.publication, %table, "creating the publication");
    let create = format!(
        "CREATE PUBLICATION {name} FOR TABLE {table} \
         WITH (publish = 'insert', publish_via_partition_root = true)"
    );
    match sql.batch_execute(&create).await {
        // Another relay was quicker.
        Err(error) if error.code().is_some_and(|code| code.code() == "42710") => Ok(()),
        created => created.map_err(|e| Error::sql("create the publication", &e)),
    }
}

async fn find_slot(sql: &Client, slot: &str) -> Result<Slot> {
    let during = "look for the replication slot";
    let row = sql.query_opt(SLOT, &[&slot]).await;
    let Some(row) = row.map_err(|e| Error::sql(during, &e))? else {
        return Ok(Slot::Missing);
    };
    let text = |at: usize| {
        row.try_get::<_, Option<String>>(at)
            .map_err(|e| Error::sql(during, &e))
    };
    let here: Option<bool> = row.try_get(2).map_err(|e| Error::sql(during, &e))?;
    if text(0)?.as_deref() != Some("pgoutput") || here != Some(true) {
        return Err(Error::Definite(format!(
            "slot {slot} belongs to plugin {} in database {}: slots are one namespace for the whole \
             server, so give this relay another CDC_SLOT",
            text(0)?.unwrap_or_else(|| "(physical)".to_owned()),
            text(1)?.unwrap_or_else(|| "(none)".to_owned()),
        )));
    }
    if text(3)?.as_deref() == Some("lost") {
        return Err(Error::Definite(format!(
            "slot {slot} is invalidated: Postgres has removed WAL that it needed \
             (max_slot_wal_keep_size). SELECT pg_drop_replication_slot('{slot}'); then the relay makes \
             a new one and publishes what the stream lacks from the outbox"
        )));
    }
    Ok(Slot::Ready)
}
