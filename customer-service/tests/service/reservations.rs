//! What was answered to a customer's orders, as clients see it.

use std::collections::BTreeSet;

use chassis::auth::Caller;
use customer_service::api::Customers;
use deadpool_postgres::Pool;
use proto::customers::v1::customer_service_server::CustomerService as _;
use proto::customers::v1::{
    ListReservationsRequest, ListReservationsResponse, RefusalReason, Reservation, ReservationState,
};
use proto::orders::v1::OrderCreated;
use tonic::{Code, Status};
use uuid::Uuid;

use crate::reactions::{order, usd};
use crate::releases::cancelled;
use crate::support::{KEPT, apply, customer, database, delivery};

async fn page(
    pool: &Pool,
    customer_id: &str,
    page_size: i32,
    page_token: &str,
) -> Result<ListReservationsResponse, Status> {
    let request = ListReservationsRequest {
        customer_id: customer_id.to_owned(),
        page_size,
        page_token: page_token.to_owned(),
    };
    let customers = Customers::new(pool.clone(), KEPT);
    let listed = customers
        .list_reservations(Caller::Operator.asks(request))
        .await?;
    Ok(listed.into_inner())
}

async fn all(pool: &Pool, customer_id: &str) -> Vec<Reservation> {
    page(pool, customer_id, 0, "").await.unwrap().reservations
}

async fn ask(pool: &Pool, orders: &[&OrderCreated]) {
    let asks = orders.iter().map(|order| delivery(*order)).collect();
    apply(pool, asks).await.unwrap();
}

#[tokio::test]
async fn each_answer_is_listed_with_its_state_and_times_in_the_orders_order() {
    let pool = database().await;
    let id = customer(&pool, 100).await.customer_id;
    let other = customer(&pool, 100).await.customer_id;
    let active = usd(&id, 60);
    let too_much = usd(&id, 70);
    let francs = order(&id, 1, "CHF");
    let released = usd(&id, 10);
    let barred = usd(&id, 20);
    // In another order than that of the orders.
    ask(&pool, &[&released, &usd(&other, 1), &active]).await;
    ask(&pool, &[&francs, &too_much]).await;
    let cancels = vec![cancelled(&released), cancelled(&barred)];
    apply(&pool, cancels).await.unwrap();

    let listed = all(&pool, &id).await;
    let expected = [
        (
            &active,
            ReservationState::Active,
            RefusalReason::Unspecified,
        ),
        (
            &too_much,
            ReservationState::Refused,
            RefusalReason::CreditLimitExceeded,
        ),
        (
            &francs,
            ReservationState::Refused,
            RefusalReason::CurrencyMismatch,
        ),
        (
            &released,
            ReservationState::Released,
            RefusalReason::Unspecified,
        ),
        (
            &barred,
            ReservationState::Released,
            RefusalReason::Unspecified,
        ),
    ];
    assert_eq!(listed.len(), expected.len());
    for (shown, (order, state, reason)) in listed.iter().zip(expected) {
        assert_eq!(shown.order_id, order.order_id);
        assert_eq!(shown.amount, order.total);
        assert_eq!((shown.state(), shown.refusal_reason()), (state, reason));
        assert!(shown.create_time.is_some());
        let is_released = state == ReservationState::Released;
        assert_eq!(shown.release_time.is_some(), is_released, "{shown:?}");
    }
    let time = |time: &Option<proto::Timestamp>| {
        let time = time.unwrap();
        (time.seconds, time.nanos)
    };
    let shown = &listed[3];
    assert!(time(&shown.release_time) > time(&shown.create_time));
}

#[tokio::test]
async fn what_was_refused_to_nobody_is_listed_too() {
    let pool = database().await;
    let nobody = Uuid::now_v7().to_string();
    assert_eq!(all(&pool, &nobody).await, []);
    ask(&pool, &[&usd(&nobody, 1)]).await;
    let listed = all(&pool, &nobody).await;
    assert_eq!(listed[0].refusal_reason(), RefusalReason::CustomerNotFound);
    let refused = page(&pool, "x", 0, "").await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().starts_with("customer_id: "), "{refused}");
}

#[tokio::test]
async fn pages_stay_right_while_orders_are_answered() {
    let pool = database().await;
    let id = customer(&pool, 1_000).await.customer_id;
    let other = customer(&pool, 1_000).await.customer_id;
    // Orders are answered in any order: those that came late sort before, between and behind the others.
    let orders: Vec<OrderCreated> = (0..20).map(|_| usd(&id, 1)).collect();
    let (early, late): (Vec<_>, Vec<_>) = (0..20).partition(|at| at % 2 == 1);
    for at in &early {
        ask(&pool, &[&orders[*at], &usd(&other, 1)]).await;
    }
    let mut seen: Vec<String> = Vec::new();
    let mut missed = BTreeSet::new();
    let mut late = late.into_iter();
    let mut token = String::new();
    loop {
        let page = page(&pool, &id, 3, &token).await.unwrap();
        assert!(page.reservations.len() <= 3);
        seen.extend(page.reservations.into_iter().map(|one| one.order_id));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
        // One before the place that was reached, and the last of those behind it.
        for at in [late.next(), late.next_back()].into_iter().flatten() {
            let order = &orders[at];
            ask(&pool, &[order]).await;
            if order.order_id < *seen.last().unwrap() {
                missed.insert(order.order_id.clone());
            }
        }
    }
    assert!(!missed.is_empty());
    let listed = all(&pool, &id).await;
    let expected: Vec<String> = listed
        .into_iter()
        .map(|one| one.order_id)
        .filter(|id| !missed.contains(id))
        .collect();
    assert_eq!(seen, expected);

    let first = page(&pool, &id, 3, "").await.unwrap();
    let foreign = page(&pool, &other, 3, &first.next_page_token).await;
    let refused = foreign.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().starts_with("page_token: "), "{refused}");
}
