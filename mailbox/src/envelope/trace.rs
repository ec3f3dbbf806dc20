//! The trace context that travels from the request through outbox row and message to the consumer.

use opentelemetry::Context;
use opentelemetry::global::get_text_map_propagator;
use opentelemetry::propagation::{Extractor, Injector};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::{TRACEPARENT, TRACESTATE};

/// W3C's limit on what every party must carry on. A longer tracestate is left out.
const TRACESTATE_MAX: usize = 512;

/// W3C trace context in its text form; empty if nothing is being traced.
///
/// It is written and read by OpenTelemetry's global propagator: a process that installs none neither
/// starts nor continues traces, and everything else works the same.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TraceContext {
    traceparent: Option<String>,
    tracestate: Option<String>,
}

impl TraceContext {
    pub(crate) fn new(traceparent: Option<&str>, tracestate: Option<&str>) -> Self {
        let mut context = Self::default();
        for (name, value) in [(TRACEPARENT, traceparent), (TRACESTATE, tracestate)] {
            if let Some(value) = value {
                context.set(name, value.to_owned());
            }
        }
        context
    }

    /// The context of the span that is current here.
    #[must_use]
    pub fn current() -> Self {
        Self::of(&Span::current())
    }

    /// The context of `span`; empty if the span is not recorded.
    #[must_use]
    pub fn of(span: &Span) -> Self {
        let mut context = Self::default();
        get_text_map_propagator(|p| p.inject_context(&span.context(), &mut context));
        context
    }

    /// The header `traceparent`: version, trace id, span id, flags.
    #[must_use]
    pub fn traceparent(&self) -> Option<&str> {
        self.traceparent.as_deref()
    }

    /// The header `tracestate`.
    #[must_use]
    pub fn tracestate(&self) -> Option<&str> {
        self.tracestate.as_deref()
    }

    /// Whether nothing is being traced.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.traceparent.is_none()
    }

    /// The context as OpenTelemetry's, for a span's parent.
    pub(crate) fn extract(&self) -> Context {
        get_text_map_propagator(|p| p.extract_with_context(&Context::new(), self))
    }
}

impl Injector for TraceContext {
    fn set(&mut self, key: &str, value: String) {
        if key.eq_ignore_ascii_case(TRACEPARENT) {
            self.traceparent = Some(value);
        } else if key.eq_ignore_ascii_case(TRACESTATE)
            && !value.is_empty()
            && value.len() <= TRACESTATE_MAX
        {
            self.tracestate = Some(value);
        }
    }
}

impl Extractor for TraceContext {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            TRACEPARENT => self.traceparent(),
            TRACESTATE => self.tracestate(),
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT, TRACESTATE]
    }
}
