//! What clients ask for, and are told.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use chassis::auth::Caller;
use chassis::failure;
use customer_service::api::Customers;
use harness::Postgres;
use proto::customers::v1::customer_service_server::CustomerService as _;
use proto::customers::v1::{
    CreateCustomerRequest, Customer, CustomerCreated, GetCustomerRequest, ListCustomersRequest,
    ListCustomersResponse,
};
use tokio::time::timeout;
use tonic::{Code, Status};
use uuid::Uuid;

use crate::support::{
    KEPT, count, customer, database, database_in, events, money, postgres, reserved,
};

async fn create(customers: &Customers, name: &str, limit: i64) -> Result<Customer, Status> {
    let request = CreateCustomerRequest {
        request_id: String::new(),
        name: name.to_owned(),
        credit_limit: money(limit, "USD"),
    };
    let created = customers
        .create_customer(Caller::Operator.asks(request))
        .await?;
    Ok(created.into_inner().customer.unwrap())
}

async fn get(customers: &Customers, customer_id: &str) -> Result<Customer, Status> {
    let request = GetCustomerRequest {
        customer_id: customer_id.to_owned(),
    };
    let found = customers
        .get_customer(Caller::Operator.asks(request))
        .await?;
    Ok(found.into_inner().customer.unwrap())
}

async fn page(
    customers: &Customers,
    page_size: i32,
    page_token: &str,
) -> Result<ListCustomersResponse, Status> {
    let request = ListCustomersRequest {
        page_size,
        page_token: page_token.to_owned(),
    };
    let listed = customers
        .list_customers(Caller::Operator.asks(request))
        .await?;
    Ok(listed.into_inner())
}

#[tokio::test]
async fn a_customer_and_its_event_commit_together() {
    let pool = database().await;
    let customers = Customers::new(pool.clone(), KEPT);
    let created = create(&customers, "Zoë O'Brien", 250).await.unwrap();
    assert_eq!(
        get(&customers, &created.customer_id).await.unwrap(),
        created
    );

    let client = pool.get().await.unwrap();
    let event: Vec<CustomerCreated> = events(&client).await;
    assert_eq!(
        event,
        [CustomerCreated {
            customer_id: created.customer_id,
            name: created.name,
            credit_limit: created.credit_limit,
            create_time: created.create_time,
        }]
    );
    let same = "SELECT customers.xmin = outbox.xmin FROM customers, outbox";
    let row = client.query_one(same, &[]).await.unwrap();
    assert!(row.get::<_, bool>(0), "two transactions");

    // Neither without the other.
    let break_outbox = "ALTER TABLE outbox ADD CONSTRAINT nothing_fits CHECK (false) NOT VALID";
    client.batch_execute(break_outbox).await.unwrap();
    let refused = create(&customers, "Bob", 1).await.unwrap_err();
    assert_eq!(refused.code(), Code::Internal);
    assert!(!refused.message().contains("nothing_fits"), "{refused}");
    assert_eq!(count(&client, "customers").await, 1);
}

#[tokio::test]
async fn a_customer_shows_what_is_left() {
    let pool = database().await;
    let id = customer(&pool, 100).await.customer_id;
    let client = pool.get().await.unwrap();
    let take = "UPDATE customers SET reserved_minor_units = 30";
    client.batch_execute(take).await.unwrap();

    let shown = get(&Customers::new(pool.clone(), KEPT), &id).await.unwrap();
    assert_eq!(shown.credit_limit, money(100, "USD"));
    assert_eq!(shown.reserved, money(30, "USD"));
    assert_eq!(shown.available, money(70, "USD"));
    assert_eq!(reserved(&client, &id).await, 30);
}

#[tokio::test]
async fn an_unknown_customer_is_not_found() {
    let customers = Customers::new(database().await, KEPT);
    let id = Uuid::now_v7().to_string();
    let refused = get(&customers, &id).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    assert!(refused.message().contains(&id));
}

#[tokio::test]
async fn pages_stay_right_while_customers_are_added() {
    let pool = database().await;
    let customers = Customers::new(pool.clone(), KEPT);
    let mut expected = BTreeSet::new();
    for _ in 0..5 {
        expected.insert(customer(&pool, 1).await.customer_id);
    }
    let mut seen = Vec::new();
    let mut token = String::new();
    loop {
        let page = page(&customers, 2, &token).await.unwrap();
        assert!(page.customers.len() <= 2);
        seen.extend(page.customers.into_iter().map(|one| one.customer_id));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
        if expected.len() < 8 {
            expected.insert(customer(&pool, 1).await.customer_id);
            // Before the place that was reached: it shifts nothing.
            let early = "INSERT INTO customers VALUES ($1, 'early', 'USD', 0, 0, now())";
            let id = Uuid::from_u128(u128::from(seen.len() as u64));
            let client = pool.get().await.unwrap();
            client.execute(early, &[&id]).await.unwrap();
            // Between those that are still to come: it is one of them.
            let before = expected.iter().nth_back(1).unwrap();
            let between = Uuid::try_parse(before).unwrap().as_u128() + 1;
            let between = Uuid::from_u128(between);
            client.execute(early, &[&between]).await.unwrap();
            expected.insert(between.to_string());
        }
    }
    assert_eq!(seen, Vec::from_iter(expected));

    let refused = page(&customers, 2, "made-up").await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().starts_with("page_token: "), "{refused}");
}

#[tokio::test]
async fn a_page_of_the_longest_names_fits_a_message() {
    let pool = database().await;
    let client = pool.get().await.unwrap();
    let fill = "INSERT INTO customers \
                SELECT gen_random_uuid(), repeat('\u{1f4b3}', 200), 'USD', 9223372036854775807, \
                       9223372036854775807, now() \
                FROM generate_series(1, 1001)";
    client.batch_execute(fill).await.unwrap();
    let full = page(&Customers::new(pool, KEPT), 1000, "").await.unwrap();
    assert_eq!(full.customers.len(), 1000);
    assert!(prost::Message::encoded_len(&full) <= chassis::grpc::MESSAGE_SIZE_MAX);
}

#[tokio::test]
async fn a_stricter_rule_of_the_database_is_told_by_field() {
    // As when a newer version has migrated the database, and this one still serves.
    let pool = database().await;
    let customers = Customers::new(pool.clone(), KEPT);
    let client = pool.get().await.unwrap();
    for (name, rule, field) in [
        ("customers_name_length", "length(name) < 5", "name: "),
        ("customers_name_not_blank", "name <> '-'", "name: "),
        (
            "customers_limit_not_negative",
            "credit_limit_minor_units > 9",
            "credit_limit.minor_units: ",
        ),
        (
            "customers_currency_iso4217_form",
            "currency <> 'USD'",
            "credit_limit.currency: ",
        ),
    ] {
        let replace = format!(
            "ALTER TABLE customers DROP CONSTRAINT {name}, ADD CONSTRAINT {name} CHECK ({rule})"
        );
        client.batch_execute(&replace).await.unwrap();
        let (given, limit) = match field {
            "name: " if name.ends_with("blank") => ("-", 10),
            "name: " => ("Adelaide", 10),
            "credit_limit.minor_units: " => ("Ada", 9),
            _ => ("Ada", 10),
        };
        let refused = create(&customers, given, limit).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{name}: {refused}");
        assert!(refused.message().starts_with(field), "{refused}");
    }
}

#[tokio::test]
async fn without_a_free_connection_a_request_is_soon_told_to_try_again() {
    let pool = database_in(postgres().await, 1).await;
    let customers = Customers::new(pool.clone(), KEPT);
    let _busy = pool.get().await.unwrap();
    let asked = Instant::now();
    let refused = create(&customers, "Ada", 1).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().contains("try again"), "{refused}");
    assert!(asked.elapsed() < Duration::from_secs(6));
}

#[tokio::test]
async fn without_a_database_a_request_is_told_to_try_again() {
    let postgres = Postgres::start().await.unwrap();
    let pool = database_in(&postgres, 2).await;
    let customers = Customers::new(pool.clone(), KEPT);
    let id = create(&customers, "Ada", 1).await.unwrap().customer_id;

    postgres.stop().await.unwrap();
    for _ in 0..3 {
        let refused = get(&customers, &id).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable, "{refused}");
        assert!(refused.message().contains("try again"), "{refused}");
    }
    postgres.start_again().await.unwrap();
    assert_eq!(get(&customers, &id).await.unwrap().customer_id, id);
}

#[tokio::test]
async fn a_dropped_request_lends_no_busy_connection() {
    let pool = database_in(postgres().await, 1).await;
    let customers = Customers::new(pool.clone(), KEPT);
    let own = pool.get().await.unwrap();
    let name = own.query_one("SELECT current_database()", &[]).await;
    drop(own);
    let name: String = name.unwrap().get(0);
    let mut locker = postgres().await.connect(&name).await.unwrap();
    let lock = locker.transaction().await.unwrap();
    let all = "LOCK TABLE customers IN ACCESS EXCLUSIVE MODE";
    lock.batch_execute(all).await.unwrap();
    // As when its deadline passes.
    let dropped = timeout(Duration::from_millis(300), create(&customers, "Ada", 1)).await;
    assert!(dropped.is_err());

    let next = failure::connection(&pool).await.unwrap();
    let answered = timeout(Duration::from_secs(10), next.simple_query("SELECT 1")).await;
    answered.expect("an idle connection").unwrap();
    let waiting =
        "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'customers'::regclass";
    let waiting: i64 = lock.query_one(waiting, &[]).await.unwrap().get(0);
    assert_eq!(waiting, 0, "Postgres runs on what nobody waits for");
}
