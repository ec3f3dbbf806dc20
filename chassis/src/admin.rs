//! HTTP for operators and orchestrators: `/livez`, `/readyz`, `/metrics`.
//!
//! Danger: `/livez` must depend on no peer, or an outage of Postgres becomes a restart storm.

use std::time::Duration;

use anyhow::Context as _;
use axum::{
    Router,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::{net::TcpListener, time};
use tokio_util::sync::CancellationToken;

use crate::{health::Health, telemetry};

/// Histograms gather raw samples until this folds them in, so it bounds their memory (I12) where
/// nobody scrapes.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);
/// A client that never finishes its request does not hold up the end of the process for longer.
const DRAIN_MAX: Duration = Duration::from_secs(2);

/// Serves until the token is cancelled.
pub async fn serve(
    listener: TcpListener,
    health: Health,
    metrics: PrometheusHandle,
    token: CancellationToken,
) -> anyhow::Result<()> {
    let upkeep = upkeep(metrics.clone());
    let routes = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(move || async move { readyz(&health) }))
        .route("/metrics", get(move || async move { scrape(&metrics) }));
    let server =
        axum::serve(listener, routes).with_graceful_shutdown(token.clone().cancelled_owned());
    let overdue = async {
        token.cancelled().await;
        time::sleep(DRAIN_MAX).await;
    };
    tokio::select! {
        served = server.into_future() => served.context("admin HTTP"),
        () = overdue => Ok(()),
        () = upkeep => Ok(()),
    }
}

fn readyz(health: &Health) -> impl IntoResponse + use<> {
    let status = if health.is_ready() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let ready = status == StatusCode::OK;
    let body = serde_json::json!({ "ready": ready, "checks": health.checks() });
    (
        status,
        [(CONTENT_TYPE, "application/json")],
        format!("{body}\n"),
    )
}

fn scrape(metrics: &PrometheusHandle) -> impl IntoResponse + use<> {
    telemetry::record_process();
    (
        [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
        metrics.render(),
    )
}

async fn upkeep(metrics: PrometheusHandle) {
    let mut every = time::interval(UPKEEP_EVERY);
    loop {
        every.tick().await;
        metrics.run_upkeep();
    }
}
