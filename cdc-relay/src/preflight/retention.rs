//! Whether the role may remove what is old from the table, and whether rows tell how old they are.
//!
//! Danger: rights on a partitioned table are not rights on its partitions, which retention reads, locks
//! and drops by their own names.

use std::time::Duration;

use tokio_postgres::{Client, types::Oid};

use super::{Report, failed, role::Rights};
use crate::{
    config::{Config, Table},
    error::Result,
    record::{ID, Layout, TIMESTAMPTZ, tells_time},
    retention::enough::{self, Synced},
    types::Types,
    wal::quote,
};

const TABLE: &str = "\
    SELECT c.oid, has_table_privilege(c.oid, 'DELETE'), \
           c.relreplident = 'n' OR c.relreplident = 'd' AND NOT EXISTS ( \
               SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary), \
           (SELECT string_agg(p.pubname, ', ') FROM pg_publication p \
                JOIN pg_publication_tables t USING (pubname) \
            WHERE p.pubdelete AND t.schemaname = n.nspname AND t.tablename = c.relname) \
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1::text::regclass";

const PARTITIONS: &str = "\
    SELECT c.oid::regclass::text, pg_get_userbyid(c.relowner)::text, r.rolsuper, \
           pg_has_role(c.relowner, 'USAGE') OR CASE pg_get_expr(c.relpartbound, c.oid) WHEN 'DEFAULT' \
               THEN has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'DELETE') \
               ELSE coalesce(has_function_privilege(to_regprocedure($2), 'EXECUTE'), false) END \
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_roles r ON r.oid = c.relowner \
    WHERE i.inhparent = $1 AND c.relkind = 'r' ORDER BY 1";

const COLUMN: &str = "\
    SELECT atttypid, format_type(atttypid, atttypmod) FROM pg_attribute \
    WHERE attrelid = $1 AND attname = $2 AND attnum > 0 AND NOT attisdropped";

/// What is looked at, in the report.
const WHAT: &str = "retention";

/// Whether rows are kept for long enough, by when JetStream syncs and for how long the stream keeps its events.
pub(super) fn period(
    config: &Config,
    interval: Option<Duration>,
    max_age: Option<Duration>,
    report: &mut Report,
) {
    let Some(seconds) = config.retention.seconds else {
        return;
    };
    let what = "retention period";
    let all = enough::shortages(config, &Synced::of(interval), max_age);
    if all.is_empty() {
        report.ok(what, format!("{seconds} s"));
    }
    for short in all {
        report.wrong(what, short.text, short.mend);
    }
}

/// Looks, where retention is asked for.
pub(super) async fn look(
    sql: &Client,
    config: &Config,
    layout: &Layout,
    (rights, types): (&Rights, &Types),
    report: &mut Report,
) -> Result<()> {
    if config.retention.seconds.is_none() {
        return Ok(());
    }
    let table = config.source.table.quoted();
    let row = sql.query_one(TABLE, &[&table]).await;
    let row = row.map_err(|e| failed(&e))?;
    let oid: Oid = row.try_get(0).map_err(|e| failed(&e))?;
    let flag = |at: usize| row.try_get::<_, bool>(at).map_err(|e| failed(&e));
    let publications: Option<String> = row.try_get(3).map_err(|e| failed(&e))?;
    age(sql, oid, config, layout, types, report).await?;
    if partitions(sql, config, (oid, &table), rights, report).await? {
        return Ok(());
    }
    let role = quote(&rights.user);
    if !flag(1)? {
        report.wrong(
            WHAT,
            format!(
                "{} may not delete from {table}, which then grows for ever",
                rights.user
            ),
            format!("GRANT DELETE ON {table} TO {role}, or leave CDC_RETENTION_SECONDS out"),
        );
    } else if let (true, Some(names)) = (flag(2)?, publications) {
        report.wrong(
            WHAT,
            format!("{table} has no replica identity, and Postgres refuses to delete from it while {names} publishes deletes"),
            format!("ALTER PUBLICATION … SET (publish = 'insert'), or give {table} a primary key"),
        );
    } else {
        report.ok(WHAT, format!("{} may delete from {table}", rights.user));
    }
    Ok(())
}

/// Whether the table has partitions; if so, whether all may go.
async fn partitions(
    sql: &Client,
    config: &Config,
    (table_oid, table): (Oid, &str),
    rights: &Rights,
    report: &mut Report,
) -> Result<bool> {
    let function = config.retention.function.as_ref().map(signature);
    let rows = sql.query(PARTITIONS, &[&table_oid, &function]).await;
    let rows = rows.map_err(|e| failed(&e))?;
    let mut refused = Vec::new();
    for row in &rows {
        let text = |at: usize| row.try_get::<_, String>(at).map_err(|e| failed(&e));
        let flag = |at: usize| row.try_get::<_, bool>(at).map_err(|e| failed(&e));
        if !flag(3)? {
            refused.push((text(0)?, text(1)?, flag(2)?));
        }
    }
    let role = quote(&rights.user);
    match refused.as_slice() {
        [] if rows.is_empty() => return Ok(false),
        [] => report.ok(
            WHAT,
            format!("{} may drop the partitions of {table}", rights.user),
        ),
        [(partition, owner, is_superuser), ..] => report.wrong(
            WHAT,
            format!(
                "{} may not drop {} of the {} partitions of {table}, such as {partition}: it belongs to {owner}",
                rights.user,
                refused.len(),
                rows.len()
            ),
            match is_superuser {
                _ if function.is_some() => format!(
                    "GRANT EXECUTE ON FUNCTION {} TO {role}, and SELECT and DELETE on the default partition; \
                     `cdc-relay init` prints both",
                    function.unwrap_or_default()
                ),
                // A superuser's rights are not what a relay should have.
                true => format!(
                    "give {table} and its partitions to a role that is no superuser, and GRANT that role TO {role}"
                ),
                false => format!("GRANT {} TO {role}", quote(owner)),
            },
        ),
    }
    Ok(true)
}

/// How Postgres tells the function from others of its name.
pub(crate) fn signature(function: &Table) -> String {
    format!("{}(regclass, boolean)", function.quoted())
}

/// Whether rows tell when they were written.
async fn age(
    sql: &Client,
    table_oid: Oid,
    config: &Config,
    layout: &Layout,
    types: &Types,
    report: &mut Report,
) -> Result<()> {
    let by_id = config.retention.column.is_none();
    let name = config
        .retention
        .column
        .as_ref()
        .unwrap_or(&layout.texts[ID]);
    let row = sql.query_opt(COLUMN, &[&table_oid, name]).await;
    let Some(row) = row.map_err(|e| failed(&e))? else {
        if !by_id {
            let text = format!("there is no column {name} that tells when a row was written");
            report.wrong(WHAT, text, "add it, or mend CDC_RETENTION_COLUMN");
        }
        return Ok(());
    };
    let type_oid: Oid = row.try_get(0).map_err(|e| failed(&e))?;
    let type_oid = types.base(type_oid);
    let type_name: String = row.try_get(1).map_err(|e| failed(&e))?;
    if by_id && !tells_time(type_oid) {
        report.wrong(
            WHAT,
            format!("{name}: {type_name}, and such ids do not tell when a row was written"),
            "set CDC_RETENTION_COLUMN to a timestamptz column, or use UUIDv7 ids",
        );
    } else if !by_id && type_oid != TIMESTAMPTZ {
        report.wrong(
            WHAT,
            format!("{name}: {type_name}, which does not tell when a row was written whatever the time zone"),
            format!("make {} a timestamptz", quote(name)),
        );
    }
    Ok(())
}
