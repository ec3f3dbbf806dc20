//! `init`: prints the SQL that a database needs for the relay. It connects to nothing.
//!
//! Danger: what it prints is run by a superuser. Names are quoted, and the password of `DATABASE_URL` is
//! printed only on request, and then as what Postgres itself would store.

use std::io::{self, Write as _};

use anyhow::Context as _;
use clap::Args;
use postgres_protocol::password::scram_sha_256;

use crate::{
    config::{Config, Table},
    preflight::signature,
    record::Layout,
    slot::create_statement,
    wal::{literal, quote},
};

#[derive(Args, Clone, Debug)]
pub struct Init {
    #[command(flatten)]
    pub config: Config,
    /// The role that the relay logs in as, if not the user of DATABASE_URL
    #[arg(long, value_name = "NAME")]
    pub role: Option<String>,
    /// Sets the role's password to the one in DATABASE_URL or DATABASE_PASSWORD_FILE; what is printed is its SCRAM-SHA-256 secret
    #[arg(long)]
    pub with_password: bool,
}

/// Prints.
///
/// # Errors
/// When the settings name no user or no password where one is needed, or standard output is closed.
pub fn run(init: &Init) -> anyhow::Result<()> {
    io::stdout().write_all(script(init)?.as_bytes())?;
    Ok(())
}

fn script(init: &Init) -> anyhow::Result<String> {
    let config = &init.config;
    let parameters = config.source.database_url.parameters();
    let user = parameters
        .get_user()
        .context("DATABASE_URL names no user")?;
    let role = init.role.as_deref().unwrap_or(user);
    let database = parameters.get_dbname().unwrap_or(user);
    let password = match init.with_password {
        false => None,
        true => {
            let password = config.source.database_url.password();
            let password = password.map_err(anyhow::Error::msg)?;
            let password = password.context(
                "--with-password: neither DATABASE_URL nor DATABASE_PASSWORD_FILE has one",
            )?;
            Some(scram_sha_256(password.expose().as_bytes()))
        }
    };
    Ok([
        head(database),
        role_sql(role, password.as_deref()),
        table_sql(config),
        rights_sql(config, role, database),
        retention_sql(config, role),
        publication_sql(config),
        "COMMIT;\n".to_owned(),
        SERVER.to_owned(),
    ]
    .join("\n"))
}

/// What no role but a superuser may change, and no transaction.
const SERVER: &str = "\
-- The server. These two the relay cannot do without; wal_level and the numbers need a restart:
--   ALTER SYSTEM SET wal_level = 'logical';
--   ALTER SYSTEM SET max_replication_slots = 10;  ALTER SYSTEM SET max_wal_senders = 10;
-- And a bound on the WAL that a relay which is gone for good may pin: as much as the disk can spare.
--   ALTER SYSTEM SET max_slot_wal_keep_size = '64GB';  SELECT pg_reload_conf();
-- `cdc-relay check` tells what is left to do.
";

fn head(database: &str) -> String {
    format!(
        "-- What cdc-relay needs of this database. All of it or nothing; it can be run again.
--   cdc-relay init | psql -v ON_ERROR_STOP=1 -d {database}     as a superuser
BEGIN;

DO $init$
BEGIN
    IF current_database() <> {name} THEN
        RAISE EXCEPTION 'this is database %, and the relay reads %', current_database(), {name};
    END IF;
    IF current_setting('wal_level') <> 'logical' THEN
        RAISE WARNING 'wal_level is %: ALTER SYSTEM SET wal_level = logical, and restart Postgres',
            current_setting('wal_level');
    END IF;
END
$init$;
",
        name = literal(database)
    )
}

fn role_sql(role: &str, password: Option<&str>) -> String {
    let (quoted, name) = (quote(role), literal(role));
    let mut sql = format!(
        "-- The role that the relay logs in as.
DO $init$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {name}) THEN
        CREATE ROLE {quoted};
    END IF;
END
$init$;
ALTER ROLE {quoted} LOGIN REPLICATION;
"
    );
    match password {
        Some(secret) => sql.push_str(&format!(
            "ALTER ROLE {quoted} PASSWORD {};\n",
            literal(secret)
        )),
        None => sql.push_str(&format!("--   \\password {quoted}\n")),
    }
    sql
}

fn table_sql(config: &Config) -> String {
    if let Some(prefix) = &config.source.message_prefix {
        return format!(
            "-- No table: events are what pg_logical_emit_message(true, {}, …) writes.\n",
            literal(prefix)
        );
    }
    let (table, columns) = (&config.source.table, &config.columns);
    let layout = Layout::of(columns, &config.message);
    let mut lines = Vec::new();
    let mut line = |name: &str, what: &str| lines.push(format!("    {} {what}", quote(name)));
    let by_id = config.retention.seconds.is_some() && config.retention.column.is_none();
    for (at, name) in layout.texts.iter().enumerate() {
        match at {
            // A default would make ids that do not tell their time.
            0 if by_id => line(name, "uuid PRIMARY KEY"),
            0 => line(name, "uuid PRIMARY KEY DEFAULT gen_random_uuid()"),
            _ if [&columns.time, &config.retention.column].contains(&&Some(name.clone())) => {
                line(name, "timestamptz NOT NULL DEFAULT now()")
            }
            _ if layout.is_required(at) => line(name, "text NOT NULL"),
            _ => line(name, "text"),
        }
    }
    line(&layout.payload, "jsonb NOT NULL");
    line(&layout.headers, "jsonb");
    if let Some(written) = written_column(config, &layout) {
        line(written, "timestamptz NOT NULL DEFAULT now()");
    }
    let note = match by_id {
        true => {
            "\n-- Rows are removed by their age: write UUIDv7 ids, or DEFAULT uuidv7() from Postgres 18 on."
        }
        false => "",
    };
    format!(
        "-- The outbox, if it is not there yet. The id may also be text or bigint, the payload bytea, json or
-- text; partitions by range of the id make it cheap to prune.{note}
CREATE SCHEMA IF NOT EXISTS {schema};
CREATE TABLE IF NOT EXISTS {table} (
{lines}
);
",
        schema = quote(&table.schema),
        table = table.quoted(),
        lines = lines.join(",\n")
    )
}

fn rights_sql(config: &Config, role: &str, database: &str) -> String {
    let (table, role) = (&config.source.table, quote(role));
    if config.source.message_prefix.is_some() {
        return format!(
            "GRANT CONNECT, TEMPORARY ON DATABASE {} TO {role};\n",
            quote(database)
        );
    }
    format!(
        "-- What it may do: follow the log, read the table, and compare it with the stream in a temporary one.
GRANT CONNECT, TEMPORARY ON DATABASE {database} TO {role};
GRANT USAGE ON SCHEMA {schema} TO {role};
GRANT SELECT ON {table} TO {role};
",
        database = quote(database),
        schema = quote(&table.schema),
        table = table.quoted()
    )
}

/// The column by which old rows are told, if nothing else is read of it.
fn written_column<'a>(config: &'a Config, layout: &Layout) -> Option<&'a String> {
    config.retention.seconds?;
    let column = config.retention.column.as_ref();
    column.filter(|name| !layout.texts.contains(name))
}

/// What retention needs. Partitions are dropped, which only their owners may; a superuser's rights are
/// not given away for it.
fn retention_sql(config: &Config, role: &str) -> String {
    if config.retention.seconds.is_none() || config.source.message_prefix.is_some() {
        return String::new();
    }
    let (table, quoted, name) = (config.source.table.quoted(), quote(role), literal(role));
    if let Some(function) = &config.retention.function {
        return retention_as_owner(&table, function, &quoted);
    }
    format!(
        "-- To remove what is old (CDC_RETENTION_SECONDS): rows are deleted, and partitions dropped by whoever has
-- their owner's rights.
GRANT DELETE ON {table} TO {quoted};
DO $init$
DECLARE
    owner record;
BEGIN
    FOR owner IN SELECT DISTINCT r.oid, r.rolname, r.rolsuper
                 FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_roles r ON r.oid = c.relowner
                 WHERE i.inhparent = {parent}::regclass
    LOOP
        IF owner.rolsuper THEN
            RAISE WARNING 'partitions of % belong to the superuser %, so the relay cannot drop them: give table and partitions to a role of their own, and run this again',
                {parent}, owner.rolname;
        ELSIF NOT pg_has_role({name}, owner.oid, 'USAGE') THEN
            EXECUTE format('GRANT %I TO %I', owner.rolname, {name});
        END IF;
    END LOOP;
END
$init$;
",
        parent = literal(&table)
    )
}

/// What retention needs where a function drops partitions: none of the owner's other rights.
fn retention_as_owner(table: &str, function: &Table, role: &str) -> String {
    format!(
        "-- To remove what is old (CDC_RETENTION_SECONDS): partitions are dropped by this function, with the rights of
-- the table's owner, and rows deleted from the default partition alone.
DO $init$
DECLARE
    fallback regclass;
BEGIN
    IF to_regprocedure({signature_text}) IS NULL THEN
        CREATE FUNCTION {function}(part regclass, is_published boolean) RETURNS void
        LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms' AS $retire$
        BEGIN
            IF NOT EXISTS (SELECT FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
                           WHERE i.inhparent = {parent}::regclass AND c.oid = part
                           AND pg_get_expr(c.relpartbound, c.oid) <> 'DEFAULT') THEN
                RAISE EXCEPTION '% is no partition of % that may go', part, {parent};
            END IF;
            -- First writers are kept out, to the end of the transaction; then it goes.
            EXECUTE format(CASE WHEN is_published THEN 'DROP TABLE %s' ELSE 'LOCK TABLE %s IN SHARE MODE' END, part);
        END
        $retire$;
        EXECUTE format('ALTER FUNCTION %s OWNER TO %I', {signature_text},
            (SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = {parent}::regclass));
        REVOKE ALL ON FUNCTION {signature} FROM PUBLIC;
    END IF;
    GRANT EXECUTE ON FUNCTION {signature} TO {role};
    SELECT c.oid INTO fallback FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = {parent}::regclass AND pg_get_expr(c.relpartbound, c.oid) = 'DEFAULT';
    IF fallback IS NOT NULL THEN
        EXECUTE format('GRANT SELECT, DELETE ON %s TO %s', fallback, {role_text});
    END IF;
END
$init$;
",
        signature = signature(function),
        signature_text = literal(&signature(function)),
        function = function.quoted(),
        parent = literal(table),
        role_text = literal(role),
    )
}

fn publication_sql(config: &Config) -> String {
    let source = &config.source;
    let (name, table) = (literal(&source.publication), &source.table);
    if source.message_prefix.is_some() {
        return format!(
            "-- Messages belong to no publication, and Postgres wants to be named one all the same.
DO $init$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_publication WHERE pubname = {name}) THEN
        {};
    END IF;
END
$init$;
",
            create_statement(source)
        );
    }
    format!(
        "-- What of the log it is sent.
DO $init$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_publication WHERE pubname = {name}) THEN
        {create};
    ELSIF NOT EXISTS (SELECT FROM pg_publication_tables WHERE pubname = {name}
                      AND schemaname = {schema} AND tablename = {table_name}) THEN
        ALTER PUBLICATION {quoted} ADD TABLE {table};
    END IF;
END
$init$;
",
        create = create_statement(source),
        schema = literal(&table.schema),
        table_name = literal(&table.name),
        quoted = quote(&source.publication),
        table = table.quoted()
    )
}
