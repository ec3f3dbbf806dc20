//! What clients ask for, and are told.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use chassis::auth::Caller;
use chassis::failure;
use harness::Postgres;
use order_service::api::Orders;
use proto::orders::v1::order_service_server::OrderService as _;
use proto::orders::v1::{
    CreateOrderRequest, ListOrdersRequest, ListOrdersResponse, OrderCreated, OrderState,
};
use tokio::time::timeout;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use uuid::Uuid;

use crate::support::{
    KEPT, PATIENCE, count, create, database, database_in, events, get, money, postgres,
};

async fn page(
    orders: &Orders,
    customer_id: Option<Uuid>,
    page_size: i32,
    page_token: &str,
) -> Result<ListOrdersResponse, Status> {
    let request = ListOrdersRequest {
        customer_id: customer_id.map(|id| id.to_string()).unwrap_or_default(),
        page_size,
        page_token: page_token.to_owned(),
    };
    Ok(orders
        .list_orders(Caller::Operator.asks(request))
        .await?
        .into_inner())
}

#[tokio::test]
async fn an_order_and_its_event_commit_together() {
    let pool = database().await;
    let orders = Orders::new(pool.clone(), PATIENCE, KEPT);
    let created = create(&orders, Uuid::now_v7(), 250).await.unwrap();
    assert_eq!(created.state(), OrderState::Pending);
    assert_eq!(get(&orders, &created.order_id).await.unwrap(), created);

    let client = pool.get().await.unwrap();
    let event: Vec<OrderCreated> = events(&client).await;
    assert_eq!(
        event,
        [OrderCreated {
            order_id: created.order_id,
            customer_id: created.customer_id,
            total: created.total,
            create_time: created.create_time,
        }]
    );
    let same = "SELECT orders.xmin = outbox.xmin FROM orders, outbox";
    let row = client.query_one(same, &[]).await.unwrap();
    assert!(row.get::<_, bool>(0), "two transactions");

    // Neither without the other.
    let break_outbox = "ALTER TABLE outbox ADD CONSTRAINT nothing_fits CHECK (false) NOT VALID";
    client.batch_execute(break_outbox).await.unwrap();
    let refused = create(&orders, Uuid::now_v7(), 1).await.unwrap_err();
    assert_eq!(refused.code(), Code::Internal);
    assert!(!refused.message().contains("nothing_fits"), "{refused}");
    assert_eq!(count(&client, "orders").await, 1);
}

#[tokio::test]
async fn an_unknown_order_is_not_found() {
    let orders = Orders::new(database().await, PATIENCE, KEPT);
    let id = Uuid::now_v7().to_string();
    let refused = get(&orders, &id).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    assert!(refused.message().contains(&id));
}

#[tokio::test]
async fn a_wrong_field_is_told_by_name_in_the_message_and_in_the_details() {
    let orders = Orders::new(database().await, PATIENCE, KEPT);
    let free = CreateOrderRequest {
        wait: None,
        request_id: String::new(),
        customer_id: Uuid::now_v7().to_string(),
        total: money(0, "USD"),
    };
    let refused = orders
        .create_order(Caller::Operator.asks(free))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(
        refused.message(),
        "total.minor_units: must be more than zero"
    );
    let details = refused.get_details_bad_request().unwrap();
    assert_eq!(details.field_violations[0].field, "total.minor_units");
}

#[tokio::test]
async fn pages_stay_right_while_orders_are_added() {
    let pool = database().await;
    let orders = Orders::new(pool.clone(), PATIENCE, KEPT);
    let (ours, others) = (Uuid::now_v7(), Uuid::now_v7());
    let mut expected = BTreeSet::new();
    for _ in 0..5 {
        expected.insert(create(&orders, ours, 1).await.unwrap().order_id);
        create(&orders, others, 1).await.unwrap();
    }
    let mut seen = Vec::new();
    let mut token = String::new();
    loop {
        let page = page(&orders, Some(ours), 2, &token).await.unwrap();
        assert!(page.orders.len() <= 2);
        seen.extend(page.orders.into_iter().map(|one| one.order_id));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
        if expected.len() < 8 {
            expected.insert(create(&orders, ours, 1).await.unwrap().order_id);
            create(&orders, others, 1).await.unwrap();
            // Before the place that was reached: it shifts nothing.
            let early = "INSERT INTO orders VALUES \
                         ($1, $2, 1, 'USD', 'pending', NULL, now(), now())";
            let id = Uuid::from_u128(u128::from(seen.len() as u64));
            let client = pool.get().await.unwrap();
            client.execute(early, &[&id, &ours]).await.unwrap();
            // Between those that are still to come: it is one of them.
            let before = expected.iter().nth_back(1).unwrap();
            let between = Uuid::try_parse(before).unwrap().as_u128() + 1;
            let between = Uuid::from_u128(between);
            client.execute(early, &[&between, &ours]).await.unwrap();
            expected.insert(between.to_string());
        }
    }
    assert_eq!(seen, Vec::from_iter(expected));
}

#[tokio::test]
async fn a_page_token_of_another_filter_is_refused() {
    let orders = Orders::new(database().await, PATIENCE, KEPT);
    let ours = Uuid::now_v7();
    for _ in 0..2 {
        create(&orders, ours, 1).await.unwrap();
    }
    let everybody = page(&orders, None, 1, "").await.unwrap();
    let refused = page(&orders, Some(ours), 1, &everybody.next_page_token).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().starts_with("page_token: "), "{refused}");
}

#[tokio::test]
async fn a_stricter_rule_of_the_database_is_told_by_field() {
    // As when a newer version has migrated the database, and this one still serves.
    let pool = database().await;
    let orders = Orders::new(pool.clone(), PATIENCE, KEPT);
    let client = pool.get().await.unwrap();
    for (name, rule, field) in [
        (
            "orders_total_positive",
            "total_minor_units > 9",
            "total.minor_units: ",
        ),
        (
            "orders_currency_iso4217_form",
            "currency <> 'USD'",
            "total.currency: ",
        ),
    ] {
        let replace = format!(
            "ALTER TABLE orders DROP CONSTRAINT {name}, ADD CONSTRAINT {name} CHECK ({rule})"
        );
        client.batch_execute(&replace).await.unwrap();
        let total = if field.starts_with("total.m") { 9 } else { 10 };
        let refused = create(&orders, Uuid::now_v7(), total).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        assert!(refused.message().starts_with(field), "{refused}");
    }
}

#[tokio::test]
async fn without_a_free_connection_a_request_is_soon_told_to_try_again() {
    let pool = database_in(postgres().await, 1).await;
    let orders = Orders::new(pool.clone(), PATIENCE, KEPT);
    let _busy = pool.get().await.unwrap();
    let asked = Instant::now();
    let refused = create(&orders, Uuid::now_v7(), 1).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().contains("try again"), "{refused}");
    assert!(asked.elapsed() < Duration::from_secs(6));
}

#[tokio::test]
async fn without_a_database_a_request_is_told_to_try_again() {
    let postgres = Postgres::start().await.unwrap();
    let pool = database_in(&postgres, 2).await;
    let orders = Orders::new(pool.clone(), PATIENCE, KEPT);
    let id = create(&orders, Uuid::now_v7(), 1).await.unwrap().order_id;

    postgres.stop().await.unwrap();
    for _ in 0..3 {
        let refused = get(&orders, &id).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable, "{refused}");
        assert!(refused.message().contains("try again"), "{refused}");
    }
    postgres.start_again().await.unwrap();
    assert_eq!(get(&orders, &id).await.unwrap().order_id, id);
}

#[tokio::test]
async fn a_dropped_request_lends_no_busy_connection() {
    let pool = database_in(postgres().await, 1).await;
    let orders = Orders::new(pool.clone(), PATIENCE, KEPT);
    let own = pool.get().await.unwrap();
    let name = own.query_one("SELECT current_database()", &[]).await;
    drop(own);
    let name: String = name.unwrap().get(0);
    let mut locker = postgres().await.connect(&name).await.unwrap();
    let lock = locker.transaction().await.unwrap();
    let all = "LOCK TABLE orders IN ACCESS EXCLUSIVE MODE";
    lock.batch_execute(all).await.unwrap();
    // As when its deadline passes.
    let dropped = timeout(
        Duration::from_millis(300),
        create(&orders, Uuid::now_v7(), 1),
    )
    .await;
    assert!(dropped.is_err());

    let next = failure::connection(&pool).await.unwrap();
    let answered = timeout(Duration::from_secs(10), next.simple_query("SELECT 1")).await;
    answered.expect("an idle connection").unwrap();
    let waiting =
        "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'orders'::regclass";
    let waiting: i64 = lock.query_one(waiting, &[]).await.unwrap().get(0);
    assert_eq!(waiting, 0, "Postgres runs on what nobody waits for");
}

#[tokio::test]
async fn a_read_only_database_is_told_to_try_again() {
    // As after a failover, while this process still talks to the demoted primary.
    let pool = database_in(postgres().await, 1).await;
    let demote = "SET default_transaction_read_only = on";
    let client = pool.get().await.unwrap();
    client.batch_execute(demote).await.unwrap();
    drop(client);
    let refused = create(&Orders::new(pool, PATIENCE, KEPT), Uuid::now_v7(), 1).await;
    assert_eq!(refused.unwrap_err().code(), Code::Unavailable);
}
