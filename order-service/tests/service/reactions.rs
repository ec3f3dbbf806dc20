//! What the answers do to orders.

use std::sync::OnceLock;
use std::time::Duration;

use chassis::config::LogFormat;
use chassis::telemetry::Telemetry;
use deadpool_postgres::Pool;
use harness::{Postgres, Rows, eventually};
use mailbox::consumer::Failure;
use mailbox::inbox::Delivery;
use order_service::api::Orders;
use proto::customers::v1::{
    CreditLimitExceeded, CreditReserved, CurrencyMismatch, CustomerNotFound,
};
use proto::orders::v1::{CancellationReason, Order, OrderApproved, OrderCancelled, OrderState};
use tokio_postgres::Transaction;
use uuid::Uuid;

use crate::support::{
    KEPT, PATIENCE, apply, count, database, delivery, events, get, handle, pending, postgres,
};

const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) fn reserved(order: &Order) -> Delivery {
    delivery(&CreditReserved {
        order_id: order.order_id.clone(),
        customer_id: order.customer_id.clone(),
        amount: order.total.clone(),
    })
}

pub(crate) fn exceeded(order: &Order) -> Delivery {
    delivery(&CreditLimitExceeded {
        order_id: order.order_id.clone(),
        customer_id: order.customer_id.clone(),
        amount: order.total.clone(),
        available: None,
    })
}

fn not_found(order: &Order) -> Delivery {
    delivery(&CustomerNotFound {
        order_id: order.order_id.clone(),
        customer_id: order.customer_id.clone(),
    })
}

fn mismatch(order: &Order) -> Delivery {
    delivery(&CurrencyMismatch {
        order_id: order.order_id.clone(),
        customer_id: order.customer_id.clone(),
        amount: order.total.clone(),
        customer_currency: "EUR".to_owned(),
    })
}

pub(crate) async fn state(pool: &Pool, order: &Order) -> (OrderState, CancellationReason) {
    let orders = Orders::new(pool.clone(), PATIENCE, KEPT);
    let order = get(&orders, &order.order_id).await.unwrap();
    (order.state(), order.cancellation_reason())
}

/// How often this process has ignored `event` for an order in `state`.
pub(crate) fn ignored(state: &str, event: &str) -> u64 {
    static TELEMETRY: OnceLock<Telemetry> = OnceLock::new();
    let telemetry = TELEMETRY.get_or_init(|| {
        let config = chassis::config::Telemetry {
            log_filter: "off".to_owned(),
            log_format: LogFormat::Text,
            otlp_endpoint: None,
        };
        chassis::telemetry::init(&config, "order-service").unwrap()
    });
    let rendered = telemetry.metrics().render();
    let counter = rendered.lines().find(|line| {
        line.starts_with("order_reactions_ignored_total{")
            && line.contains(&format!("state=\"{state}\""))
            && line.contains(&format!("event=\"{event}\""))
    });
    counter.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
}

#[tokio::test]
async fn each_answer_settles_its_order() {
    let pool = database().await;
    let mut orders = Vec::new();
    for _ in 0..4 {
        orders.push(pending(&pool).await);
    }
    let batch = vec![
        reserved(&orders[0]),
        exceeded(&orders[1]),
        not_found(&orders[2]),
        mismatch(&orders[3]),
    ];
    apply(&pool, batch).await.unwrap();

    let reasons = [
        CancellationReason::CreditLimitExceeded,
        CancellationReason::UnknownCustomer,
        CancellationReason::CurrencyMismatch,
    ];
    let approved = (OrderState::Approved, CancellationReason::Unspecified);
    assert_eq!(state(&pool, &orders[0]).await, approved);
    for (order, reason) in orders[1..].iter().zip(reasons) {
        let cancelled = (OrderState::Cancelled, reason);
        assert_eq!(state(&pool, order).await, cancelled);
    }

    let client = pool.get().await.unwrap();
    assert_eq!(
        events::<OrderApproved>(&client).await,
        [OrderApproved {
            order_id: orders[0].order_id.clone(),
            customer_id: orders[0].customer_id.clone(),
            total: orders[0].total.clone(),
        }]
    );
    let told: Vec<OrderCancelled> = events(&client).await;
    let expected = orders[1..].iter().zip(reasons);
    let expected: Vec<_> = expected
        .map(|(order, reason)| OrderCancelled {
            order_id: order.order_id.clone(),
            customer_id: order.customer_id.clone(),
            total: order.total.clone(),
            reason: reason.into(),
        })
        .collect();
    assert_eq!(told, expected);
}

#[tokio::test]
async fn a_late_or_repeated_answer_changes_nothing_and_is_counted() {
    const LATE: &str = "customers.v1.CreditLimitExceeded";
    let (approved_before, cancelled_before) =
        (ignored("approved", LATE), ignored("cancelled", LATE));
    let pool = database().await;
    let (good, bad) = (pending(&pool).await, pending(&pool).await);

    // Within one batch the later answer finds what the earlier one did.
    let batch = vec![
        reserved(&good),
        not_found(&bad),
        exceeded(&good),
        exceeded(&bad),
    ];
    apply(&pool, batch).await.unwrap();
    let orders = Orders::new(pool.clone(), PATIENCE, KEPT);
    let after_the_first = get(&orders, &good.order_id).await.unwrap();
    // And across batches.
    apply(&pool, vec![exceeded(&good), exceeded(&bad)])
        .await
        .unwrap();

    let approved = (OrderState::Approved, CancellationReason::Unspecified);
    let cancelled = (OrderState::Cancelled, CancellationReason::UnknownCustomer);
    assert_eq!(state(&pool, &good).await, approved);
    assert_eq!(state(&pool, &bad).await, cancelled);
    assert_eq!(get(&orders, &good.order_id).await.unwrap(), after_the_first);
    let client = pool.get().await.unwrap();
    assert_eq!(events::<OrderApproved>(&client).await.len(), 1);
    assert_eq!(events::<OrderCancelled>(&client).await.len(), 1);
    assert_eq!(ignored("approved", LATE) - approved_before, 2);
    assert_eq!(ignored("cancelled", LATE) - cancelled_before, 2);
}

#[tokio::test]
async fn an_answer_that_is_quicker_than_its_orders_commit_is_tried_again() {
    // The WAL shows a commit before other transactions see it; here the order is not committed yet.
    let pool = database().await;
    let model = pending(&pool).await;
    let order = Order {
        order_id: Uuid::now_v7().to_string(),
        ..model
    };
    let mut client = pool.get().await.unwrap();
    let tx = client.transaction().await.unwrap();
    let copy = "INSERT INTO orders SELECT $1, customer_id, total_minor_units, currency, state, \
                cancellation_reason, create_time, update_time FROM orders";
    let id = Uuid::try_parse(&order.order_id).unwrap();
    tx.execute(copy, &[&id]).await.unwrap();
    let answer = reserved(&order);

    let early = apply(&pool, vec![answer.clone()]).await;
    assert!(matches!(early, Err(Failure::Transient(_))), "{early:?}");
    tx.commit().await.unwrap();
    apply(&pool, vec![answer]).await.unwrap();

    let approved = (OrderState::Approved, CancellationReason::Unspecified);
    assert_eq!(state(&pool, &order).await, approved);
}

#[tokio::test]
async fn an_answer_about_no_order_is_never_given_up_by_its_age() {
    let pool = database().await;
    let order = Order {
        order_id: Uuid::now_v7().to_string(),
        ..pending(&pool).await
    };
    // Drawn in 1970, by a clock that is wrong; or no UUIDv7 at all.
    let drawn = uuid::Timestamp::from_unix(uuid::NoContext, 0, 0);
    for id in [Uuid::new_v7(drawn), Uuid::from_u128(1)] {
        let answer = Delivery {
            id,
            ..reserved(&order)
        };
        match apply(&pool, vec![answer]).await {
            Err(Failure::Transient(why)) => {
                assert!(why.to_string().contains(&order.order_id), "{why}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn two_answers_at_once_settle_an_order_once() {
    let pool = database().await;
    let order = pending(&pool).await;
    let mut a = pool.get().await.unwrap();
    let pid = "SELECT pg_backend_pid()";
    let holder: i32 = a.query_one(pid, &[]).await.unwrap().get(0);
    let tx = a.transaction().await.unwrap();
    handle(&tx, vec![reserved(&order)]).await.unwrap();

    let mut b = pool.get().await.unwrap();
    let waiting: i32 = b.query_one(pid, &[]).await.unwrap().get(0);
    let answer = exceeded(&order);
    let late = tokio::spawn(async move {
        let tx = b.transaction().await.unwrap();
        handle(&tx, vec![answer]).await?;
        tx.commit().await.unwrap();
        Ok::<_, Failure>(())
    });
    let client = pool.get().await.unwrap();
    eventually("the second answer to wait", DEADLINE, async || {
        let sql = "SELECT $1 = ANY (pg_blocking_pids($2))";
        let row = client.query_one(sql, &[&holder, &waiting]).await?;
        Ok(row.get::<_, bool>(0).then_some(()))
    })
    .await
    .unwrap();
    tx.commit().await.unwrap();
    late.await.unwrap().unwrap();

    let approved = (OrderState::Approved, CancellationReason::Unspecified);
    assert_eq!(state(&pool, &order).await, approved);
    assert_eq!(events::<OrderCancelled>(&client).await.len(), 0);
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_fails_for_good_and_leaves_nothing() {
    let pool = database().await;
    let order = pending(&pool).await;
    let nameless = delivery(&CreditReserved::default());
    let failed = apply(&pool, vec![reserved(&order), nameless]).await;
    assert!(matches!(failed, Err(Failure::Definite(_))), "{failed:?}");
    let client = pool.get().await.unwrap();
    assert_eq!(count(&client, "inbox").await, 0);
    let pending = (OrderState::Pending, CancellationReason::Unspecified);
    assert_eq!(state(&pool, &order).await, pending);
}

#[tokio::test]
async fn what_a_newer_version_reads_is_left_for_it() {
    let pool = database().await;
    let order = pending(&pool).await;
    let new_type = Delivery::new(Uuid::now_v7(), "customers.v1.Hello", "", vec![].into());
    let failed = apply(&pool, vec![new_type]).await;
    assert!(matches!(failed, Err(Failure::Unknown(_))), "{failed:?}");

    let client = pool.get().await.unwrap();
    let newer = "ALTER TABLE orders DROP CONSTRAINT orders_state_known; \
                 UPDATE orders SET state = 'shipped'";
    client.batch_execute(newer).await.unwrap();
    let failed = apply(&pool, vec![reserved(&order)]).await;
    assert!(matches!(failed, Err(Failure::Transient(_))), "{failed:?}");
}

#[tokio::test]
async fn the_number_of_statements_does_not_grow_with_the_batch() {
    let pool = database().await;
    let first = pending(&pool).await;
    let mut more = Vec::new();
    for _ in 0..100 {
        more.push(pending(&pool).await);
    }
    let batch = more.iter().map(reserved).collect();
    let one = statements(postgres().await, &pool, vec![reserved(&first)]).await;
    let many = statements(postgres().await, &pool, batch).await;
    assert_eq!(one, many);
    assert!((4..=8).contains(&one), "{one} statements for one event");
}

/// How many statements the server executes to apply a batch, by its log.
async fn statements(postgres: &Postgres, pool: &Pool, batch: Vec<Delivery>) -> usize {
    let mut client = pool.get().await.unwrap();
    let pid = client.query_one("SELECT pg_backend_pid()", &[]).await;
    let backend = format!("[{}]", pid.unwrap().get::<_, i32>(0));
    let executed = || {
        let log = postgres.log().text();
        let is_counted = |line: &&str| {
            line.contains(&backend)
                && (line.contains("  execute ") || line.contains("  statement: "))
        };
        log.lines().filter(is_counted).count()
    };
    let log_all = "SET log_min_duration_statement = 0";
    client.batch_execute(log_all).await.unwrap();
    let before = executed();
    let tx = client.transaction().await.unwrap();
    handle(&tx, batch).await.unwrap();
    tx.commit().await.unwrap();
    let count = executed() - before;
    let log_none = "SET log_min_duration_statement = -1";
    client.batch_execute(log_none).await.unwrap();
    count
}

/// Two batches that share orders would deadlock otherwise, whatever plan Postgres has for each.
#[tokio::test]
async fn a_batch_locks_its_orders_by_their_keys_and_not_as_they_lie_in_the_table() {
    let pool = database().await;
    let mut answers = Vec::new();
    for _ in 0..5 {
        answers.push(reserved(&pending(&pool).await));
    }
    let client = pool.get().await.unwrap();
    let row = client.query_one("SELECT current_database()", &[]).await;
    let database: String = row.unwrap().get(0);
    let orders = Rows {
        database: &database,
        table: "orders",
        key: "order_id",
    };
    let batch = async |tx: &Transaction<'_>| Ok(handle(tx, answers.clone()).await?);
    let in_order = orders
        .are_locked_in_key_order(postgres().await, batch)
        .await;
    in_order.unwrap();
}
