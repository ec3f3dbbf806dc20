//! The operations that clients call. One set of methods serves gRPC and NATS requests alike.

use std::sync::Arc;

use chassis::grpc::MESSAGE_SIZE_MAX;
use chassis::{failure, invalid, rpc};
use deadpool_postgres::{Client, Pool};
use mailbox::outbox;
use proto::orders::v1::order_service_server::{OrderService, OrderServiceServer};
use proto::orders::v1::{
    CreateOrderRequest, CreateOrderResponse, GetOrderRequest, GetOrderResponse, ListOrdersRequest,
    ListOrdersResponse,
};
use tonic::service::Routes;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::domain::{Order, OrderId};
use crate::{store, wire};

/// The aggregate type of this service's events.
pub const AGGREGATE: &str = "order";

/// The Order Service's operations on its database.
#[derive(Debug)]
pub struct Orders {
    pool: Pool,
}

impl Orders {
    pub fn new(pool: Pool) -> Self {
        Self { pool }
    }

    /// Stores a new order together with its event, or neither (I1).
    async fn place(&self, order: &Order) -> Result<(), Status> {
        let created = wire::order_created(order);
        let event = outbox::Event::new(AGGREGATE, order.order_id.into(), &created);
        let mut connection = failure::connection(&self.pool).await?;
        let outcome = insert(&mut connection, order, event).await;
        connection.release();
        outcome
    }
}

async fn insert(client: &mut Client, order: &Order, event: outbox::Event) -> Result<(), Status> {
    let tx = client.transaction().await.map_err(failure::status)?;
    // Sent together: one round trip for both. The first one's error counts, because the second
    // fails only for being in the same transaction.
    let events = [event];
    let (inserted, appended) =
        tokio::join!(store::insert(&tx, order), outbox::append(&tx, &events));
    inserted.map_err(refused)?;
    appended.map_err(failure::status)?;
    tx.commit().await.map_err(failure::commit_status)
}

#[tonic::async_trait]
impl OrderService for Orders {
    async fn create_order(
        &self,
        request: Request<CreateOrderRequest>,
    ) -> Result<Response<CreateOrderResponse>, Status> {
        let asked = wire::CreateOrder::try_from(request.into_inner()).map_err(invalid)?;
        let order_id = Uuid::now_v7().into();
        let order = Order::place(order_id, asked.customer_id, asked.total, store::now());
        self.place(&order).await?;
        metrics::counter!("orders_created_total").increment(1);
        Ok(Response::new(CreateOrderResponse {
            order: Some(wire::order(&order)),
        }))
    }

    async fn get_order(
        &self,
        request: Request<GetOrderRequest>,
    ) -> Result<Response<GetOrderResponse>, Status> {
        let asked = wire::GetOrder::try_from(request.into_inner()).map_err(invalid)?;
        let connection = failure::connection(&self.pool).await?;
        let found = store::get(&connection, asked.order_id).await;
        connection.release();
        let order = found
            .map_err(refused)?
            .ok_or_else(|| not_found(asked.order_id))?;
        Ok(Response::new(GetOrderResponse {
            order: Some(wire::order(&order)),
        }))
    }

    async fn list_orders(
        &self,
        request: Request<ListOrdersRequest>,
    ) -> Result<Response<ListOrdersResponse>, Status> {
        let asked = wire::ListOrders::try_from(request.into_inner()).map_err(invalid)?;
        let connection = failure::connection(&self.pool).await?;
        // One more than the page holds tells whether there is a next page.
        let limit = asked.page_size + 1;
        let found = store::list(&connection, asked.customer_id, asked.after, limit).await;
        connection.release();
        let mut orders = found.map_err(refused)?;
        let is_last = orders.len() <= asked.page_size;
        orders.truncate(asked.page_size);
        let next_page_token = match orders.last() {
            Some(last) if !is_last => asked.token_after(last.order_id),
            _ => String::new(),
        };
        Ok(Response::new(ListOrdersResponse {
            orders: orders.iter().map(wire::order).collect(),
            next_page_token,
        }))
    }
}

/// The operations over gRPC.
pub fn grpc(orders: &Arc<Orders>) -> Routes {
    let server = OrderServiceServer::from_arc(Arc::clone(orders))
        .max_decoding_message_size(MESSAGE_SIZE_MAX)
        .max_encoding_message_size(MESSAGE_SIZE_MAX);
    Routes::new(server)
}

/// The same operations over NATS requests.
pub fn nats(orders: &Arc<Orders>) -> rpc::Api {
    let [create, get, list] = [(); 3].map(|()| Arc::clone(orders));
    rpc::Api::new(
        "order-service",
        env!("CARGO_PKG_VERSION"),
        "Takes orders, and tells what became of them",
        "orders.v1",
    )
    .operation("CreateOrder", move |request| {
        let orders = Arc::clone(&create);
        async move { orders.create_order(request).await }
    })
    .operation("GetOrder", move |request| {
        let orders = Arc::clone(&get);
        async move { orders.get_order(request).await }
    })
    .operation("ListOrders", move |request| {
        let orders = Arc::clone(&list);
        async move { orders.list_orders(request).await }
    })
}

fn invalid(invalid: wire::Invalid) -> Status {
    invalid::argument(invalid.field, invalid.why)
}

fn not_found(order_id: OrderId) -> Status {
    Status::not_found(format!("there is no order {}", Uuid::from(order_id)))
}

fn refused(error: store::Error) -> Status {
    match error {
        store::Error::NonPositiveTotal(why) => invalid::argument("total.minor_units", why),
        store::Error::MalformedCurrency(why) => invalid::argument("total.currency", why),
        store::Error::Postgres(error) => failure::status(error),
        unreadable @ store::Error::Unreadable(_) => failure::internal(&unreadable.to_string()),
    }
}
