//! A replica whose watched orders are looked at, over gRPC too; other replicas are pools of their own on the
//! same database.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use chassis::auth::Caller;
use chassis::health::Health;
use deadpool_postgres::Pool;
use harness::Nats;
use order_service::api::{self, Orders};
use order_service::watch::reader::LOOK_AT_ALL_EVERY;
use order_service::watch::{self, Hub};
use proto::orders::v1::order_service_client::OrderServiceClient;
use proto::orders::v1::order_service_server::OrderService as _;
use proto::orders::v1::{Order, WatchOrderRequest, WatchOrderResponse};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Status;
use tonic::codegen::tokio_stream::StreamExt as _;
use tonic::service::Routes;
use tonic::transport::Channel;

use crate::support::{KEPT, PATIENCE, database};

/// Nothing takes so long here, however busy the machine is.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// Enough where it does not matter.
pub(crate) const WATCHERS: usize = 100;

pub(crate) struct Replica {
    pub(crate) pool: Pool,
    pub(crate) hub: Hub,
    pub(crate) orders: Arc<Orders>,
    pub(crate) token: CancellationToken,
    _ends: DropGuard,
}

impl Replica {
    pub(crate) async fn start(watchers: usize) -> Self {
        Self::on(database().await, watchers)
    }

    pub(crate) fn on(pool: Pool, watchers: usize) -> Self {
        Self::with_clock(pool, watchers, LOOK_AT_ALL_EVERY)
    }

    /// Nobody is told of anything but for signals.
    pub(crate) fn without_clock(pool: Pool, watchers: usize) -> Self {
        Self::with_clock(pool, watchers, Duration::from_secs(3_600))
    }

    fn with_clock(pool: Pool, watchers: usize, every: Duration) -> Self {
        let token = CancellationToken::new();
        let hub = Hub::new(watchers, token.clone());
        let orders = Orders::new(pool.clone(), PATIENCE, KEPT).watched_by(hub.clone());
        let reader = watch::reader::run(hub.clone(), pool.clone(), every, token.clone());
        tokio::spawn(reader);
        Self {
            pool,
            hub,
            orders: Arc::new(orders),
            _ends: token.clone().drop_guard(),
            token,
        }
    }

    /// Serves gRPC.
    pub(crate) async fn serve(&self) -> SocketAddr {
        self.serve_routes(api::grpc(&self.orders)).await
    }

    pub(crate) async fn serve_routes(&self, routes: Routes) -> SocketAddr {
        let address = ([127, 0, 0, 1], 0).into();
        let listener = chassis::listen::bind("grpc", address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = chassis::grpc::serve(
            listener,
            routes,
            proto::orders::v1::DESCRIPTORS,
            Health::new(),
            chassis::auth::Guard::off(proto::ACCESS),
            self.token.clone(),
        );
        tokio::spawn(served);
        address
    }

    /// Listens to the events in the stream of this NATS.
    pub(crate) async fn listen(&self, nats: &Nats) {
        let client = nats.client().await.unwrap();
        let (hub, token) = (self.hub.clone(), self.token.clone());
        tokio::spawn(watch::signals::run(hub, client, "ORDERS".to_owned(), token));
    }

    /// Watches, without a server in between.
    pub(crate) async fn watch(&self, order_id: &str) -> Result<Watching, Status> {
        let request = WatchOrderRequest {
            order_id: order_id.to_owned(),
        };
        let watching = self
            .orders
            .watch_order(Caller::Operator.asks(request))
            .await?;
        Ok(Watching(watching.into_inner()))
    }
}

/// A watch that is read by hand.
pub(crate) struct Watching(
    <Orders as proto::orders::v1::order_service_server::OrderService>::WatchOrderStream,
);

impl Watching {
    /// What is told next; none at the end.
    pub(crate) async fn next(&mut self) -> Option<Result<Order, Status>> {
        let next = timeout(SOON, self.0.next()).await;
        let next = next.expect("nothing is told, and it does not end")?;
        Some(next.map(|told: WatchOrderResponse| told.order.unwrap()))
    }

    /// What is told next, which must be an order.
    pub(crate) async fn told(&mut self) -> Order {
        self.next().await.expect("it ended").unwrap()
    }
}

pub(crate) async fn client(address: SocketAddr) -> OrderServiceClient<Channel> {
    let endpoint = Channel::from_shared(format!("http://{address}")).unwrap();
    OrderServiceClient::new(endpoint.connect().await.unwrap())
}
