//! Log lines with the trace id of what they belong to, so that one can go from a line to its
//! trace and to the other processes' lines of the same request.
//!
//! The danger: messages and errors quote what callers sent, and a line break in it would begin a line that
//! the caller has made up. So an event is one line, whatever stands in it.

use std::fmt::{self, Write as _};

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
    /// The lines hold escape sequences of their own; those of others are taken out of fields before.
    colours: bool,
}

/// A field whose value has lines by its nature, and nothing that a caller sent.
pub(super) const BACKTRACE: &str = "backtrace";

impl<F> Traced<F> {
    pub(super) fn text(lines: F, colours: bool) -> Self {
        Self {
            lines,
            json: false,
            colours,
        }
    }

    /// `lines` must make one JSON object a line.
    pub(super) fn json(lines: F) -> Self {
        Self {
            lines,
            json: true,
            colours: false,
        }
    }

    /// Escapes what ends a line, or changes how the rest of it is shown.
    fn one_line(&self, line: &str) -> String {
        let mut escaped = String::with_capacity(line.len());
        for c in line.chars() {
            let shown =
                !c.is_control() && !matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
            if shown || (c == '\u{1b}' && self.colours) {
                escaped.push(c);
            } else if self.json {
                // All of them have four digits.
                let _written = write!(escaped, "\\u{:04x}", u32::from(c));
            } else {
                escaped.extend(c.escape_default());
            }
        }
        escaped
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
        let mut line = String::new();
        self.lines
            .format_event(context, Writer::new(&mut line), event)?;
        let mut line = line.trim_end().to_owned();
        if event.metadata().fields().field(BACKTRACE).is_none() {
            line = self.one_line(&line);
        }
        let Some(id) = trace::current_trace_id() else {
            return writeln!(writer, "{line}");
        };
        match line.strip_prefix('{') {
            Some(fields) if self.json => writeln!(writer, "{{\"trace_id\":\"{id}\",{fields}"),
            _ => writeln!(writer, "{line} trace_id={id}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ODD: &str = "a\r\nb\u{85}\u{2028}\u{202e}\u{1b}[1m é";

    #[test]
    fn what_ends_a_line_or_turns_it_round_is_escaped() {
        let text = Traced::text((), false).one_line(ODD);
        assert_eq!(text, r"a\r\nb\u{85}\u{2028}\u{202e}\u{1b}[1m é");
        let coloured = Traced::text((), true).one_line(ODD);
        assert!(coloured.ends_with("\u{1b}[1m é"), "{coloured:?}");
        let json = format!("\"{}\"", Traced::json(()).one_line(ODD));
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), ODD);
    }
}
