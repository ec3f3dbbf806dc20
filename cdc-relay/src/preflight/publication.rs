//! The publication: what of the table reaches the slot.

use tokio_postgres::{Client, Row};

use super::{Report, failed, role::Rights};
use crate::{config::Config, error::Result, record::Layout, slot::create_statement, wal::quote};

const PUBLICATION: &str = "\
    SELECT p.pubinsert, p.pubviaroot, t.tablename IS NOT NULL, t.attnames::text[], t.rowfilter \
    FROM pg_publication p LEFT JOIN pg_publication_tables t \
        ON t.pubname = p.pubname AND t.schemaname = $2 AND t.tablename = $3 \
    WHERE p.pubname = $1";

pub(super) async fn look(
    sql: &Client,
    config: &Config,
    layout: &Layout,
    may_create: bool,
    is_partitioned: bool,
    report: &mut Report,
) -> Result<()> {
    let source = &config.source;
    let (name, table) = (&source.publication, &source.table);
    let row = sql
        .query_opt(PUBLICATION, &[name, &table.schema, &table.name])
        .await;
    let Some(row) = row.map_err(|e| failed(&e))? else {
        if may_create {
            report.ok(
                "publication",
                format!("{name} does not exist: the relay makes it"),
            );
        } else {
            let text = format!(
                "{name} does not exist, and the role may not make it: that needs CREATE on the database, and \
                 ownership of the table"
            );
            report.wrong("publication", text, create_statement(source));
        }
        return Ok(());
    };
    let quoted = quote(name);
    if let Some((text, mend)) = flaw(&row, &table.quoted(), layout, is_partitioned)? {
        let mend = format!("ALTER PUBLICATION {quoted} {mend}");
        report.wrong("publication", format!("{name} {text}"), mend);
        return Ok(());
    }
    let filter: Option<String> = row.try_get(4).map_err(|e| failed(&e))?;
    match filter {
        Some(filter) => report.warning(
            "publication",
            format!("{name} leaves out rows by WHERE {filter}, which the first copy does not"),
            format!("ALTER PUBLICATION {quoted} SET TABLE {}", table.quoted()),
        ),
        None => report.ok(
            "publication",
            format!("{name} publishes the inserts of the table"),
        ),
    }
    Ok(())
}

/// Messages need a publication to be named, whatever is in it.
pub(super) async fn exists(
    sql: &Client,
    config: &Config,
    rights: &Rights,
    report: &mut Report,
) -> Result<()> {
    let name = &config.source.publication;
    let exists = "SELECT FROM pg_publication WHERE pubname = $1";
    let row = sql.query_opt(exists, &[name]).await;
    match row.map_err(|e| failed(&e))? {
        Some(_) => report.ok("publication", format!("{name} exists")),
        None if rights.creates => {
            report.ok(
                "publication",
                format!("{name} does not exist: the relay makes it"),
            );
        }
        None => report.wrong(
            "publication",
            format!("{name} does not exist, and the role lacks CREATE on the database"),
            create_statement(&config.source),
        ),
    }
    Ok(())
}

/// What is wrong with it, and what `ALTER PUBLICATION` mends that.
fn flaw(
    row: &Row,
    table: &str,
    layout: &Layout,
    is_partitioned: bool,
) -> Result<Option<(String, String)>> {
    let flag = |at: usize| row.try_get::<_, bool>(at).map_err(|e| failed(&e));
    let flaw = |text: &str, mend: &str| Ok(Some((text.to_owned(), mend.to_owned())));
    // In this order: without publish_via_partition_root only the partitions are listed as tables.
    if is_partitioned && !flag(1)? {
        let mend = "SET (publish_via_partition_root = true)";
        return flaw("gives rows the names of partitions", mend);
    }
    if !flag(2)? {
        return flaw("leaves the table out", &format!("ADD TABLE {table}"));
    }
    if !flag(0)? {
        return flaw("leaves inserts out", "SET (publish = 'insert')");
    }
    let listed: Vec<String> = row.try_get(3).map_err(|e| failed(&e))?;
    let needed = layout.texts.iter().chain([&layout.payload]);
    let missing: Vec<&str> = needed
        .filter(|column| !listed.contains(column))
        .map(String::as_str)
        .collect();
    if missing.is_empty() {
        return Ok(None);
    }
    let text = format!("leaves columns out: {}", missing.join(", "));
    flaw(&text, &format!("SET TABLE {table}"))
}
