//! The operations that clients call. One set of methods serves gRPC and NATS requests alike.

use std::collections::BTreeSet;
use std::time::Duration;

use chassis::admission::Admission;
use chassis::auth::Caller;
use chassis::{failure, invalid};
use deadpool_postgres::{Client, Pool};
use futures_util::stream::BoxStream;
use mailbox::outbox;
use mailbox::requests::Key;
use proto::orders::v1::order_service_server::OrderService;
use proto::orders::v1::{
    CancelOrderRequest, CancelOrderResponse, CreateOrderRequest, CreateOrderResponse,
    GetOrderRequest, GetOrderResponse, ListOrdersRequest, ListOrdersResponse, WatchOrderRequest,
    WatchOrderResponse,
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::backlog::{Admitted, Backlog};
use crate::changes::Changes;
use crate::domain::{Input, Order, OrderId};
use crate::placing::{Placing, Queued};
use crate::watch::Hub;
use crate::{once, store, wire};

mod doors;
mod repeats;
mod waits;

pub use doors::{grpc, nats};
use repeats::Repeats;
use waits::Patience;

/// The aggregate type of this service's events.
pub const AGGREGATE: &str = "order";

/// The NATS service for this service's dead letters, and what its subjects begin with.
pub const DEAD_LETTERS: (&str, &str) = (
    "order-service-dead-letters",
    "dead_letters.v1.order-service",
);

/// Without a hub of its own, so many may wait.
const WATCHERS_MAX: usize = 1_000;

/// The Order Service's operations on its database.
#[derive(Debug)]
pub struct Orders {
    pool: Pool,
    backlog: Backlog,
    placing: Placing,
    repeats: Repeats,
    patience: Duration,
    kept: Duration,
    hub: Hub,
}

impl Orders {
    /// Orders that are placed here may be pending for `patience` (I8). Answers to requests with an id are
    /// kept for `kept`.
    pub fn new(pool: Pool, patience: Duration, kept: Duration) -> Self {
        let hub = Hub::new(WATCHERS_MAX, CancellationToken::new());
        Self {
            backlog: Backlog::new(usize::MAX),
            placing: Placing::new(pool.clone()),
            repeats: Repeats::new(pool.clone()),
            pool,
            patience,
            kept,
            hub,
        }
    }

    /// Who waits for an order here is told of its outcome by `hub`, which has a reader. Until this is
    /// called nobody is.
    #[must_use]
    pub fn watched_by(self, hub: Hub) -> Self {
        Self { hub, ..self }
    }

    /// No order is taken while `backlog`, which somebody counts, is full. Until this is called all are.
    #[must_use]
    pub fn bounded_by(self, backlog: Backlog) -> Self {
        Self { backlog, ..self }
    }

    /// Reads one order that the caller may see.
    async fn find(&self, order_id: OrderId, caller: Caller) -> Result<Order, Status> {
        let connection = failure::connection(&self.pool).await?;
        let found = store::get(&connection, order_id).await;
        connection.release();
        seen(found.map_err(refused)?, order_id, caller)
    }

    /// Stores a new order together with its event, or neither (I1). When the request was granted before, the
    /// answer of then, also where there is no room for a new one.
    async fn place(
        &self,
        order: &Order,
        request: Option<&Key>,
    ) -> Result<CreateOrderResponse, Status> {
        let (admitted, queued) = match self.queue(order, request) {
            Ok(taken) => taken,
            Err(no_room) => return self.repeats.answer(request, no_room).await,
        };
        let answer = queued.answer().await?;
        if !repeats::is_of(order, &answer) {
            self.backlog.give_back(admitted);
        }
        Ok(answer)
    }

    fn queue(&self, order: &Order, request: Option<&Key>) -> Result<(Admitted, Queued), Status> {
        let admitted = self.backlog.admit();
        let admitted = admitted.map_err(|full| Status::resource_exhausted(full.to_string()))?;
        let created = wire::order_created(order);
        let event = outbox::Event::new(AGGREGATE, order.order_id.into(), &created);
        match self.placing.queue(order, event, request) {
            Ok(queued) => Ok((admitted, queued)),
            Err(busy) => {
                self.backlog.give_back(admitted);
                Err(busy)
            }
        }
    }

    /// Cancels an order, and tells how it stands then.
    async fn cancel(
        &self,
        (order_id, caller): (OrderId, Caller),
        request: Option<&Key>,
    ) -> Result<CancelOrderResponse, Status> {
        let mut connection = failure::connection(&self.pool).await?;
        let outcome = cancel(&mut connection, (order_id, caller), request).await;
        connection.release();
        outcome
    }
}

async fn cancel(
    client: &mut Client,
    (order_id, caller): (OrderId, Caller),
    request: Option<&Key>,
) -> Result<CancelOrderResponse, Status> {
    let tx = client.transaction().await.map_err(failure::status)?;
    let found = store::lock(&tx, &BTreeSet::from([order_id])).await;
    // Before the answer to an earlier try is looked for, which is its owner's alone.
    let mut order = seen(found.map_err(refused)?.remove(&order_id), order_id, caller)?;
    let mut changes = Changes::default();
    changes.apply(&mut order, Input::Cancel, store::now(), None);
    let answer = CancelOrderResponse {
        order: Some(wire::order(&order)),
    };
    let recorded = once::record(&tx, request, &answer).await;
    if !recorded? {
        tx.rollback().await.map_err(failure::status)?;
        return once::in_its_stead(client, request).await;
    }
    changes.write(&tx).await.map_err(refused)?;
    tx.commit().await.map_err(failure::commit_status)?;
    Ok(answer)
}

#[tonic::async_trait]
impl OrderService for Orders {
    async fn create_order(
        &self,
        request: Request<CreateOrderRequest>,
    ) -> Result<Response<CreateOrderResponse>, Status> {
        let caller = Caller::of(&request)?;
        // For how long to wait is no part of what the request is known by.
        let wait = wire::wait(request.get_ref().wait).map_err(invalid)?;
        let patience = Patience::of(&request, wait);
        let mut message = request.into_inner();
        message.wait = None;
        let id = std::mem::take(&mut message.request_id);
        let request = once::request(&id, "orders.v1.CreateOrder", &message, self.kept)?;
        let asked = wire::CreateOrder::try_from(message).map_err(invalid)?;
        caller.check(asked.customer_id)?;
        let order_id = Uuid::now_v7().into();
        let order = Order::place(
            order_id,
            asked.customer_id,
            asked.total,
            store::now(),
            self.patience,
        );
        let answer = match patience {
            None => self.place(&order, request.as_ref()).await?,
            Some(patience) => {
                let request = (request.as_ref(), caller);
                self.place_and_wait(order, request, &patience).await?
            }
        };
        Ok(Response::new(answer))
    }

    async fn cancel_order(
        &self,
        request: Request<CancelOrderRequest>,
    ) -> Result<Response<CancelOrderResponse>, Status> {
        let caller = Caller::of(&request)?;
        let mut message = request.into_inner();
        let id = std::mem::take(&mut message.request_id);
        let request = once::request(&id, "orders.v1.CancelOrder", &message, self.kept)?;
        let asked = wire::CancelOrder::try_from(message).map_err(invalid)?;
        let answer = self
            .cancel((asked.order_id, caller), request.as_ref())
            .await?;
        Ok(Response::new(answer))
    }

    async fn get_order(
        &self,
        request: Request<GetOrderRequest>,
    ) -> Result<Response<GetOrderResponse>, Status> {
        let caller = Caller::of(&request)?;
        let wait = wire::wait(request.get_ref().wait).map_err(invalid)?;
        let patience = Patience::of(&request, wait);
        let asked = wire::GetOrder::try_from(request.into_inner()).map_err(invalid)?;
        let order = match patience {
            None => self.find(asked.order_id, caller).await?,
            Some(patience) => self.outcome(asked.order_id, caller, &patience).await?,
        };
        Ok(Response::new(GetOrderResponse {
            order: Some(wire::order(&order)),
        }))
    }

    type WatchOrderStream = BoxStream<'static, Result<WatchOrderResponse, Status>>;

    async fn watch_order(
        &self,
        request: Request<WatchOrderRequest>,
    ) -> Result<Response<Self::WatchOrderStream>, Status> {
        let (caller, admission) = (Caller::of(&request)?, Admission::of(&request));
        let asked = wire::WatchOrder::try_from(request.into_inner()).map_err(invalid)?;
        let watcher = self.hub.watch(asked.order_id).map_err(waits::full)?;
        let order = self.find(asked.order_id, caller).await?;
        admission.give_up_place();
        Ok(Response::new(waits::changes(order, watcher)))
    }

    async fn list_orders(
        &self,
        request: Request<ListOrdersRequest>,
    ) -> Result<Response<ListOrdersResponse>, Status> {
        let caller = Caller::of(&request)?;
        let mut message = request.into_inner();
        if let (Some(only), true) = (caller.only(), message.customer_id.is_empty()) {
            message.customer_id = only.to_string();
        }
        let asked = wire::ListOrders::try_from(message).map_err(invalid)?;
        if let Some(customer_id) = asked.customer_id {
            caller.check(customer_id)?;
        }
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

fn invalid(invalid: wire::Invalid) -> Status {
    invalid::argument(invalid.field, invalid.why)
}

/// The order, if there is one that the caller may see: another's is not there, in the same words.
fn seen(found: Option<Order>, order_id: OrderId, caller: Caller) -> Result<Order, Status> {
    let found = found.filter(|order| caller.may_deal_with(order.customer_id));
    found.ok_or_else(|| not_found(order_id))
}

fn not_found(order_id: OrderId) -> Status {
    Status::not_found(format!("there is no order {}", Uuid::from(order_id)))
}

pub(crate) fn refused(error: store::Error) -> Status {
    match error {
        store::Error::NonPositiveTotal(why) => invalid::argument("total.minor_units", why),
        store::Error::MalformedCurrency(why) => invalid::argument("total.currency", why),
        store::Error::Postgres(error) => failure::status(error),
        unreadable @ store::Error::Unreadable(_) => failure::internal(&unreadable.to_string()),
    }
}
