//! W3C trace context (`traceparent`) out of what arrives: gRPC metadata, HTTP or NATS headers.
//!
//! Danger: a span's parent counts only until the span is first entered. Set it right after the
//! span is made.

use axum::http;
use opentelemetry::{
    global,
    propagation::Extractor,
    trace::{TraceContextExt as _, TraceId},
};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// Makes `span` a child of the caller's span, if the gRPC metadata or HTTP headers tell of one.
/// (`tonic::metadata::MetadataMap` gives its headers by `as_ref()`.)
pub fn continue_from_http(span: &Span, headers: &http::HeaderMap) {
    continue_from(span, &Http(headers));
}

/// Makes `span` a child of the sender's span, if the message's headers tell of one.
pub fn continue_from_nats(span: &Span, headers: Option<&async_nats::HeaderMap>) {
    if let Some(headers) = headers {
        continue_from(span, &Nats(headers));
    }
}

/// The trace id of what runs here, if it runs within a span.
pub fn current_trace_id() -> Option<TraceId> {
    opentelemetry::Context::map_current(|context| {
        let id = context.span().span_context().trace_id();
        (id != TraceId::INVALID).then_some(id)
    })
}

fn continue_from(span: &Span, headers: &dyn Extractor) {
    let context = global::get_text_map_propagator(|propagator| propagator.extract(headers));
    if context.span().span_context().is_valid() {
        // Refused only where no OpenTelemetry layer is installed, as in a test: nothing to do.
        let _ = span.set_parent(context);
    }
}

struct Http<'a>(&'a http::HeaderMap);

impl Extractor for Http<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}

struct Nats<'a>(&'a async_nats::HeaderMap);

impl Extractor for Nats<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(async_nats::HeaderValue::as_str)
    }

    fn keys(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| name.as_ref()).collect()
    }
}
