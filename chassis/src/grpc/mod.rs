//! The gRPC server: the services' routes with health, reflection, and what every request gets
//! (see [`observe`]).
//!
//! A service limits what it decodes itself, because its routes come ready-made:
//! `OrdersServer::new(…).max_decoding_message_size(chassis::grpc::MESSAGE_SIZE_MAX)`.

pub mod client;
mod connection;
mod descriptors;
mod listener;
mod observe;
mod observed_body;
mod places;
mod prompt_body;
mod refused;
mod starting;

use std::time::Duration;

use anyhow::Context as _;
use axum::middleware::from_fn_with_state;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tonic::{service::Routes, transport::Server};
use tonic_health::{
    ServingStatus,
    pb::health_server::HealthServer,
    server::{HealthReporter, HealthService},
};

use self::descriptors::Descriptors;
pub use self::listener::Listener;
pub use self::starting::{LIVENESS, Starting};
use crate::{auth::Guard, health::Health};

/// The largest message that a service should accept, in bytes (I12). Far above any honest request.
pub const MESSAGE_SIZE_MAX: usize = 1024 * 1024;
/// Streams of one connection (I12); more calls of that client wait at its side.
const STREAMS_PER_CONNECTION_MAX: u32 = 256;
/// A client whose host went silent is noticed after the sum of these.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// After the token, streams that their clients keep open are cut after this.
const DRAIN_MAX: Duration = Duration::from_secs(15);

/// Serves `routes` until the token is cancelled, then finishes the calls in hand.
///
/// `descriptors` is the encoded `FileDescriptorSet` of the routes: it feeds reflection (v1 and
/// v1alpha), health by service name, and the metrics' method names. `grpc.health.v1` says of
/// every service, and of the server (`""`), what `health` says, and not serving once the token
/// is cancelled; of [`LIVENESS`] always that it serves. Health and reflection need no token: who
/// probes has none. All else goes by `guard`.
pub async fn serve(
    listener: impl Into<Listener>,
    routes: Routes,
    descriptors: &'static [u8],
    health: Health,
    guard: Guard,
    token: CancellationToken,
) -> anyhow::Result<()> {
    let known = Descriptors::decode(descriptors).context("the services' descriptors")?;
    guard.knows(known.operations())?;
    let reporter = HealthReporter::new();
    report(&reporter, &known, health.is_ready()).await;
    alive(&reporter).await;
    let health_server = HealthServer::new(HealthService::from_health_reporter(reporter.clone()));
    let routes = with_reflection(routes.add_service(health_server), descriptors)?;
    let state = observe::Observer::new(&known, guard);
    let routes: Routes = routes
        .into_axum_router()
        .layer(from_fn_with_state(state, observe::observe))
        .into();

    let incoming = listener.into().incoming();
    let server = Server::builder()
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .http2_keepalive_interval(Some(KEEPALIVE_EVERY))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, token.clone().cancelled_owned());
    tokio::select! {
        served = server => served.context("gRPC server"),
        () = mirror(&reporter, &known, &health, &token) => {
            tracing::warn!(after = ?DRAIN_MAX, "gRPC: cut the streams that clients kept open");
            Ok(())
        }
    }
}

fn with_reflection(routes: Routes, descriptors: &'static [u8]) -> anyhow::Result<Routes> {
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(descriptors)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    Ok(routes
        .add_service(reflection().build_v1().context("reflection v1")?)
        .add_service(reflection().build_v1alpha().context("reflection v1alpha")?))
}

/// Mirrors readiness until the token is cancelled; ends when the time to drain is over.
async fn mirror(
    reporter: &HealthReporter,
    known: &Descriptors,
    health: &Health,
    token: &CancellationToken,
) {
    let mut changes = health.subscribe();
    let mirroring = async {
        loop {
            changes.mark_unchanged();
            report(reporter, known, health.is_ready()).await;
            if changes.changed().await.is_err() {
                return;
            }
        }
    };
    token.run_until_cancelled(mirroring).await;
    token.cancelled().await;
    report(reporter, known, false).await;
    // Who watches our health would otherwise hold the server open: a status that is taken away
    // ends its watchers, after they were told.
    let mut reporter = reporter.clone();
    for service in known.services() {
        reporter.clear_service_status(service).await;
    }
    report(&reporter, known, false).await;
    sleep(DRAIN_MAX).await;
}

async fn alive(reporter: &HealthReporter) {
    reporter
        .set_service_status(LIVENESS, ServingStatus::Serving)
        .await;
}

async fn report(reporter: &HealthReporter, known: &Descriptors, ready: bool) {
    let status = if ready {
        ServingStatus::Serving
    } else {
        ServingStatus::NotServing
    };
    for service in known.services() {
        reporter.set_service_status(service, status).await;
    }
}
