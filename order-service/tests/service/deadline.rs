//! No order stays pending past its deadline (I8), however many replicas look after it.

use std::time::{Duration, SystemTime};

use deadpool_postgres::Pool;
use order_service::api::Orders;
use order_service::sweeper::{BATCH_MAX, time_out};
use proto::orders::v1::{CancellationReason, OrderCancelled, OrderState};
use tokio::time::timeout;
use uuid::Uuid;

use crate::reactions::{reserved, state};
use crate::support::{
    KEPT, PATIENCE, apply, cancel, count, database, database_in, events, get, pending, postgres,
};

/// A sweep that takes so long waits for something.
const SWEEP_DEADLINE: Duration = Duration::from_secs(20);

const TIMED_OUT: (OrderState, CancellationReason) =
    (OrderState::Cancelled, CancellationReason::TimedOut);

/// Cancels what is overdue `later` from now, as one replica does in one look.
async fn sweep(pool: &Pool, later: Duration) -> usize {
    let mut client = pool.get().await.unwrap();
    let sweep = time_out(&mut client, SystemTime::now() + later);
    timeout(SWEEP_DEADLINE, sweep).await.unwrap().unwrap()
}

/// So many orders of one customer, which are as old as they can be.
async fn overdue(pool: &Pool, count: i32) {
    let client = pool.get().await.unwrap();
    let sql = "INSERT INTO orders (order_id, customer_id, total_minor_units, currency, state, \
                                   create_time, update_time, deadline) \
               SELECT gen_random_uuid(), gen_random_uuid(), 1, 'EUR', 'pending', \
                      now() - interval '1 hour', now() - interval '1 hour', now() - interval '1 s' \
               FROM generate_series(1, $1)";
    client.execute(sql, &[&count]).await.unwrap();
}

#[tokio::test]
async fn a_pending_order_is_cancelled_when_its_deadline_has_passed_and_not_before() {
    let pool = database().await;
    let orders = Orders::new(pool.clone(), PATIENCE, KEPT);
    let order = pending(&pool).await;
    let seconds = |time: Option<proto::Timestamp>| time.unwrap().seconds;
    let given = seconds(order.deadline) - seconds(order.create_time);
    assert_eq!(given, 60);

    assert_eq!(sweep(&pool, PATIENCE - SWEEP_DEADLINE).await, 0);
    assert_eq!(get(&orders, &order.order_id).await.unwrap(), order);
    assert_eq!(sweep(&pool, PATIENCE).await, 1);
    assert_eq!(state(&pool, &order).await, TIMED_OUT);
    assert_eq!(sweep(&pool, PATIENCE).await, 0);

    let client = pool.get().await.unwrap();
    let told: Vec<OrderCancelled> = events(&client).await;
    let expected = OrderCancelled {
        order_id: order.order_id,
        customer_id: order.customer_id,
        total: order.total,
        reason: CancellationReason::TimedOut.into(),
    };
    assert_eq!(told, [expected]);
}

#[tokio::test]
async fn a_settled_order_has_no_deadline_any_more() {
    let pool = database().await;
    let orders = Orders::new(pool.clone(), PATIENCE, KEPT);
    let (approved, cancelled) = (pending(&pool).await, pending(&pool).await);
    apply(&pool, vec![reserved(&approved)]).await.unwrap();
    cancel(&orders, &cancelled.order_id).await.unwrap();

    assert_eq!(sweep(&pool, 2 * PATIENCE).await, 0);
    let approved = get(&orders, &approved.order_id).await.unwrap();
    assert_eq!(approved.state(), OrderState::Approved);
}

#[tokio::test]
async fn a_sweep_passes_over_an_order_that_somebody_holds_and_takes_the_others() {
    let pool = database().await;
    let (held, free) = (pending(&pool).await, pending(&pool).await);
    let mut holder = pool.get().await.unwrap();
    let tx = holder.transaction().await.unwrap();
    let lock = "SELECT FROM orders WHERE order_id = $1 FOR UPDATE";
    let id = Uuid::try_parse(&held.order_id).unwrap();
    tx.execute(lock, &[&id]).await.unwrap();

    assert_eq!(sweep(&pool, PATIENCE).await, 1);
    assert_eq!(state(&pool, &free).await, TIMED_OUT);
    tx.rollback().await.unwrap();
    assert_eq!(sweep(&pool, PATIENCE).await, 1);
    assert_eq!(state(&pool, &held).await, TIMED_OUT);
}

#[tokio::test]
async fn many_sweepers_at_once_cancel_each_order_once() {
    const ORDERS: usize = 6 * BATCH_MAX;
    let pool = database_in(postgres().await, 8).await;
    overdue(&pool, ORDERS as i32).await;
    let sweepers = (0..6).map(|_| {
        let pool = pool.clone();
        tokio::spawn(async move {
            let mut total = 0;
            loop {
                match sweep(&pool, Duration::ZERO).await {
                    0 => return total,
                    cancelled => {
                        assert!(cancelled <= BATCH_MAX, "{cancelled} in one transaction");
                        total += cancelled;
                    }
                }
            }
        })
    });
    let mut total = 0;
    for sweeper in sweepers.collect::<Vec<_>>() {
        total += sweeper.await.unwrap();
    }
    assert_eq!(total, ORDERS);
    let client = pool.get().await.unwrap();
    let once = "(SELECT DISTINCT aggregateid FROM outbox) AS told";
    assert_eq!(count(&client, once).await, ORDERS as i64);
    assert_eq!(count(&client, "outbox").await, ORDERS as i64);
}

#[tokio::test]
async fn an_order_of_a_version_that_knows_no_deadline_has_one() {
    let pool = database().await;
    let client = pool.get().await.unwrap();
    // As the version before inserts.
    let insert = "INSERT INTO orders (order_id, customer_id, total_minor_units, currency, state, \
                                      create_time, update_time) \
                  VALUES (gen_random_uuid(), gen_random_uuid(), 1, 'EUR', 'pending', now(), now())";
    client.batch_execute(insert).await.unwrap();
    assert_eq!(sweep(&pool, Duration::from_secs(60)).await, 0);
    assert_eq!(sweep(&pool, Duration::from_secs(121)).await, 1);
}

#[tokio::test]
async fn a_look_reads_an_index_of_pending_orders_alone() {
    let pool = database().await;
    let client = pool.get().await.unwrap();
    client
        .batch_execute("SET enable_seqscan = off; SET enable_bitmapscan = off")
        .await
        .unwrap();
    let plan = "EXPLAIN SELECT order_id FROM orders WHERE state = 'pending' AND deadline <= now() \
                ORDER BY deadline LIMIT 256 FOR UPDATE SKIP LOCKED";
    let rows = client.query(plan, &[]).await.unwrap();
    let plan: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let plan = plan.join("\n");
    assert!(plan.contains("orders_pending_by_deadline"), "{plan}");
    assert!(!plan.contains("Sort"), "{plan}");
    client.batch_execute("RESET ALL").await.unwrap();
}
