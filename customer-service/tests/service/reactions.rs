//! What orders that ask do to customers' credit.

use std::time::Duration;

use deadpool_postgres::Pool;
use harness::{Postgres, Rows, eventually};
use mailbox::consumer::Failure;
use mailbox::inbox::Delivery;
use proto::customers::v1::{
    CreditLimitExceeded, CreditReserved, CurrencyMismatch, CustomerNotFound,
};
use proto::orders::v1::OrderCreated;
use tokio_postgres::Transaction;
use tokio_postgres::error::SqlState;
use uuid::Uuid;

use crate::support::{
    apply, count, customer, database, database_in, delivery, events, handle, money, postgres,
    reserved,
};

const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) fn order(customer_id: &str, minor_units: i64, currency: &str) -> OrderCreated {
    OrderCreated {
        order_id: Uuid::now_v7().to_string(),
        customer_id: customer_id.to_owned(),
        total: money(minor_units, currency),
        create_time: None,
    }
}

pub(crate) fn usd(customer_id: &str, minor_units: i64) -> OrderCreated {
    order(customer_id, minor_units, "USD")
}

pub(crate) async fn backend(client: &tokio_postgres::Client) -> i32 {
    let row = client.query_one("SELECT pg_backend_pid()", &[]).await;
    row.unwrap().get(0)
}

/// Handles `first` in one transaction and `second` in another, which must be seen waiting for the
/// first; commits both, and gives what became of `second`.
pub(crate) async fn overlap(pool: &Pool, first: Delivery, second: Delivery) -> Result<(), Failure> {
    let mut a = pool.get().await.unwrap();
    let holder = backend(&a).await;
    let tx = a.transaction().await.unwrap();
    handle(&tx, vec![first]).await.unwrap();

    let mut b = pool.get().await.unwrap();
    let waiting = backend(&b).await;
    let late = tokio::spawn(async move {
        let tx = b.transaction().await.unwrap();
        handle(&tx, vec![second]).await?;
        tx.commit().await.unwrap();
        Ok(())
    });
    let observer = pool.get().await.unwrap();
    eventually("the second transaction to wait", DEADLINE, async || {
        let sql = "SELECT $1 = ANY (pg_blocking_pids($2))";
        let row = observer.query_one(sql, &[&holder, &waiting]).await?;
        Ok(row.get::<_, bool>(0).then_some(()))
    })
    .await
    .unwrap();
    tx.commit().await.unwrap();
    late.await.unwrap()
}

#[tokio::test]
async fn each_order_gets_its_answer() {
    let pool = database().await;
    let id = customer(&pool, 100).await.customer_id;
    let nobody = Uuid::now_v7().to_string();
    let fits = usd(&id, 60);
    let exceeds = usd(&id, 41);
    let fits_exactly = usd(&id, 40);
    let unknown = usd(&nobody, 1);
    let yen = order(&id, 1, "JPY");

    let batch = [&fits, &exceeds, &fits_exactly, &unknown, &yen].map(delivery);
    apply(&pool, batch.into()).await.unwrap();

    let client = pool.get().await.unwrap();
    let reserved_for: Vec<CreditReserved> = events(&client).await;
    let reserved_for: Vec<_> = reserved_for
        .into_iter()
        .map(|event| (event.order_id, event.amount))
        .collect();
    assert_eq!(
        reserved_for,
        [
            (fits.order_id, money(60, "USD")),
            (fits_exactly.order_id, money(40, "USD"))
        ]
    );
    assert_eq!(
        events::<CreditLimitExceeded>(&client).await,
        [CreditLimitExceeded {
            order_id: exceeds.order_id,
            customer_id: id.clone(),
            amount: money(41, "USD"),
            available: money(40, "USD"),
        }]
    );
    assert_eq!(
        events::<CustomerNotFound>(&client).await,
        [CustomerNotFound {
            order_id: unknown.order_id,
            customer_id: nobody,
        }]
    );
    assert_eq!(
        events::<CurrencyMismatch>(&client).await,
        [CurrencyMismatch {
            order_id: yen.order_id,
            customer_id: id.clone(),
            amount: money(1, "JPY"),
            customer_currency: "USD".to_owned(),
        }]
    );
    assert_eq!(reserved(&client, &id).await, 100);
    let active = "reservations WHERE state = 'active'";
    let refused = "reservations WHERE state = 'refused'";
    assert_eq!(count(&client, active).await, 2);
    assert_eq!(count(&client, refused).await, 3);
}

#[tokio::test]
async fn reserving_waits_for_the_customers_row_lock() {
    let pool = database().await;
    let id = customer(&pool, 100).await.customer_id;
    let (first, second) = (usd(&id, 60), usd(&id, 60));

    let outcome = overlap(&pool, delivery(&first), delivery(&second)).await;

    outcome.unwrap();
    let client = pool.get().await.unwrap();
    assert_eq!(reserved(&client, &id).await, 60);
    assert_eq!(events::<CreditReserved>(&client).await.len(), 1);
    assert_eq!(
        events::<CreditLimitExceeded>(&client).await,
        [CreditLimitExceeded {
            order_id: second.order_id,
            customer_id: id,
            amount: money(60, "USD"),
            available: money(40, "USD"),
        }]
    );
}

#[tokio::test]
async fn the_database_itself_refuses_to_over_reserve() {
    let pool = database().await;
    let id = Uuid::try_parse(&customer(&pool, 100).await.customer_id).unwrap();
    let client = pool.get().await.unwrap();
    let set = "UPDATE customers SET reserved_minor_units = $1 WHERE customer_id = $2";
    client.execute(set, &[&100_i64, &id]).await.unwrap();

    for (reserved, constraint) in [
        (101_i64, "customers_reserved_within_limit"),
        (-1, "customers_reserved_not_negative"),
    ] {
        let refused = client.execute(set, &[&reserved, &id]).await.unwrap_err();
        let refused = refused.as_db_error().unwrap();
        assert_eq!(refused.code(), &SqlState::CHECK_VIOLATION);
        assert_eq!(refused.constraint(), Some(constraint));
    }
    let lower = "UPDATE customers SET credit_limit_minor_units = 99 WHERE customer_id = $1";
    let refused = client.execute(lower, &[&id]).await.unwrap_err();
    assert_eq!(
        refused.as_db_error().unwrap().constraint(),
        Some("customers_reserved_within_limit")
    );
}

#[tokio::test]
async fn an_order_created_twice_reserves_once() {
    let pool = database().await;
    let id = customer(&pool, 100).await.customer_id;
    let asked = usd(&id, 30);

    // Different events, as when a producer says a thing twice: the inbox lets both through.
    apply(&pool, vec![delivery(&asked), delivery(&asked)])
        .await
        .unwrap();
    apply(&pool, vec![delivery(&asked)]).await.unwrap();

    let client = pool.get().await.unwrap();
    assert_eq!(reserved(&client, &id).await, 30);
    assert_eq!(events::<CreditReserved>(&client).await.len(), 1);
    assert_eq!(count(&client, "reservations").await, 1);
}

#[tokio::test]
async fn an_order_that_was_refused_stays_refused() {
    let pool = database().await;
    let id = customer(&pool, 100).await.customer_id;
    let asked = usd(&id, 101);
    apply(&pool, vec![delivery(&asked)]).await.unwrap();

    let client = pool.get().await.unwrap();
    let raise = "UPDATE customers SET credit_limit_minor_units = 200";
    client.batch_execute(raise).await.unwrap();
    apply(&pool, vec![delivery(&asked)]).await.unwrap();

    assert_eq!(reserved(&client, &id).await, 0);
    assert_eq!(events::<CreditReserved>(&client).await.len(), 0);
    assert_eq!(events::<CreditLimitExceeded>(&client).await.len(), 1);
}

#[tokio::test]
async fn two_deliveries_at_once_reserve_once() {
    let pool = database().await;
    let id = customer(&pool, 100).await.customer_id;
    let asked = usd(&id, 30);

    let outcome = overlap(&pool, delivery(&asked), delivery(&asked)).await;

    outcome.unwrap();
    let client = pool.get().await.unwrap();
    assert_eq!(reserved(&client, &id).await, 30);
    assert_eq!(events::<CreditReserved>(&client).await.len(), 1);
}

#[tokio::test]
async fn two_deliveries_at_once_answer_an_unknown_customers_order_once() {
    // There is no customer's row to lock, so the reservation's key must do.
    let pool = database().await;
    let asked = usd(&Uuid::now_v7().to_string(), 30);
    let again = delivery(&asked);

    let outcome = overlap(&pool, delivery(&asked), again.clone()).await;

    assert!(matches!(outcome, Err(Failure::Transient(_))), "{outcome:?}");
    apply(&pool, vec![again]).await.unwrap();
    let client = pool.get().await.unwrap();
    assert_eq!(events::<CustomerNotFound>(&client).await.len(), 1);
    assert_eq!(count(&client, "reservations").await, 1);
}

#[tokio::test]
async fn an_event_that_cannot_be_read_fails_for_good_and_leaves_nothing() {
    let pool = database().await;
    let id = customer(&pool, 100).await.customer_id;
    let free = delivery(&usd(&id, 0));
    let failed = apply(&pool, vec![delivery(&usd(&id, 10)), free]).await;
    assert!(matches!(failed, Err(Failure::Definite(_))), "{failed:?}");
    let client = pool.get().await.unwrap();
    assert_eq!(reserved(&client, &id).await, 0);
    assert_eq!(count(&client, "inbox").await, 0);
    assert_eq!(count(&client, "reservations").await, 0);
}

#[tokio::test]
async fn what_a_newer_version_reads_is_left_for_it() {
    let pool = database().await;
    let id = customer(&pool, 100).await.customer_id;
    let new_type = Delivery::new(Uuid::now_v7(), "orders.v1.OrderShipped", "", vec![].into());
    let failed = apply(&pool, vec![new_type]).await;
    assert!(matches!(failed, Err(Failure::Unknown(_))), "{failed:?}");

    let asked = usd(&id, 10);
    apply(&pool, vec![delivery(&asked)]).await.unwrap();
    let client = pool.get().await.unwrap();
    let newer = "ALTER TABLE reservations DROP CONSTRAINT reservations_state_known; \
                 UPDATE reservations SET state = 'frozen'";
    client.batch_execute(newer).await.unwrap();
    let failed = apply(&pool, vec![delivery(&asked)]).await;
    assert!(matches!(failed, Err(Failure::Transient(_))), "{failed:?}");
}

#[tokio::test]
async fn the_number_of_statements_does_not_grow_with_the_batch() {
    let pool = database_in(postgres().await, 2).await;
    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.push(customer(&pool, 1_000).await.customer_id);
    }
    let batch = |size: usize| -> Vec<_> {
        let customers = ids.iter().cycle().take(size);
        customers.map(|id| delivery(&usd(id, 10))).collect()
    };
    let one = statements(postgres().await, &pool, batch(1)).await;
    let many = statements(postgres().await, &pool, batch(200)).await;
    assert_eq!(one, many);
    assert!((5..=10).contains(&one), "{one} statements for one event");
}

/// How many statements the server executes to apply a batch, by its log.
pub(crate) async fn statements(postgres: &Postgres, pool: &Pool, batch: Vec<Delivery>) -> usize {
    let mut client = pool.get().await.unwrap();
    let backend = format!("[{}]", backend(&client).await);
    let logged = || {
        let log = postgres.log().text();
        let mut lines = log.lines();
        let counted = |line: &&str| {
            line.contains(&backend)
                && (line.contains("  execute ") || line.contains("  statement: "))
        };
        lines.by_ref().filter(counted).count()
    };
    let log_all = "SET log_min_duration_statement = 0";
    client.batch_execute(log_all).await.unwrap();
    let before = logged();
    let tx = client.transaction().await.unwrap();
    handle(&tx, batch).await.unwrap();
    tx.commit().await.unwrap();
    let executed = logged() - before;
    let log_none = "SET log_min_duration_statement = -1";
    client.batch_execute(log_none).await.unwrap();
    executed
}

/// Two batches that share customers would deadlock otherwise, whatever plan Postgres has for each.
#[tokio::test]
async fn a_batch_locks_its_customers_by_their_keys_and_not_as_they_lie_in_the_table() {
    let pool = database().await;
    let mut asked = Vec::new();
    for _ in 0..5 {
        let customer = customer(&pool, 100).await;
        asked.push(delivery(&usd(&customer.customer_id, 1)));
    }
    let client = pool.get().await.unwrap();
    let row = client.query_one("SELECT current_database()", &[]).await;
    let database: String = row.unwrap().get(0);
    let customers = Rows {
        database: &database,
        table: "customers",
        key: "customer_id",
    };
    let batch = async |tx: &Transaction<'_>| Ok(handle(tx, asked.clone()).await?);
    let in_order = customers
        .are_locked_in_key_order(postgres().await, batch)
        .await;
    in_order.unwrap();
}
