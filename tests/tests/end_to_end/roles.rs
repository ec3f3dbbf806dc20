//! What each role of a database may do, tried: every table with every verb, and what would lead around the
//! grants. All of it on a running system, which shows with every other test that the grants suffice.

mod tables;

use std::process::Command;

use harness::{Role, Side, System, binary};
use serde_json::Value;
use tokio_postgres::Client;

use crate::shared::on_shared_system;

/// insufficient_privilege
const DENIED: &str = "42501";
/// invalid_parameter_value: what the owner's functions say to who asks for more than they do.
const OUT_OF_BOUNDS: &str = "22023";

/// The roles that use a database without owning it.
const USERS: [Role; 3] = [Role::Service, Role::Relay, Role::Auditor];

/// Nobody but the owner and the superuser may, in the orders' database.
const FORBIDDEN: [&str; 32] = [
    "CREATE TABLE public.mine (a int)",
    "CREATE SCHEMA mine",
    "CREATE FUNCTION public.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE OR REPLACE FUNCTION public.outbox_retire(part regclass, is_published boolean) RETURNS void \
     LANGUAGE sql AS ''",
    "ALTER FUNCTION public.outbox_retire(regclass, boolean) SECURITY INVOKER",
    "CREATE INDEX ON public.outbox (type)",
    "ALTER TABLE public.orders ADD COLUMN mine int",
    "ALTER TABLE public.orders DROP CONSTRAINT orders_total_positive",
    "ALTER TABLE public.outbox DISABLE TRIGGER ALL",
    "ALTER TABLE public.orders OWNER TO CURRENT_USER",
    "CREATE TRIGGER mine BEFORE INSERT ON public.orders FOR EACH ROW \
     EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "DROP TABLE public.outbox_default",
    "DROP TABLE public.mailbox_migrations",
    "LOCK TABLE public.outbox IN ACCESS EXCLUSIVE MODE",
    "CREATE PUBLICATION mine FOR TABLE public.outbox",
    "ALTER PUBLICATION cdc_relay SET (publish = 'delete')",
    "DROP PUBLICATION cdc_relay",
    "SET ROLE orders",
    "SET SESSION AUTHORIZATION postgres",
    "SET session_replication_role = replica",
    "GRANT orders TO CURRENT_USER",
    "GRANT ALL ON public.orders_migrations_of_nobody TO CURRENT_USER",
    "ALTER ROLE CURRENT_USER SUPERUSER",
    "ALTER ROLE orders PASSWORD 'mine'",
    "CREATE ROLE mine",
    "COPY (SELECT 1) TO PROGRAM 'true'",
    "COPY (SELECT 1) TO '/tmp/mine'",
    "SELECT pg_read_file('postgresql.conf')",
    "SELECT lo_export(1, '/tmp/mine')",
    "SELECT pg_reload_conf()",
    "SELECT public.mailbox_ensure_partitions('public.outbox', current_date + 90, 1)",
    "SELECT public.requests_maintain(current_date, current_date + 90)",
];

/// What one of them may and the others may not, with its SQL.
const OF_ONE: [(Role, &str); 9] = [
    (Role::Relay, "CREATE TEMPORARY TABLE mine (a int)"),
    (
        Role::Relay,
        "SELECT pg_create_logical_replication_slot('mine', 'pgoutput', true)",
    ),
    (
        Role::Relay,
        "SELECT pg_drop_replication_slot('there_is_none')",
    ),
    (
        Role::Relay,
        "SELECT public.outbox_retire('public.outbox_default', false)",
    ),
    (Role::Auditor, "SELECT id FROM public.outbox LIMIT 1"),
    (Role::Service, "SELECT public.mailbox_prepare_days(1)"),
    (Role::Service, "SELECT public.requests_keep(86400)"),
    (
        Role::Service,
        "SELECT public.inbox_forget(8640000000, NULL)",
    ),
    (
        Role::Service,
        "SELECT public.inbox_forget_strays('2020-01-01', 86400)",
    ),
];

/// Functions of the owner that are asked for more than they do.
const BEYOND: [(Role, &str); 12] = [
    (Role::Service, "SELECT public.mailbox_prepare_days(100000)"),
    (Role::Service, "SELECT public.mailbox_prepare_days(NULL)"),
    (Role::Service, "SELECT public.requests_keep(0)"),
    (Role::Service, "SELECT public.requests_keep('NaN')"),
    (Role::Service, "SELECT public.inbox_forget(0, NULL)"),
    (Role::Service, "SELECT public.inbox_forget(-1, NULL)"),
    (
        Role::Service,
        "SELECT public.inbox_forget_strays(current_date, 0)",
    ),
    (
        Role::Relay,
        "SELECT public.outbox_retire('public.outbox_default', true)",
    ),
    (
        Role::Relay,
        "SELECT public.outbox_retire('public.outbox', true)",
    ),
    (
        Role::Relay,
        "SELECT public.outbox_retire('public.orders', true)",
    ),
    (
        Role::Relay,
        "SELECT public.outbox_retire(\
         ('public.outbox_' || to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD'))::regclass, true)",
    ),
    // A table of one's own with the name of a catalogue does not lead astray what runs as the owner.
    (
        Role::Relay,
        "CREATE TEMPORARY TABLE pg_inherits AS SELECT 'public.orders'::regclass::oid AS inhrelid, \
         'public.outbox'::regclass::oid AS inhparent; \
         SET LOCAL search_path = pg_temp, pg_catalog; \
         SELECT public.outbox_retire('public.orders', true)",
    ),
];

/// The SQLSTATE that a statement ends with, if any; nothing of it stays.
async fn tried(client: &Client, statement: &str) -> Option<String> {
    // The auditor's sessions are read-only by default, which is no right that could not be taken.
    let begin = "BEGIN; SET TRANSACTION READ WRITE; SET LOCAL lock_timeout = '5s'";
    client.batch_execute(begin).await.expect("a transaction");
    let outcome = client.batch_execute(statement).await;
    client.batch_execute("ROLLBACK").await.expect("its end");
    outcome.err().map(|error| {
        let code = error
            .code()
            .unwrap_or_else(|| panic!("{statement}: {error:?}"));
        code.code().to_owned()
    })
}

async fn connected(system: &System, side: Side, role: Role) -> Client {
    let client = system.database_as(side, role).await;
    client.unwrap_or_else(|error| panic!("{role} of {side:?}: {error:#}"))
}

#[test]
fn no_role_that_uses_a_database_makes_or_changes_what_is_in_it() {
    on_shared_system(async |system| {
        let nobodys = "CREATE TABLE IF NOT EXISTS public.orders_migrations_of_nobody ()";
        let owner = connected(system, Side::Orders, Role::Owner).await;
        owner.batch_execute(nobodys).await.unwrap();
        for role in USERS {
            let client = connected(system, Side::Orders, role).await;
            for statement in FORBIDDEN {
                let code = tried(&client, statement).await;
                assert_eq!(code.as_deref(), Some(DENIED), "{role}: {statement}");
            }
            // Not in a transaction; and the auditor's are read-only by default, which it can undo.
            let writes = "SET default_transaction_read_only = off";
            client.batch_execute(writes).await.unwrap();
            for statement in [
                "ALTER SYSTEM SET wal_level = minimal",
                "CREATE DATABASE mine",
            ] {
                let error = client.batch_execute(statement).await.unwrap_err();
                let code = error.code().map(|code| code.code());
                assert_eq!(code, Some(DENIED), "{role}: {statement}");
            }
        }
    });
}

#[test]
fn what_one_role_may_do_the_others_may_not() {
    on_shared_system(async |system| {
        for role in USERS {
            let client = connected(system, Side::Orders, role).await;
            for (of, statement) in OF_ONE {
                let code = tried(&client, statement).await;
                // It may end for another reason, such as a slot that is not there.
                let is_denied = code.as_deref() == Some(DENIED);
                // The relay reads the outbox too.
                let may = of == role || (role == Role::Relay && statement.starts_with("SELECT id"));
                assert_eq!(is_denied, !may, "{role}: {statement}: {code:?}");
            }
        }
    });
}

#[test]
fn the_owners_functions_do_no_more_than_they_are_for() {
    on_shared_system(async |system| {
        for (role, statement) in BEYOND {
            let client = connected(system, Side::Orders, role).await;
            let code = tried(&client, statement).await;
            assert_eq!(code.as_deref(), Some(OUT_OF_BOUNDS), "{role}: {statement}");
        }
    });
}

#[test]
fn a_role_comes_into_its_own_database_alone_and_is_nothing_besides() {
    on_shared_system(async |system| {
        let pairs = [
            (Side::Orders, Side::Customers),
            (Side::Customers, Side::Orders),
        ];
        for (side, other) in pairs {
            for role in Role::ALL {
                let name = role.of(side);
                let refused = system.postgres().connect_as(&name, other.database()).await;
                let refused = refused.map(drop).expect_err("it connects");
                let error = refused.downcast_ref::<tokio_postgres::Error>();
                let code = error.and_then(|error| error.code()).map(|code| code.code());
                assert_eq!(code, Some(DENIED), "{name}: {refused:#}");
            }
        }
        let superuser = system.database(Side::Orders).await.unwrap();
        let attributes = "SELECT rolsuper OR rolcreaterole OR rolcreatedb OR rolbypassrls, rolreplication, \
            EXISTS (SELECT FROM pg_auth_members m WHERE m.member = r.oid OR m.roleid = r.oid) \
            FROM pg_roles r WHERE rolname = $1";
        for (side, role) in pairs
            .iter()
            .flat_map(|(side, _)| Role::ALL.map(|role| (*side, role)))
        {
            let name = role.of(side);
            let row = superuser.query_one(attributes, &[&name]).await.unwrap();
            let flags = [0, 1, 2].map(|at| row.get::<_, bool>(at));
            assert_eq!(flags, [false, role == Role::Relay, false], "{name}");
        }
    });
}

#[test]
fn the_log_is_followed_by_the_relay_alone() {
    on_shared_system(async |system| {
        for role in USERS {
            let url = system.database_url(Side::Orders, role);
            let mut check = Command::new(binary("cdc-relay").unwrap());
            check
                .args(["check", "--json"])
                .env("DATABASE_URL", url)
                .env("NATS_URL", system.nats().url())
                .env("CDC_SLOT", Side::Orders.slot())
                .env("CDC_STREAM", Side::Orders.stream())
                .env("CDC_STREAM_SUBJECTS", Side::Orders.subjects());
            let output = tokio::task::spawn_blocking(move || check.output());
            let output = output.await.unwrap().unwrap();
            let report: Value = serde_json::from_slice(&output.stdout)
                .unwrap_or_else(|error| panic!("{error}: {output:?}"));
            let findings = report["findings"].as_array().into_iter().flatten();
            let connection = findings
                .filter(|finding| finding["what"] == "replication connection")
                .map(|finding| finding["level"].as_str().unwrap_or_default());
            let expected = match role {
                Role::Relay => "ok",
                _ => "wrong",
            };
            assert_eq!(
                connection.collect::<Vec<_>>(),
                [expected],
                "{role}: {report:#}"
            );
        }
    });
}
