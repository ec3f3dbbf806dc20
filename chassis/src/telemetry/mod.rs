//! Logs, spans and metrics of the process, installed once at its start.
//!
//! The OpenTelemetry layer is always there, so that every request has a trace id that travels on
//! in `traceparent`; spans are recorded and exported only when a collector is named. The layers
//! filter apart: a quiet log must not cut traces.

mod format;
mod process;

use std::{
    backtrace::Backtrace,
    io::{self, IsTerminal as _},
    panic,
};

use anyhow::Context as _;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use opentelemetry::{global, trace::TracerProvider as _};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    trace::{Sampler, SdkTracerProvider},
};
use tracing::{Level, Metadata};
use tracing_subscriber::{
    EnvFilter, Layer as _,
    filter::{LevelFilter, filter_fn},
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

use crate::{config, request};

pub(crate) use process::record as record_process;

/// Upper bounds of every histogram whose name ends in `_seconds`: from an index hit in Postgres
/// to the deadline of a request.
const SECONDS: [f64; 15] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];
/// Upper bounds of the histograms that count things: batches and the like.
const COUNTS: [f64; 12] = [
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0,
];

/// Goes before `LOG_FILTER`: at finer levels this module of the client's logs servers with their URLs, and in
/// these a password may stand.
const SHOWS_PASSWORDS: &str = "async_nats::connector=info";

/// Keeps telemetry alive: sends the spans that wait when it is dropped. Hold it until the end of
/// `main`.
#[derive(Debug)]
#[must_use = "spans are flushed when this is dropped"]
pub struct Telemetry {
    spans: SdkTracerProvider,
    metrics: PrometheusHandle,
}

impl Telemetry {
    /// Renders what the `metrics` facade gathered, for [`crate::admin::serve`].
    pub fn metrics(&self) -> PrometheusHandle {
        self.metrics.clone()
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Err(error) = self.spans.shutdown() {
            tracing::warn!(%error, "the last spans were not sent");
        }
    }
}

/// Installs logging (of panics too), the propagator, the tracer and the metrics recorder for the
/// whole process.
///
/// Call it once, within a tokio runtime (the exporter needs one). Fails when something else is
/// installed already, or the configuration is wrong.
pub fn init(config: &config::Telemetry, service: &'static str) -> anyhow::Result<Telemetry> {
    let spans = tracer_provider(config, service)?;
    global::set_text_map_propagator(TraceContextPropagator::new());
    global::set_tracer_provider(spans.clone());

    let filter = EnvFilter::builder()
        .parse(&config.log_filter)
        .with_context(|| format!("LOG_FILTER {:?}", config.log_filter))?
        .add_directive(SHOWS_PASSWORDS.parse().context("a directive of ours")?);
    let traces = tracing_opentelemetry::layer()
        .with_tracer(spans.tracer(service))
        .with_filter(filter_fn(is_traced).with_max_level_hint(LevelFilter::INFO));
    tracing_subscriber::registry()
        .with(traces)
        .with(log_layer(config.log_format).with_filter(filter))
        .try_init()
        .context("telemetry is installed already")?;
    panic::set_hook(Box::new(|panic| {
        let backtrace = Backtrace::capture();
        // As text that is quoted, since it may hold what a caller sent.
        let panic = panic.to_string();
        tracing::error!(panic, %backtrace, "a thread or task panicked");
    }));

    let metrics = recorder()?;
    process::describe(service);
    request::describe();
    Ok(Telemetry { spans, metrics })
}

/// Spans of the services' own level, and what went wrong within them; not the libraries' chatter.
fn is_traced(metadata: &Metadata<'_>) -> bool {
    let at_most = if metadata.is_span() {
        Level::INFO
    } else {
        Level::WARN
    };
    *metadata.level() <= at_most
}

type BoxedLayer<S> = Box<dyn tracing_subscriber::Layer<S> + Send + Sync>;

fn log_layer<S>(form: config::LogFormat) -> BoxedLayer<S>
where
    S: tracing::Subscriber + for<'span> tracing_subscriber::registry::LookupSpan<'span>,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    match form {
        config::LogFormat::Text => {
            let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            let lines = tracing_subscriber::fmt::format().with_ansi(colours);
            layer
                .with_ansi(colours)
                .event_format(format::Traced::text(lines, colours))
                .boxed()
        }
        config::LogFormat::Json => layer
            .fmt_fields(tracing_subscriber::fmt::format::JsonFields::new())
            .event_format(format::Traced::json(
                tracing_subscriber::fmt::format().json().flatten_event(true),
            ))
            .boxed(),
    }
}

/// Without a collector nothing is recorded, but ids are drawn and travel. A caller's own decision
/// to sample holds either way only where there is somewhere to send to.
fn tracer_provider(
    config: &config::Telemetry,
    service: &'static str,
) -> anyhow::Result<SdkTracerProvider> {
    let provider = SdkTracerProvider::builder()
        .with_resource(Resource::builder().with_service_name(service).build());
    let endpoint = config
        .otlp_endpoint
        .as_deref()
        .filter(|url| !url.is_empty());
    let Some(endpoint) = endpoint else {
        return Ok(provider.with_sampler(Sampler::AlwaysOff).build());
    };
    let exporter = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .build()
        .context("OTEL_EXPORTER_OTLP_ENDPOINT: cannot build the exporter of spans")?;
    Ok(provider.with_batch_exporter(exporter).build())
}

fn recorder() -> anyhow::Result<PrometheusHandle> {
    use metrics_exporter_prometheus::Matcher;
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
        .and_then(|builder| builder.set_buckets(&COUNTS))
        .context("histogram buckets")?
        .install_recorder()
        .context("a metrics recorder is installed already")
}
