//! Publication and slot, over an ordinary SQL connection: looked at before each session, created
//! where missing. The slot is the relay's lease, and its confirmed position the server's memory.

pub mod watch;

use tokio_postgres::{Client, error::SqlState, types::PgLsn};

use crate::{
    config::{Source, Table},
    error::{Error, Result},
    wal::quote,
};

/// Slots that follow a failover came with this version, by `server_version_num`.
const FAILOVER_SINCE: i32 = 170_000;

/// What the server has under the slot's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Slot {
    /// It can be streamed from, unless another relay does.
    Ready { follows_failover: bool },
    /// There is none: what stands in the outbox has to be published first.
    Missing,
    /// Postgres will never stream from it again; says why.
    Lost(String),
}

impl Slot {
    /// Whether the server's standbys keep it, too.
    pub fn follows_failover(&self) -> bool {
        matches!(
            self,
            Self::Ready {
                follows_failover: true
            }
        )
    }
}

const SERVER: &str = "\
    SELECT current_setting('wal_level'), current_setting('server_version_num')::int";

const TABLE: &str = "\
    SELECT c.relkind::text, has_table_privilege(c.oid, 'SELECT') \
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2";

const PUBLICATION: &str = "\
    SELECT p.pubinsert, p.pubviaroot, EXISTS (\
        SELECT FROM pg_publication_tables t \
        WHERE t.pubname = p.pubname AND t.schemaname = $2 AND t.tablename = $3) \
    FROM pg_publication p WHERE p.pubname = $1";

const SLOT: &str = "\
    SELECT plugin::text, database::text, database = current_database(), wal_status, active_pid, \
           coalesce((to_jsonb(s)->>'failover')::boolean, false), \
           to_jsonb(s)->>'invalidation_reason' \
    FROM pg_replication_slots s WHERE slot_name = $1";

const POSITIONS: &str = "\
    SELECT confirmed_flush_lsn, pg_current_wal_flush_lsn(), active \
    FROM pg_replication_slots WHERE slot_name = $1";

const DROP: &str = "SELECT pg_drop_replication_slot($1)";

/// Checks the server's settings, the table and the publication, and looks for the slot.
///
/// # Errors
/// [`Error::Definite`] with the mend for each setting that is wrong; [`Error::Transient`] while the
/// table does not exist, or must not be read: its service may be about to create it, and to grant that.
pub async fn prepare(sql: &Client, source: &Source) -> Result<Slot> {
    check_server(sql).await?;
    if source.message_prefix.is_some() {
        return prepare_without_table(sql, source).await;
    }
    let is_partitioned = find_table(sql, &source.table).await?;
    let slot = find(sql, &source.slot).await?;
    match (find_publication(sql, source, is_partitioned).await?, &slot) {
        (Publication::Complete, _) => {}
        (Publication::Missing, Slot::Missing) => create_publication(sql, source).await?,
        (Publication::Missing, _) => {
            return Err(unpublished(source, &create_statement(source), &slot));
        }
        (Publication::Incomplete { mend }, _) => return Err(unpublished(source, &mend, &slot)),
    }
    Ok(slot)
}

/// Messages belong to no publication, and the plugin wants to be named one all the same.
async fn prepare_without_table(sql: &Client, source: &Source) -> Result<Slot> {
    let slot = find(sql, &source.slot).await?;
    if let Publication::Missing = find_publication(sql, source, false).await? {
        create_publication(sql, source).await?;
    }
    Ok(slot)
}

/// The confirmed position of the slot that this relay holds, and the end of the server's WAL.
///
/// # Errors
/// [`Error::Transient`] also when nobody holds it here: then the replication connection ended at another
/// server than `sql`, as behind a balancer, and nothing of one is true of the other.
pub async fn positions(sql: &Client, slot: &str) -> Result<(PgLsn, PgLsn)> {
    let during = "read the slot's position";
    let row = sql.query_opt(POSITIONS, &[&slot]).await;
    let Some(row) = row.map_err(|e| Error::sql(during, &e))? else {
        return Err(Error::Transient(format!("{during}: slot {slot} is gone")));
    };
    if !row
        .try_get::<_, bool>(2)
        .map_err(|e| Error::sql(during, &e))?
    {
        return Err(Error::Transient(format!(
            "{during}: the relay has taken slot {slot}, and here it is free: its two connections ended at \
             different servers; name the servers in DATABASE_URL, not a balancer"
        )));
    }
    let lsn = |at: usize| row.try_get(at).map_err(|e| Error::sql(during, &e));
    Ok((lsn(0)?, lsn(1)?))
}

async fn check_server(sql: &Client) -> Result<()> {
    let during = "look at the server's settings";
    let row = sql.query_one(SERVER, &[]).await;
    let row = row.map_err(|e| Error::sql(during, &e))?;
    let level: String = row.try_get(0).map_err(|e| Error::sql(during, &e))?;
    if level != "logical" {
        return Err(Error::Definite(format!(
            "wal_level is `{level}`, and logical replication needs `logical`: \
             ALTER SYSTEM SET wal_level = logical; then restart Postgres"
        )));
    }
    Ok(())
}

/// Whether the server knows slots that follow a failover.
pub async fn knows_failover(sql: &Client) -> Result<bool> {
    let during = "look at the server's version";
    let row = sql.query_one(SERVER, &[]).await;
    let version: i32 = row
        .and_then(|row| row.try_get(1))
        .map_err(|e| Error::sql(during, &e))?;
    Ok(version >= FAILOVER_SINCE)
}

/// Whether the table is partitioned.
async fn find_table(sql: &Client, table: &Table) -> Result<bool> {
    let during = "look for the outbox table";
    let row = sql.query_opt(TABLE, &[&table.schema, &table.name]).await;
    match row.map_err(|e| Error::sql(during, &e))? {
        Some(row) => {
            let kind: String = row.try_get(0).map_err(|e| Error::sql(during, &e))?;
            let is_readable: bool = row.try_get(1).map_err(|e| Error::sql(during, &e))?;
            if !is_readable {
                let table = table.quoted();
                return Err(Error::Transient(format!(
                    "{during}: this role may not read {table}: GRANT SELECT ON {table}; waiting for its owner \
                     to do so"
                )));
            }
            Ok(kind == "p")
        }
        None => Err(Error::Transient(format!(
            "{during}: there is no table {} yet; waiting for its owner to create it",
            table.quoted()
        ))),
    }
}

/// What the server has under the publication's name.
enum Publication {
    Complete,
    Missing,
    /// It leaves rows out, or gives them the names of partitions.
    Incomplete {
        mend: String,
    },
}

async fn find_publication(
    sql: &Client,
    source: &Source,
    is_partitioned: bool,
) -> Result<Publication> {
    let during = "look for the publication";
    let (name, table) = (&source.publication, &source.table);
    let row = sql
        .query_opt(PUBLICATION, &[name, &table.schema, &table.name])
        .await;
    let Some(row) = row.map_err(|e| Error::sql(during, &e))? else {
        return Ok(Publication::Missing);
    };
    let flag = |at: usize| {
        row.try_get::<_, bool>(at)
            .map_err(|e| Error::sql(during, &e))
    };
    let (inserts, via_root, has_table) = (flag(0)?, flag(1)?, flag(2)?);
    let quoted = quote(name);
    // In this order: without publish_via_partition_root only the partitions are listed as tables.
    let mend = if is_partitioned && !via_root {
        format!("ALTER PUBLICATION {quoted} SET (publish_via_partition_root = true)")
    } else if !has_table {
        format!("ALTER PUBLICATION {quoted} ADD TABLE {}", table.quoted())
    } else if !inserts {
        format!("ALTER PUBLICATION {quoted} SET (publish = 'insert')")
    } else {
        return Ok(Publication::Complete);
    };
    Ok(Publication::Incomplete { mend })
}

/// Rows from before the mend are never decoded: a slot that has waited meanwhile must go, so that the
/// outbox is compared with the stream.
fn unpublished(source: &Source, mend: &str, slot: &Slot) -> Error {
    let table = source.table.quoted();
    let name = quote(&source.publication);
    let then = match slot {
        Slot::Missing => String::new(),
        Slot::Ready { .. } | Slot::Lost(_) => format!(
            "; SELECT pg_drop_replication_slot('{}'); then the relay makes a new slot, and publishes \
             from the table what the stream lacks",
            source.slot
        ),
    };
    Error::Definite(format!(
        "publication {name} does not publish the inserts of {table} under the table's own name: {mend}{then}"
    ))
}

/// What creates the publication.
pub fn create_statement(source: &Source) -> String {
    if source.message_prefix.is_some() {
        return format!("CREATE PUBLICATION {}", quote(&source.publication));
    }
    format!(
        "CREATE PUBLICATION {} FOR TABLE {} WITH (publish = 'insert', publish_via_partition_root = true)",
        quote(&source.publication),
        source.table.quoted()
    )
}

async fn create_publication(sql: &Client, source: &Source) -> Result<()> {
    tracing::info!(publication = source.publication, table = %source.table.quoted(), "creating the publication");
    let created = sql.batch_execute(&create_statement(source)).await;
    match created.map_err(|e| Error::sql("create the publication", &e)) {
        // Another relay was quicker.
        Err(Error::AlreadyExists(_)) => Ok(()),
        created => created,
    }
}

/// Looks for the slot.
///
/// # Errors
/// [`Error::SlotHeld`] while another relay streams from it; [`Error::Definite`] when it is not this
/// relay's, or can no longer be used.
pub async fn find(sql: &Client, slot: &str) -> Result<Slot> {
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
        let reason = text(6)?.unwrap_or_else(|| "wal_removed".to_owned());
        return Ok(Slot::Lost(format!(
            "slot {slot} is invalidated ({reason}): Postgres has removed WAL that it needed; raise \
             max_slot_wal_keep_size if that was the limit"
        )));
    }
    let holder: Option<i32> = row.try_get(4).map_err(|e| Error::sql(during, &e))?;
    match holder {
        Some(pid) => Err(Error::SlotHeld(format!(
            "walsender {pid} streams from {slot}"
        ))),
        None => Ok(Slot::Ready {
            follows_failover: row.try_get(5).map_err(|e| Error::sql(during, &e))?,
        }),
    }
}

/// Drops the slot.
///
/// # Errors
/// [`Error::SlotHeld`] while a relay streams from it.
pub async fn discard(sql: &Client, slot: &str) -> Result<()> {
    let during = "drop the replication slot";
    let dropped = sql.execute(DROP, &[&slot]).await;
    match dropped {
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_OBJECT) => Ok(()),
        dropped => dropped.map(drop).map_err(|e| Error::sql(during, &e)),
    }
}
