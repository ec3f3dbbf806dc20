//! Log lines with the trace id of what they belong to, so that one can go from a line to its
//! trace and to the other processes' lines of the same request.

use std::fmt;

use tracing::{Event, Subscriber};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

use crate::trace;

/// Another format's lines with the trace id added: at the end of text, as a first field of JSON.
#[derive(Debug)]
pub(super) struct Traced<F> {
    lines: F,
    json: bool,
}

impl<F> Traced<F> {
    pub(super) fn text(lines: F) -> Self {
        Self { lines, json: false }
    }

    /// `lines` must make one JSON object a line.
    pub(super) fn json(lines: F) -> Self {
        Self { lines, json: true }
    }
}

impl<S, N, F> FormatEvent<S, N> for Traced<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let Some(id) = trace::current_trace_id() else {
            return self.lines.format_event(context, writer, event);
        };
        let mut line = String::new();
        self.lines
            .format_event(context, Writer::new(&mut line), event)?;
        match line.strip_prefix('{') {
            Some(fields) if self.json => write!(writer, "{{\"trace_id\":\"{id}\",{fields}"),
            _ => writeln!(writer, "{} trace_id={id}", line.trim_end()),
        }
    }
}
