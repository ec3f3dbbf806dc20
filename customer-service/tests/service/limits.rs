//! What clients are told who change a credit limit.

use chassis::auth::Caller;
use customer_service::api::Customers;
use deadpool_postgres::Pool;
use proto::customers::v1::customer_service_server::CustomerService as _;
use proto::customers::v1::{CreditLimitChanged, Customer, SetCreditLimitRequest};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use uuid::Uuid;

use crate::reactions::usd;
use crate::support::{KEPT, apply, customer, database, delivery, events, money, reserved};

async fn set(pool: &Pool, customer_id: &str, limit: i64, code: &str) -> Result<Customer, Status> {
    let request = SetCreditLimitRequest {
        request_id: String::new(),
        customer_id: customer_id.to_owned(),
        credit_limit: money(limit, code),
    };
    let customers = Customers::new(pool.clone(), KEPT);
    let set = customers
        .set_credit_limit(Caller::Operator.asks(request))
        .await?;
    Ok(set.into_inner().customer.unwrap())
}

#[tokio::test]
async fn a_limit_and_its_event_change_together() {
    let pool = database().await;
    let id = customer(&pool, 100).await.customer_id;
    apply(&pool, vec![delivery(&usd(&id, 60))]).await.unwrap();

    // Down to what is reserved, up again; and once to what it is already, which nobody is told.
    for limit in [60, 500, 500] {
        let shown = set(&pool, &id, limit, "USD").await.unwrap();
        assert_eq!(shown.credit_limit, money(limit, "USD"));
        assert_eq!(shown.reserved, money(60, "USD"));
        assert_eq!(shown.available, money(limit - 60, "USD"));
    }
    let client = pool.get().await.unwrap();
    let told: Vec<CreditLimitChanged> = events(&client).await;
    let change = |from, to| CreditLimitChanged {
        customer_id: id.clone(),
        credit_limit: money(to, "USD"),
        previous_credit_limit: money(from, "USD"),
    };
    assert_eq!(told, [change(100, 60), change(60, 500)]);

    // Neither without the other.
    let break_outbox = "ALTER TABLE outbox ADD CONSTRAINT nothing_fits CHECK (false) NOT VALID";
    client.batch_execute(break_outbox).await.unwrap();
    let refused = set(&pool, &id, 700, "USD").await.unwrap_err();
    assert_eq!(refused.code(), Code::Internal);
    let limit = "SELECT credit_limit_minor_units FROM customers";
    let limit = client.query_one(limit, &[]).await.unwrap();
    assert_eq!(limit.get::<_, i64>(0), 500);
}

#[tokio::test]
async fn a_limit_below_what_is_reserved_is_refused_saying_by_how_much() {
    let pool = database().await;
    let id = customer(&pool, 100).await.customer_id;
    apply(&pool, vec![delivery(&usd(&id, 60))]).await.unwrap();

    let refused = set(&pool, &id, 45, "USD").await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let said = "credit_limit.minor_units: 60 minor units of USD are reserved, 15 more than 45";
    assert_eq!(refused.message(), said);
    let details = refused.get_details_precondition_failure().unwrap();
    assert_eq!(details.violations[0].r#type, "RESERVED");
    assert_eq!(details.violations[0].subject, format!("customers/{id}"));

    let refused = set(&pool, &id, 500, "EUR").await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("must be USD"), "{refused}");
    let client = pool.get().await.unwrap();
    assert_eq!(events::<CreditLimitChanged>(&client).await, []);
}

#[tokio::test]
async fn a_limit_of_nobody_is_not_found() {
    let pool = database().await;
    let id = Uuid::now_v7().to_string();
    let refused = set(&pool, &id, 1, "USD").await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    assert!(refused.message().contains(&id));
}

#[tokio::test]
async fn a_limit_that_falls_while_credit_is_reserved_never_falls_below_it() {
    let pool = database().await;
    let id = customer(&pool, 100).await.customer_id;
    let client = pool.get().await.unwrap();
    for _ in 0..20 {
        let (asks, lower) = tokio::join!(
            apply(&pool, vec![delivery(&usd(&id, 5))]),
            set(&pool, &id, reserved(&client, &id).await, "USD")
        );
        asks.unwrap();
        if let Err(refused) = lower {
            assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
        }
        set(&pool, &id, 1_000, "USD").await.unwrap();
    }
}

#[tokio::test]
async fn a_repeated_change_gets_the_first_answer_and_another_one_is_refused() {
    let pool = database().await;
    let id = customer(&pool, 100).await.customer_id;
    let customers = Customers::new(pool.clone(), KEPT);
    let request_id = Uuid::now_v7().to_string();
    let ask = async |limit| {
        let request = SetCreditLimitRequest {
            customer_id: id.clone(),
            credit_limit: money(limit, "USD"),
            request_id: request_id.clone(),
        };
        let set = customers
            .set_credit_limit(Caller::Operator.asks(request))
            .await?;
        Ok::<_, Status>(set.into_inner().customer.unwrap())
    };
    let first = ask(50).await.unwrap();
    // By now it would be refused, and would undo what was done since.
    set(&pool, &id, 1_000, "USD").await.unwrap();
    apply(&pool, vec![delivery(&usd(&id, 600))]).await.unwrap();
    assert_eq!(ask(50).await.unwrap(), first);

    let client = pool.get().await.unwrap();
    assert_eq!(events::<CreditLimitChanged>(&client).await.len(), 2);
    let refused = ask(700).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().starts_with("request_id: "), "{refused}");
    assert_eq!(reserved(&client, &id).await, 600);
}
