//! A request to its answer, over gRPC or NATS, once: what is tried again here would hide what the services do.

pub(crate) mod caller;
mod grpc;
mod nats;

use std::time::Duration;

use anyhow::Result;
use prost::Message;
use proto::orders::v1::{WatchOrderRequest, WatchOrderResponse};
use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, Status, Streaming};

use crate::cli::{Connection, Via};

/// NATS at the start is waited for this long.
const CONNECT_MAX: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(200);

/// Which connections a request takes: those who wait for outcomes must not stand in the way of the load.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Lane {
    Load,
    Tracking,
}

/// Both services.
#[derive(Debug)]
pub(crate) enum Services {
    Grpc(Box<grpc::Channels>),
    Nats(nats::Nats),
}

impl Services {
    pub(crate) async fn reach(connection: &Connection) -> Result<Self> {
        Ok(match connection.via {
            Via::Grpc => Self::Grpc(Box::new(grpc::Channels::new(connection)?)),
            Via::Nats => Self::Nats(nats::Nats::connect(connection, CONNECT_MAX).await?),
        })
    }

    /// One try of an operation such as `orders.v1.GetOrder`; `DEADLINE_EXCEEDED` if it has no answer in time.
    pub(crate) async fn ask<Q, A>(
        &self,
        lane: Lane,
        subject: &'static str,
        request: Q,
        within: Duration,
    ) -> Result<A, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let asked = async {
            match self {
                Self::Grpc(channels) => channels.ask(lane, subject, request, within).await,
                Self::Nats(nats) => nats.ask(subject, &request, within).await,
            }
        };
        match timeout(within, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(Status::deadline_exceeded("no answer in time")),
        }
    }

    /// The changes of an order; over gRPC alone.
    pub(crate) async fn watch(
        &self,
        request: WatchOrderRequest,
    ) -> Option<Result<Streaming<WatchOrderResponse>, Status>> {
        match self {
            Self::Grpc(channels) => Some(channels.watch(request).await),
            Self::Nats(_) => None,
        }
    }

    /// Before and after the load: tried again until it is answered or the time is up.
    pub(crate) async fn insist<Q, A>(
        &self,
        subject: &'static str,
        request: &Q,
        until: Instant,
    ) -> Result<A, Status>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let answer = self
                .ask(Lane::Tracking, subject, request.clone(), left)
                .await;
            match answer {
                Err(status) if passes(&status) && left > PAUSE => sleep(PAUSE).await,
                answer => return answer,
            }
        }
    }
}

/// Whether another try may be answered better.
pub(crate) fn passes(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable
            | Code::ResourceExhausted
            | Code::Aborted
            | Code::DeadlineExceeded
            | Code::Cancelled
            | Code::Unknown
    )
}
