//! Requests over gRPC, spread over some connections.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Result;
use chassis::grpc::client::{Address, Authorization};
use prost::Message;
use proto::orders::v1::{WatchOrderRequest, WatchOrderResponse};
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Code, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use super::Lane;
use super::caller::Caller;
use crate::cli::Connection;

/// A host that does not exist is noticed after this.
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// Of them each carries 256 who wait for outcomes (I12).
const TRACKING_CONNECTIONS: usize = 16;

#[derive(Debug)]
pub(crate) struct Channels {
    orders: Pool,
    tracking: Pool,
    customers: Pool,
    authorization: Authorization,
}

/// Connections to one service, taken in turn.
#[derive(Debug)]
struct Pool {
    channels: Vec<Channel>,
    next: AtomicUsize,
}

impl Pool {
    fn new(address: &Address, connections: usize, caller: &Caller) -> Result<Self> {
        let endpoint = address.endpoint().connect_timeout(CONNECT_MAX);
        let endpoint = endpoint.tcp_nodelay(true);
        let tls = caller.tls(address)?;
        let connect = |_| match &tls {
            Some(tls) => tls.clone().channel(&endpoint),
            None => endpoint.connect_lazy(),
        };
        Ok(Self {
            channels: (0..connections).map(connect).collect(),
            next: AtomicUsize::new(0),
        })
    }

    fn next(&self) -> Channel {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.channels[number % self.channels.len()].clone()
    }
}

impl Channels {
    pub(super) fn new(connection: &Connection) -> Result<Self> {
        let connections = usize::from(connection.connections);
        let caller = &connection.caller;
        let authorization = Authorization::new(caller.authorization()?.as_ref())?;
        Ok(Self {
            orders: Pool::new(&connection.orders, connections, caller)?,
            tracking: Pool::new(&connection.orders, TRACKING_CONNECTIONS, caller)?,
            customers: Pool::new(&connection.customers, connections, caller)?,
            authorization,
        })
    }

    pub(super) async fn ask<Q, A>(
        &self,
        lane: Lane,
        subject: &str,
        request: Q,
        within: Duration,
    ) -> Result<A, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let (mut client, path) = self.ready(lane, subject).await?;
        let codec = ProstCodec::<Q, A>::default();
        let mut request = self.authorization.request(request);
        request.set_timeout(within);
        let answer = client.unary(request, path, codec).await;
        answer.map(Response::into_inner).map_err(by_name)
    }

    pub(super) async fn watch(
        &self,
        request: WatchOrderRequest,
    ) -> Result<Streaming<WatchOrderResponse>, Status> {
        let (mut client, path) = self.ready(Lane::Load, "orders.v1.WatchOrder").await?;
        let codec = ProstCodec::<WatchOrderRequest, WatchOrderResponse>::default();
        let answer = client
            .server_streaming(self.authorization.request(request), path, codec)
            .await?;
        Ok(answer.into_inner())
    }

    async fn ready(
        &self,
        lane: Lane,
        subject: &str,
    ) -> Result<(Grpc<Channel>, PathAndQuery), Status> {
        let (pool, service) = match (subject.starts_with("orders."), lane) {
            (true, Lane::Load) => (&self.orders, "orders.v1.OrderService"),
            (true, Lane::Tracking) => (&self.tracking, "orders.v1.OrderService"),
            (false, _) => (&self.customers, "customers.v1.CustomerService"),
        };
        let method = subject.rsplit('.').next().unwrap_or(subject);
        let path = PathAndQuery::try_from(format!("/{service}/{method}"))
            .map_err(|error| Status::internal(error.to_string()))?;
        let mut client = Grpc::new(pool.next());
        let ready = client.ready().await;
        ready.map_err(|error| Status::unavailable(format!("not connected: {error:?}")))?;
        Ok((client, path))
    }
}

/// tonic's own timer, by which a call ends here, says that it was cancelled.
fn by_name(status: Status) -> Status {
    match (status.code(), status.message()) {
        (Code::Cancelled, "Timeout expired") => Status::deadline_exceeded("no answer in time"),
        _ => status,
    }
}
