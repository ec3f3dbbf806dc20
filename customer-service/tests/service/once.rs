//! A customer that is asked for with an id is made once, and each retry gets the first answer.

use std::time::Duration;

use chassis::auth::Caller;
use customer_service::api::Customers;
use deadpool_postgres::Pool;
use mailbox::requests;
use proto::customers::v1::customer_service_server::CustomerService as _;
use proto::customers::v1::{CreateCustomerRequest, Customer, SetCreditLimitRequest};
use tonic::{Code, Status};
use uuid::{ContextV7, Timestamp, Uuid};

use crate::support::{KEPT, count, database, database_in, money, postgres};

async fn create(pool: &Pool, id: &str, name: &str, limit: i64) -> Result<Customer, Status> {
    let request = CreateCustomerRequest {
        name: name.to_owned(),
        credit_limit: money(limit, "USD"),
        request_id: id.to_owned(),
    };
    let customers = Customers::new(pool.clone(), KEPT);
    let created = customers
        .create_customer(Caller::Operator.asks(request))
        .await?;
    Ok(created.into_inner().customer.unwrap())
}

async fn set_limit(pool: &Pool, id: &str, customer_id: &str, limit: i64) -> Result<(), Status> {
    let request = SetCreditLimitRequest {
        customer_id: customer_id.to_owned(),
        credit_limit: money(limit, "USD"),
        request_id: id.to_owned(),
    };
    let customers = Customers::new(pool.clone(), KEPT);
    customers
        .set_credit_limit(Caller::Operator.asks(request))
        .await?;
    Ok(())
}

fn new_id() -> String {
    Uuid::now_v7().to_string()
}

#[tokio::test]
async fn a_repeated_create_makes_one_customer_and_gets_the_first_answer() {
    let pool = database().await;
    let id = new_id();
    let first = create(&pool, &id, "Ada", 100).await.unwrap();
    set_limit(&pool, "", &first.customer_id, 700).await.unwrap();

    // Whatever has happened since.
    assert_eq!(create(&pool, &id, "Ada", 100).await.unwrap(), first);
    let client = pool.get().await.unwrap();
    assert_eq!(count(&client, "customers").await, 1);
    assert_eq!(count(&client, "outbox").await, 2);
    // Without an id each is a customer of its own.
    create(&pool, "", "Ada", 100).await.unwrap();
    create(&pool, "", "Ada", 100).await.unwrap();
    assert_eq!(count(&client, "customers").await, 3);
}

#[tokio::test]
async fn an_id_of_another_request_is_refused_and_makes_nobody() {
    let pool = database().await;
    let id = new_id();
    let customer = create(&pool, &id, "Ada", 100).await.unwrap();
    let limit_id = new_id();
    let set = set_limit(&pool, &limit_id, &customer.customer_id, 200).await;
    set.unwrap();
    let tries = [
        create(&pool, &id, "Ada", 101).await.map(|_| ()),
        create(&pool, &id, "Eve", 100).await.map(|_| ()),
        create(&pool, &limit_id, "Ada", 100).await.map(|_| ()),
        set_limit(&pool, &id, &customer.customer_id, 100).await,
        create(&pool, "x", "Ada", 100).await.map(|_| ()),
    ];
    for refused in tries.map(Result::unwrap_err) {
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        assert!(refused.message().starts_with("request_id: "), "{refused}");
    }
    let client = pool.get().await.unwrap();
    assert_eq!(count(&client, "customers").await, 1);
    // A refused request is decided anew.
    let id = new_id();
    create(&pool, &id, "", 1).await.unwrap_err();
    create(&pool, &id, "Ada", 1).await.unwrap();
}

/// As beside a replica that keeps less, or after the setting was raised.
#[tokio::test]
async fn an_id_of_a_day_that_the_database_has_forgotten_changes_nothing() {
    let pool = database().await;
    let customer = create(&pool, "", "Ada", 100).await.unwrap();
    let two_days = Duration::from_secs(2 * 86_400);
    requests::maintain_once(&pool, two_days).await.unwrap();
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let drawn = Timestamp::from_unix(ContextV7::new(), now - 5 * 86_400, 0);
    let id = Uuid::new_v7(drawn).to_string();
    let tries = [
        create(&pool, &id, "Ada", 100).await.map(|_| ()),
        set_limit(&pool, &id, &customer.customer_id, 200).await,
    ];
    for refused in tries.map(Result::unwrap_err) {
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        assert!(refused.message().contains("too long ago"), "{refused}");
    }
    let client = pool.get().await.unwrap();
    assert_eq!(count(&client, "customers").await, 1);
    assert_eq!(count(&client, "outbox").await, 1);
}

#[tokio::test]
async fn of_many_tries_at_once_one_makes_a_customer_and_all_get_its_answer() {
    let pool = database_in(postgres().await, 8).await;
    let id = new_id();
    let tries = (0..8).map(|_| {
        let (pool, id) = (pool.clone(), id.clone());
        tokio::spawn(async move {
            loop {
                // As clients do: a busy machine may not have a connection in time.
                match create(&pool, &id, "Ada", 100).await {
                    Err(busy) if busy.code() == Code::Unavailable => {}
                    answer => break answer,
                }
            }
        })
    });
    let mut answers = Vec::new();
    for one in tries.collect::<Vec<_>>() {
        answers.push(one.await.unwrap().unwrap());
    }
    assert!(answers.iter().all(|one| *one == answers[0]), "{answers:?}");
    let client = pool.get().await.unwrap();
    assert_eq!(count(&client, "customers").await, 1);
    assert_eq!(count(&client, "outbox").await, 1);
}
