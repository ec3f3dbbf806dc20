//! What cancelled orders do to customers' credit.

use mailbox::consumer::Failure;
use mailbox::inbox::Delivery;
use proto::customers::v1::{CreditLimitExceeded, CreditReleased, CreditReserved};
use proto::orders::v1::{CancellationReason, OrderCancelled, OrderCreated};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::reactions::{overlap, statements, usd};
use crate::support::{
    apply, count, customer, database, database_in, delivery, events, money, postgres, reserved,
};

pub(crate) fn cancelled(order: &OrderCreated) -> Delivery {
    delivery(&OrderCancelled {
        order_id: order.order_id.clone(),
        customer_id: order.customer_id.clone(),
        total: order.total.clone(),
        reason: CancellationReason::ByCustomer.into(),
    })
}

fn released(order: &OrderCreated) -> CreditReleased {
    CreditReleased {
        order_id: order.order_id.clone(),
        customer_id: order.customer_id.clone(),
        amount: order.total.clone(),
    }
}

async fn state(client: &Client, order: &OrderCreated) -> String {
    let sql = "SELECT state FROM reservations WHERE order_id = $1";
    let id = Uuid::try_parse(&order.order_id).unwrap();
    client.query_one(sql, &[&id]).await.unwrap().get(0)
}

#[tokio::test]
async fn a_cancelled_order_gives_its_credit_back() {
    let pool = database().await;
    let id = customer(&pool, 100).await.customer_id;
    let (first, second) = (usd(&id, 60), usd(&id, 70));
    apply(&pool, vec![delivery(&first)]).await.unwrap();
    // Another event each time: the inbox lets the repeats through.
    apply(&pool, vec![cancelled(&first), cancelled(&first)])
        .await
        .unwrap();
    apply(&pool, vec![cancelled(&first), delivery(&first)])
        .await
        .unwrap();

    let client = pool.get().await.unwrap();
    assert_eq!(reserved(&client, &id).await, 0);
    assert_eq!(state(&client, &first).await, "released");
    let told: Vec<CreditReleased> = events(&client).await;
    assert_eq!(told, [released(&first)]);
    apply(&pool, vec![delivery(&second)]).await.unwrap();
    assert_eq!(reserved(&client, &id).await, 70);
}

#[tokio::test]
async fn reserved_and_released_in_one_batch_is_released() {
    let pool = database().await;
    let id = customer(&pool, 100).await.customer_id;
    let (first, second) = (usd(&id, 60), usd(&id, 70));
    let batch = vec![delivery(&first), cancelled(&first), delivery(&second)];
    apply(&pool, batch).await.unwrap();

    let client = pool.get().await.unwrap();
    assert_eq!(reserved(&client, &id).await, 70);
    assert_eq!(state(&client, &first).await, "released");
    assert_eq!(state(&client, &second).await, "active");
    assert_eq!(events::<CreditReserved>(&client).await.len(), 2);
    assert_eq!(events::<CreditReleased>(&client).await.len(), 1);
}

#[tokio::test]
async fn a_cancel_before_its_create_leaves_a_tombstone_and_the_create_reserves_nothing() {
    let pool = database().await;
    let known = customer(&pool, 100).await.customer_id;
    let nobody = Uuid::now_v7().to_string();
    let client = pool.get().await.unwrap();
    for customer_id in [&known, &nobody] {
        // Across batches, and in one.
        let (apart, together) = (usd(customer_id, 60), usd(customer_id, 60));
        apply(&pool, vec![cancelled(&apart)]).await.unwrap();
        assert_eq!(state(&client, &apart).await, "released");
        apply(&pool, vec![delivery(&apart)]).await.unwrap();
        apply(&pool, vec![cancelled(&together), delivery(&together)])
            .await
            .unwrap();
        for order in [apart, together] {
            assert_eq!(state(&client, &order).await, "released");
        }
    }
    assert_eq!(reserved(&client, &known).await, 0);
    assert_eq!(count(&client, "reservations").await, 4);
    // Nothing is said: not even that credit was released, for there was none.
    assert_eq!(count(&client, "outbox").await, 1);
}

#[tokio::test]
async fn a_refused_order_that_is_cancelled_gives_nothing_back() {
    let pool = database().await;
    let id = customer(&pool, 100).await.customer_id;
    let (held, refused) = (usd(&id, 50), usd(&id, 60));
    apply(&pool, vec![delivery(&held), delivery(&refused)])
        .await
        .unwrap();
    apply(&pool, vec![cancelled(&refused)]).await.unwrap();

    let client = pool.get().await.unwrap();
    assert_eq!(reserved(&client, &id).await, 50);
    assert_eq!(state(&client, &refused).await, "refused");
    assert_eq!(events::<CreditLimitExceeded>(&client).await.len(), 1);
    assert_eq!(events::<CreditReleased>(&client).await.len(), 0);
}

/// Every pair that changes nothing, and none of the others.
#[tokio::test]
async fn events_that_change_nothing_are_counted_by_state_and_event() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let metrics = recorder.handle();
    // This thread's alone: the handler runs on it.
    let _installed = metrics::set_default_local_recorder(&recorder);
    let pool = database().await;
    let id = customer(&pool, 100).await.customer_id;
    let [active, refused, released] = [60, 70, 30].map(|amount| usd(&id, amount));
    let (fresh, gone) = (usd(&id, 5), usd(&id, 5));
    let creates = [&active, &refused, &released, &fresh].map(delivery);
    apply(&pool, creates.into()).await.unwrap();
    let cancels = [&released, &fresh, &gone].map(cancelled);
    apply(&pool, cancels.into()).await.unwrap();
    let ignored = || -> Vec<String> {
        let rendered = metrics.render();
        let mut series: Vec<_> = rendered
            .lines()
            .filter_map(|line| line.strip_prefix("customer_reactions_ignored_total"))
            .map(str::to_owned)
            .collect();
        series.sort();
        series
    };
    assert_eq!(ignored(), <[String; 0]>::default());

    // A number of its own for each pair.
    let batch = [
        vec![delivery(&active); 1],
        vec![cancelled(&refused); 2],
        vec![delivery(&refused); 3],
        vec![cancelled(&released); 4],
        vec![delivery(&released); 5],
    ];
    for event in batch.into_iter().flatten() {
        // Another event each time: the inbox lets the repeats through.
        let id = Uuid::now_v7();
        apply(&pool, vec![Delivery { id, ..event }]).await.unwrap();
    }
    let line =
        |state, event, count| format!("{{state=\"{state}\",event=\"orders.v1.{event}\"}} {count}");
    assert_eq!(
        ignored(),
        [
            line("active", "OrderCreated", 1),
            line("refused", "OrderCancelled", 2),
            line("refused", "OrderCreated", 3),
            line("released", "OrderCancelled", 4),
            line("released", "OrderCreated", 5),
        ]
    );
    let client = pool.get().await.unwrap();
    for (order, expected) in [
        (&active, "active"),
        (&refused, "refused"),
        (&gone, "released"),
    ] {
        assert_eq!(state(&client, order).await, expected);
    }
}

#[tokio::test]
async fn two_cancels_at_once_release_once() {
    let pool = database().await;
    let id = customer(&pool, 100).await.customer_id;
    let (order, other) = (usd(&id, 60), usd(&id, 30));
    apply(&pool, vec![delivery(&order), delivery(&other)])
        .await
        .unwrap();

    let outcome = overlap(&pool, cancelled(&order), cancelled(&order)).await;

    outcome.unwrap();
    let client = pool.get().await.unwrap();
    assert_eq!(reserved(&client, &id).await, 30);
    assert_eq!(events::<CreditReleased>(&client).await.len(), 1);
}

#[tokio::test]
async fn a_cancel_and_a_create_at_once_reserve_nothing_that_stays() {
    // With an account to lock, and without: there the reservation's key must do.
    let pool = database().await;
    let id = customer(&pool, 100).await.customer_id;
    let client = pool.get().await.unwrap();
    let order = usd(&id, 60);
    overlap(&pool, delivery(&order), cancelled(&order))
        .await
        .unwrap();
    assert_eq!(state(&client, &order).await, "released");
    let order = usd(&id, 60);
    overlap(&pool, cancelled(&order), delivery(&order))
        .await
        .unwrap();
    assert_eq!(state(&client, &order).await, "released");
    assert_eq!(reserved(&client, &id).await, 0);

    let order = usd(&Uuid::now_v7().to_string(), 60);
    let late = delivery(&order);
    let outcome = overlap(&pool, cancelled(&order), late.clone()).await;
    assert!(matches!(outcome, Err(Failure::Transient(_))), "{outcome:?}");
    apply(&pool, vec![late]).await.unwrap();
    assert_eq!(state(&client, &order).await, "released");
}

#[tokio::test]
async fn a_cancel_that_contradicts_the_reservation_fails_for_good() {
    let pool = database().await;
    let [one, other] = [customer(&pool, 100).await, customer(&pool, 100).await];
    let order = usd(&one.customer_id, 60);
    apply(&pool, vec![delivery(&order)]).await.unwrap();
    let foreign = OrderCreated {
        customer_id: other.customer_id,
        ..order.clone()
    };
    match apply(&pool, vec![cancelled(&foreign)]).await {
        Err(Failure::Definite(why)) => assert!(why.contains(&order.order_id), "{why}"),
        other => panic!("{other:?}"),
    }
    let client = pool.get().await.unwrap();
    assert_eq!(reserved(&client, &one.customer_id).await, 60);
    assert_eq!(money(60, "USD"), order.total);
}

#[tokio::test]
async fn the_number_of_statements_does_not_grow_with_the_cancels() {
    let pool = database_in(postgres().await, 2).await;
    let mut orders = Vec::new();
    for _ in 0..10 {
        let id = customer(&pool, 1_000).await.customer_id;
        orders.extend((0..10).map(|_| usd(&id, 10)));
    }
    let creates = orders.iter().map(delivery).collect();
    apply(&pool, creates).await.unwrap();
    // Each with an order that reserves, one that is barred, and one that is released.
    let batch = |orders: &[OrderCreated]| -> Vec<Delivery> {
        let new = |order: &OrderCreated| usd(&order.customer_id, 10);
        let mixed = |order| {
            [
                delivery(&new(order)),
                cancelled(&new(order)),
                cancelled(order),
            ]
        };
        orders.iter().flat_map(mixed).collect()
    };
    let one = statements(postgres().await, &pool, batch(&orders[..1])).await;
    let many = statements(postgres().await, &pool, batch(&orders[1..])).await;
    assert_eq!(one, many);
    assert!((5..=11).contains(&one), "{one} statements for three events");
    let client = pool.get().await.unwrap();
    let released = "reservations WHERE state = 'released'";
    assert_eq!(count(&client, released).await, 200);
}
