//! The outbox table and its columns.

use tokio_postgres::{Client, Row};

use super::{Report, failed, publication, retention, role::Rights};
use crate::{
    config::Config,
    error::Result,
    record::{BYTEA, ID, Layout, Role},
    types::Types,
    wal::quote,
};

const TABLE: &str = "\
    SELECT c.relkind::text, c.relpersistence::text, has_table_privilege(c.oid, 'SELECT') \
               AND has_schema_privilege(n.oid, 'USAGE'), \
           pg_has_role(c.relowner, 'USAGE'), c.relrowsecurity AND NOT pg_has_role(c.relowner, 'USAGE') \
               AND NOT (SELECT rolbypassrls OR rolsuper FROM pg_roles WHERE rolname = current_user), \
           EXISTS (SELECT FROM pg_index i JOIN pg_attribute a \
                       ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] \
                   WHERE i.indrelid = c.oid AND i.indisunique AND a.attname = $3 \
                     AND i.indpred IS NULL AND (i.indnkeyatts = 1 OR c.relkind = 'p')) \
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
    WHERE n.nspname = $1 AND c.relname = $2";

const COLUMNS: &str = "\
    SELECT attname::text, atttypid, format_type(atttypid, atttypmod), attnotnull, attgenerated <> '' \
    FROM pg_attribute WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped";

/// How many of the newest rows are measured: enough to see what is usual, and quick.
const MEASURED_ROWS: u32 = 10_000;

pub(super) async fn look(
    sql: &Client,
    config: &Config,
    layout: &Layout,
    rights: &Rights,
    report: &mut Report,
) -> Result<Option<usize>> {
    let table = &config.source.table;
    let quoted = table.quoted();
    let row = sql
        .query_opt(TABLE, &[&table.schema, &table.name, &layout.texts[ID]])
        .await;
    let Some(row) = row.map_err(|e| failed(&e))? else {
        report.wrong(
            "table",
            format!("there is no {quoted}"),
            "create it (`cdc-relay init` prints one), or mend CDC_TABLE",
        );
        return Ok(None);
    };
    let flag = |at: usize| row.try_get::<_, bool>(at).map_err(|e| failed(&e));
    let kind: String = row.try_get(0).map_err(|e| failed(&e))?;
    let persistence: String = row.try_get(1).map_err(|e| failed(&e))?;
    match (kind.as_str(), persistence.as_str()) {
        ("r" | "p", "p") => report.ok("table", quoted.clone()),
        ("r" | "p", _) => report.wrong(
            "table",
            format!("{quoted} is unlogged or temporary: its rows are not in the WAL"),
            format!("ALTER TABLE {quoted} SET LOGGED"),
        ),
        _ => report.wrong(
            "table",
            format!("{quoted} is no table"),
            "name the table itself in CDC_TABLE, not a view",
        ),
    }
    readable(&row, config, rights, report)?;
    if !flag(5)? {
        let id = quote(&layout.texts[ID]);
        report.warning(
            "ids",
            format!("no unique index says that {id} of {quoted} is unique, and JetStream drops a repeated id"),
            format!("CREATE UNIQUE INDEX CONCURRENTLY ON {quoted} ({id})"),
        );
    }
    let types = Types::read(sql).await?;
    let payload_type = columns(sql, config, layout, &types, report).await?;
    let may_create = rights.creates && flag(3)?;
    publication::look(sql, config, layout, may_create, kind == "p", report).await?;
    retention::look(sql, config, layout, (rights, &types), report).await?;
    match payload_type {
        Some(payload_type) if flag(2)? => largest(sql, layout, &quoted, payload_type).await,
        _ => Ok(None),
    }
}

/// Whether the first copy sees all rows.
fn readable(row: &Row, config: &Config, rights: &Rights, report: &mut Report) -> Result<()> {
    let table = &config.source.table;
    let quoted = table.quoted();
    let flag = |at: usize| row.try_get::<_, bool>(at).map_err(|e| failed(&e));
    if !flag(2)? {
        report.wrong(
            "SELECT",
            format!("{} may not read {quoted}", rights.user),
            format!(
                "GRANT USAGE ON SCHEMA {} TO {role}; GRANT SELECT ON {quoted} TO {role}",
                quote(&table.schema),
                role = quote(&rights.user)
            ),
        );
    }
    if flag(4)? {
        report.wrong(
            "row security",
            format!(
                "{} sees only some rows of {quoted}, and the first copy would leave others out",
                rights.user
            ),
            format!("ALTER ROLE {} BYPASSRLS", quote(&rights.user)),
        );
    }
    Ok(())
}

async fn columns(
    sql: &Client,
    config: &Config,
    layout: &Layout,
    types: &Types,
    report: &mut Report,
) -> Result<Option<u32>> {
    let rows = sql.query(COLUMNS, &[&config.source.table.quoted()]).await;
    let rows = rows.map_err(|e| failed(&e))?;
    let find = |name: &str| {
        rows.iter()
            .find(|row| row.try_get::<_, &str>(0).is_ok_and(|known| known == name))
    };
    let texts = layout.texts.iter().enumerate();
    for (at, name) in texts {
        let found = find(name);
        column(
            name,
            found,
            (Role::Text, types),
            layout.is_required(at),
            report,
        )?;
    }
    column(
        &layout.payload,
        find(&layout.payload),
        (Role::Payload, types),
        true,
        report,
    )?;
    match find(&layout.headers) {
        None if !layout.needs_headers => {
            report.ok(
                "column",
                format!("{}: none, so rows bring no headers", layout.headers),
            );
        }
        found => column(
            &layout.headers,
            found,
            (Role::Headers, types),
            false,
            report,
        )?,
    }
    let payload = find(&layout.payload).map(|row| row.try_get(1).map_err(|e| failed(&e)));
    Ok(payload.transpose()?.map(|type_oid| types.base(type_oid)))
}

fn column(
    name: &str,
    row: Option<&Row>,
    (role, types): (Role, &Types),
    is_required: bool,
    report: &mut Report,
) -> Result<()> {
    let Some(row) = row else {
        let mend = "add it, or name another in [columns] (CDC_COLUMN_…) or CDC_SUBJECT";
        report.wrong("column", format!("there is no column {name}"), mend);
        return Ok(());
    };
    let type_oid: u32 = row.try_get(1).map_err(|e| failed(&e))?;
    let type_name: String = row.try_get(2).map_err(|e| failed(&e))?;
    let flag = |at: usize| row.try_get::<_, bool>(at).map_err(|e| failed(&e));
    let text = format!("{name}: {type_name}");
    if !role.takes(types.base(type_oid)) {
        let mend = format!("use {}", role.wanted());
        report.wrong(
            "column",
            format!("{text}, which the relay cannot read"),
            mend,
        );
    } else if flag(4)? {
        let text = format!("{text}, generated, and logical replication leaves such columns out");
        report.wrong("column", text, "let a trigger or a default fill it");
    } else if is_required && !flag(3)? {
        report.warning(
            "column",
            format!("{text}, which may be NULL, and a row with a NULL there cannot be published"),
            format!("ALTER TABLE … ALTER COLUMN {} SET NOT NULL", quote(name)),
        );
    } else {
        report.ok("column", text);
    }
    Ok(())
}

/// Bytes of the largest payload among the newest rows.
async fn largest(
    sql: &Client,
    layout: &Layout,
    table: &str,
    payload_type: u32,
) -> Result<Option<usize>> {
    let (id, payload) = (quote(&layout.texts[ID]), quote(&layout.payload));
    // As text, a bytea would count twice.
    let text = if payload_type == BYTEA { "" } else { "::text" };
    let query = format!(
        "SELECT max(octet_length(payload))::bigint FROM \
         (SELECT {payload}{text} AS payload FROM {table} ORDER BY {id} DESC LIMIT {MEASURED_ROWS}) newest"
    );
    // A column that is missing has been told already.
    let Ok(row) = sql.query_one(&query, &[]).await else {
        return Ok(None);
    };
    let largest: Option<i64> = row.try_get(0).map_err(|e| failed(&e))?;
    Ok(largest.and_then(|bytes| usize::try_from(bytes).ok()))
}
