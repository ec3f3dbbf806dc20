//! A migrated database for each test, and how requests and events reach the service in it.

use std::time::Duration;

use chassis::auth::Caller;
use deadpool_postgres::Pool;
use harness::Postgres;
use mailbox::consumer::{Failure, Handler as _};
use mailbox::inbox::{self, Delivery};
use order_service::api::Orders;
use order_service::reactions::Reactions;
use prost::{Message, Name};
use proto::money::v1::Money;
use proto::orders::v1::order_service_server::OrderService as _;
use proto::orders::v1::{CancelOrderRequest, CreateOrderRequest, GetOrderRequest, Order};
use tokio::sync::OnceCell;
use tokio_postgres::{Client, Transaction};
use tonic::Status;
use uuid::Uuid;

/// How long orders may be pending; no test waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

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
            "order_service_migrations",
            order_service::migrations::runner(),
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

/// Asks for a new order in USD.
pub(crate) async fn create(
    orders: &Orders,
    customer_id: Uuid,
    total: i64,
) -> Result<Order, Status> {
    let request = CreateOrderRequest {
        wait: None,
        request_id: String::new(),
        customer_id: customer_id.to_string(),
        total: money(total, "USD"),
    };
    let created = orders.create_order(Caller::Operator.asks(request)).await?;
    Ok(created.into_inner().order.unwrap())
}

/// A new pending order of a customer of its own.
pub(crate) async fn pending(pool: &Pool) -> Order {
    let orders = Orders::new(pool.clone(), PATIENCE, KEPT);
    create(&orders, Uuid::now_v7(), 100).await.unwrap()
}

pub(crate) async fn get(orders: &Orders, order_id: &str) -> Result<Order, Status> {
    let request = GetOrderRequest {
        wait: None,
        order_id: order_id.to_owned(),
    };
    let found = orders.get_order(Caller::Operator.asks(request)).await?;
    Ok(found.into_inner().order.unwrap())
}

/// Asks for an order to be cancelled.
pub(crate) async fn cancel(orders: &Orders, order_id: &str) -> Result<Order, Status> {
    let request = CancelOrderRequest {
        request_id: String::new(),
        order_id: order_id.to_owned(),
    };
    let cancelled = orders.cancel_order(Caller::Operator.asks(request)).await?;
    Ok(cancelled.into_inner().order.unwrap())
}

/// A delivery of a new event.
pub(crate) fn delivery<M: Message + Name>(message: &M) -> Delivery {
    let payload = message.encode_to_vec().into();
    Delivery::new(Uuid::now_v7(), M::full_name(), "", payload)
}

/// Claims and handles, as the consumer does.
pub(crate) async fn handle(tx: &Transaction<'_>, events: Vec<Delivery>) -> Result<(), Failure> {
    let claimed = inbox::claim(tx, "order-service", events).await.unwrap();
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
