//! Health over gRPC while the process still waits for its peers: alive, and not ready.
//!
//! Danger: an orchestrator kills who does not answer its liveness probe. A process that answered only
//! once Postgres and NATS are there would be restarted for as long as either is away.

use std::{io, net::TcpListener as Socket, sync::Arc};

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{Status, service::Routes, transport::Server};
use tonic_health::{
    ServingStatus,
    pb::health_server::HealthServer,
    server::{HealthReporter, HealthService},
};

use super::Listener;
use crate::tls::server::Identity;

/// The service under which `grpc.health.v1` says that the process is alive: whatever its peers do.
pub const LIVENESS: &str = "liveness";

/// A listener on which health is answered, and any other call told that it is too early for it.
#[derive(Debug)]
pub struct Starting {
    socket: Socket,
    identity: Option<Arc<Identity>>,
    reporter: HealthReporter,
    over: CancellationToken,
}

impl Starting {
    /// Answers from here on.
    pub async fn new(listener: impl Into<Listener>) -> anyhow::Result<Self> {
        let Listener { socket, identity } = listener.into();
        let (socket, own) = doubled(socket).context("the listener of gRPC")?;
        let reporter = HealthReporter::new();
        reporter
            .set_service_status("", ServingStatus::NotServing)
            .await;
        reporter
            .set_service_status(LIVENESS, ServingStatus::Serving)
            .await;
        let service = HealthService::from_health_reporter(reporter.clone());
        let routes: Routes = Routes::new(HealthServer::new(service))
            .into_axum_router()
            .fallback(async || Status::unavailable("starting: try again").into_http::<String>())
            .into();
        let over = CancellationToken::new();
        let serving = Server::builder().add_routes(routes);
        let own = Listener {
            socket: own,
            identity: identity.clone(),
        };
        let incoming = own.incoming();
        let serving =
            serving.serve_with_incoming_shutdown(incoming, over.clone().cancelled_owned());
        tokio::spawn(async move {
            if let Err(error) = serving.await {
                tracing::error!(%error, "health is not answered while starting");
            }
        });
        Ok(Self {
            socket,
            identity,
            reporter,
            over,
        })
    }

    /// The listener, for the server that takes over. What is connected is told to connect anew.
    pub async fn done(mut self) -> anyhow::Result<Listener> {
        // Who watches would otherwise go on watching this server's answer, which is over.
        self.reporter.clear_service_status("").await;
        self.reporter.clear_service_status(LIVENESS).await;
        self.over.cancel();
        let socket = TcpListener::from_std(self.socket).context("the listener of gRPC")?;
        let identity = self.identity;
        Ok(Listener { socket, identity })
    }
}

/// Two listeners of one socket: a connection goes to whichever accepts it, and none is refused while
/// one takes over from the other.
fn doubled(listener: TcpListener) -> io::Result<(Socket, TcpListener)> {
    let socket = listener.into_std()?;
    let own = TcpListener::from_std(socket.try_clone()?)?;
    Ok((socket, own))
}
