//! A migrated database for each test, and how requests and events reach the service in it.

use std::time::Duration;

use chassis::auth::Caller;
use customer_service::api::Customers;
use customer_service::reactions::Reactions;
use deadpool_postgres::Pool;
use harness::Postgres;
use mailbox::consumer::{Failure, Handler as _};
use mailbox::inbox::{self, Delivery};
use prost::{Message, Name};
use proto::customers::v1::customer_service_server::CustomerService as _;
use proto::customers::v1::{CreateCustomerRequest, Customer};
use proto::money::v1::Money;
use tokio::sync::OnceCell;
use tokio_postgres::{Client, Transaction};
use uuid::Uuid;

/// For how long answers are kept; no test waits for it.
pub(crate) const KEPT: Duration = Duration::from_secs(7 * 86_400);

/// One cluster for all tests of this file. The harness ends it with the process.
static POSTGRES: OnceCell<Postgres> = OnceCell::const_new();

pub(crate) async fn postgres() -> &'static Postgres {
    let start = async || Postgres::start().await.unwrap();
    POSTGRES.get_or_init(start).await
}

/// A database of its own in the common cluster.
pub(crate) async fn database() -> Pool {
    database_in(postgres().await, 4).await
}

pub(crate) async fn database_in(postgres: &Postgres, pool_size: usize) -> Pool {
    let name = Uuid::now_v7().to_string();
    postgres.create_database(&name).await.unwrap();
    let url = postgres.url(&name).parse().unwrap();
    let config = chassis::config::Database {
        url,
        password_file: None,
        pool_size,
    };
    let pool = chassis::database::connect(&config, "test").await.unwrap();
    let schema = vec![
        ("requests_migrations", mailbox::requests::migrations()),
        ("mailbox_migrations", mailbox::migrations()),
        (
            "customer_service_migrations",
            customer_service::migrations::runner(),
        ),
    ];
    chassis::database::migrate(&pool, schema).await.unwrap();
    pool
}

pub(crate) fn money(minor_units: i64, currency: &str) -> Option<Money> {
    Some(Money {
        minor_units,
        currency: currency.to_owned(),
    })
}

/// A new customer with a limit in USD.
pub(crate) async fn customer(pool: &Pool, limit: i64) -> Customer {
    let request = CreateCustomerRequest {
        request_id: String::new(),
        name: "Ada".to_owned(),
        credit_limit: money(limit, "USD"),
    };
    let created = Customers::new(pool.clone(), KEPT)
        .create_customer(Caller::Operator.asks(request))
        .await;
    created.unwrap().into_inner().customer.unwrap()
}

/// Minor units that the customer has reserved.
pub(crate) async fn reserved(client: &Client, customer_id: &str) -> i64 {
    let sql = "SELECT reserved_minor_units FROM customers WHERE customer_id = $1";
    let id = Uuid::try_parse(customer_id).unwrap();
    client.query_one(sql, &[&id]).await.unwrap().get(0)
}

/// A delivery of a new event.
pub(crate) fn delivery<M: Message + Name>(message: &M) -> Delivery {
    let payload = message.encode_to_vec().into();
    Delivery::new(Uuid::now_v7(), M::full_name(), "", payload)
}

/// Claims and handles, as the consumer does.
pub(crate) async fn handle(tx: &Transaction<'_>, events: Vec<Delivery>) -> Result<(), Failure> {
    let claimed = inbox::claim(tx, "customer-service", events).await.unwrap();
    match claimed.as_slice() {
        [] => Ok(()),
        new => Reactions.handle(tx, new).await,
    }
}

/// Claims, handles and commits.
pub(crate) async fn apply(pool: &Pool, events: Vec<Delivery>) -> Result<(), Failure> {
    let mut client = pool.get().await.unwrap();
    let tx = client.transaction().await.unwrap();
    handle(&tx, events).await?;
    tx.commit().await.unwrap();
    Ok(())
}

/// The events of one type in the outbox, in their order.
pub(crate) async fn events<M: Message + Name + Default>(client: &Client) -> Vec<M> {
    let sql = "SELECT payload FROM outbox WHERE type = $1 ORDER BY id";
    let rows = client.query(sql, &[&M::full_name()]).await.unwrap();
    rows.iter()
        .map(|row| M::decode(row.get::<_, &[u8]>(0)).unwrap())
        .collect()
}

pub(crate) async fn count(client: &Client, table: &str) -> i64 {
    let sql = format!("SELECT count(*) FROM {table}");
    client.query_one(&sql, &[]).await.unwrap().get(0)
}
