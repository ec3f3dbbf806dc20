//! Every table with every verb: what is granted works, and all else is denied. So a grant that is widened
//! fails here, and one that is narrowed too, and so does a new table that nobody has thought about.

use std::collections::{BTreeMap, BTreeSet};

use harness::{Role, Side, eventually};
use tokio_postgres::Client;

use super::{DENIED, USERS, connected, tried};
use crate::shared::on_shared_system;

const VERBS: [&str; 5] = ["SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE"];

/// What a role may do with the tables of a side, by their names.
fn granted(side: Side, role: Role) -> BTreeMap<&'static str, &'static [&'static str]> {
    let own: &[&str] = match side {
        Side::Orders => &["orders"],
        Side::Customers => &["customers", "reservations"],
    };
    match role {
        Role::Owner => unreachable!("it owns them"),
        Role::Service => [
            ("outbox", ["INSERT"].as_slice()),
            ("inbox", &["SELECT", "INSERT"]),
            ("inbox_marks", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
            ("requests", &["SELECT", "INSERT"]),
        ]
        .into_iter()
        .chain(
            own.iter()
                .map(|table| (*table, ["SELECT", "INSERT", "UPDATE"].as_slice())),
        )
        .collect(),
        Role::Relay => BTreeMap::from([
            ("outbox", ["SELECT"].as_slice()),
            ("outbox_default", &["SELECT", "DELETE"]),
        ]),
        // Of the outbox the ids alone.
        Role::Auditor => own
            .iter()
            .map(|table| (*table, ["SELECT"].as_slice()))
            .collect(),
    }
}

/// Every table of the schema, partitions and histories too, with a column of it.
async fn tables(owner: &Client) -> BTreeMap<String, String> {
    let all = "SELECT c.relname::text, (SELECT a.attname::text FROM pg_attribute a \
                   WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum LIMIT 1) \
               FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm') \
               AND c.relnatts > 0";
    let rows = owner.query(all, &[]).await.expect("the tables");
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

fn statement(verb: &str, table: &str, column: &str) -> String {
    match verb {
        "SELECT" => format!("SELECT * FROM public.\"{table}\" LIMIT 0"),
        // Where it may, it fails for the NULLs.
        "INSERT" => format!("INSERT INTO public.\"{table}\" DEFAULT VALUES"),
        "UPDATE" => format!("UPDATE public.\"{table}\" SET \"{column}\" = NULL WHERE false"),
        "DELETE" => format!("DELETE FROM public.\"{table}\" WHERE false"),
        "TRUNCATE" => format!("TRUNCATE public.\"{table}\""),
        _ => unreachable!("no such verb"),
    }
}

#[test]
fn each_role_may_do_with_each_table_what_it_is_granted_and_no_more() {
    on_shared_system(async |system| {
        for side in Side::ALL {
            let owner = connected(system, side, Role::Owner).await;
            let tables = tables(&owner).await;
            for role in USERS {
                let client = connected(system, side, role).await;
                let granted = granted(side, role);
                let known: BTreeSet<&str> = tables.keys().map(String::as_str).collect();
                assert!(
                    granted.keys().all(|table| known.contains(table)),
                    "{known:?}"
                );
                for (table, column) in &tables {
                    let may = granted.get(table.as_str()).copied().unwrap_or_default();
                    for verb in VERBS {
                        let code = tried(&client, &statement(verb, table, column)).await;
                        let is_denied = code.as_deref() == Some(DENIED);
                        let expected = !may.contains(&verb);
                        assert_eq!(
                            is_denied, expected,
                            "{role} of {side:?}: {verb} {table}: {code:?}"
                        );
                    }
                }
            }
        }
    });
}

/// What runs with the owner's rights is known by name, finds nothing by the caller's path, and is open to nobody
/// who is not granted it.
#[test]
fn functions_with_the_owners_rights_are_closed_to_everybody_else() {
    const FUNCTIONS: &str = "SELECT proname::text, \
            coalesce('search_path=pg_catalog, pg_temp' = ANY (proconfig), false), \
            EXISTS (SELECT FROM aclexplode(coalesce(proacl, acldefault('f', proowner))) WHERE grantee = 0) \
        FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND prosecdef ORDER BY 1";
    on_shared_system(async |system| {
        for side in Side::ALL {
            let owner = connected(system, side, Role::Owner).await;
            let rows = owner.query(FUNCTIONS, &[]).await.expect("the functions");
            let found = rows.iter().map(|row| (row.get(0), row.get(1), row.get(2)));
            let found: Vec<(String, bool, bool)> = found.collect();
            let expected = [
                "inbox_forget",
                "inbox_forget_strays",
                "mailbox_prepare_days",
                "outbox_retire",
                "requests_keep",
            ]
            .map(|name| (name.to_owned(), true, false));
            assert_eq!(found, expected, "{side:?}");
        }
    });
}

#[test]
fn a_grant_that_was_added_by_hand_ends_with_the_next_start_of_the_service() {
    const MORE: &str = "GRANT ALL ON public.orders, public.outbox, public.outbox_default TO orders_auditor; \
        GRANT UPDATE (state) ON public.orders TO orders_relay; \
        GRANT EXECUTE ON FUNCTION public.outbox_retire(regclass, boolean) TO orders_service; \
        GRANT CREATE ON SCHEMA public TO orders_service";
    const HAS: &str = "SELECT has_table_privilege('orders_auditor', 'public.outbox_default', 'DELETE'), \
        has_column_privilege('orders_relay', 'public.orders', 'state', 'UPDATE'), \
        has_function_privilege('orders_service', 'public.outbox_retire(regclass, boolean)', 'EXECUTE'), \
        has_schema_privilege('orders_service', 'public', 'CREATE')";
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let system = harness::System::start().await.unwrap();
        let owner = connected(&system, Side::Orders, Role::Owner).await;
        owner.batch_execute(MORE).await.unwrap();
        let has = async || {
            let row = owner.query_one(HAS, &[]).await.unwrap();
            [0, 1, 2, 3].map(|at| row.get::<_, bool>(at))
        };
        assert_eq!(has().await, [true; 4]);
        let service = system.process("order-service");
        service.terminate().await.unwrap();
        service.start_again().unwrap();
        service.wait_ready().await.unwrap();
        assert_eq!(has().await, [false; 4]);
    });
}

#[test]
fn a_day_of_the_outbox_that_is_over_goes_by_the_relay_though_it_may_not_drop_it() {
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let system = harness::System::builder()
            .env("cdc-relay", "CDC_RETENTION_SECONDS", "86400")
            .env("cdc-relay", "CDC_STREAM_MAX_AGE_SECONDS", "3600")
            .env(
                "cdc-relay",
                "CDC_RETENTION_FUNCTION",
                "public.outbox_retire",
            )
            .start()
            .await
            .unwrap();
        let owner = connected(&system, Side::Orders, Role::Owner).await;
        let old = "SELECT public.mailbox_ensure_partitions('public.outbox', current_date - 20, 2)";
        owner.batch_execute(old).await.unwrap();
        // It looks when it begins.
        let relay = system.process("orders-relay");
        relay.terminate().await.unwrap();
        relay.start_again().unwrap();
        let count = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'public.outbox'::regclass \
            AND right(inhrelid::regclass::text, 8) < to_char(current_date - 1, 'YYYYMMDD')";
        eventually(
            "the old days to go",
            std::time::Duration::from_secs(30),
            async || {
                let left: i64 = owner.query_one(count, &[]).await?.get(0);
                anyhow::ensure!(left == 0, "{left} are left; {}", relay.log().tail());
                Ok(Some(()))
            },
        )
        .await
        .unwrap();
    });
}
