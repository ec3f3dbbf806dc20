//! Printing for people: everything that the demo says goes through here. Colours and the line that
//! is written over are for terminals; NO_COLOR is respected.

use std::env;
use std::fmt::Display;
use std::io::{IsTerminal, Write, stdout};
use std::time::Duration;

/// Labels stand in a column of this width, behind an indent.
const LABEL_WIDTH: usize = 10;

const BOLD: &str = "1";
const DIM: &str = "2";
const RED: &str = "31";
const GREEN: &str = "32";
const CYAN: &str = "36";

#[derive(Clone, Copy, Debug)]
pub(super) struct Show {
    /// Standard output is a terminal that understands escape sequences.
    terminal: bool,
    colours: bool,
}

impl Show {
    pub(super) fn new() -> Self {
        let dumb = env::var_os("TERM").is_none_or(|name| name == "dumb");
        let terminal = stdout().is_terminal() && !dumb;
        let no_color = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            terminal,
            colours: terminal && !no_color,
        }
    }

    pub(super) fn title(self, text: &str) {
        self.line(&self.painted(BOLD, text));
        self.line("");
    }

    /// The heading of a step; `mark` is its letter or empty.
    pub(super) fn step(self, mark: &str, text: &str) {
        let dot = if mark.is_empty() { "" } else { " · " };
        self.line("");
        self.line(&self.painted(BOLD, &format!("{mark}{dot}{text}")));
    }

    /// A line of a step: what kind of line, and what it says.
    pub(super) fn row(self, label: &str, text: &str) {
        self.line(&self.labelled(label, text));
    }

    /// As [`Show::row`], for what went as it should.
    pub(super) fn good(self, label: &str, text: &str) {
        self.line(&self.labelled(label, &self.painted(GREEN, text)));
    }

    /// As [`Show::row`], for what went wrong.
    pub(super) fn bad(self, label: &str, text: &str) {
        self.line(&self.labelled(label, &self.painted(RED, text)));
    }

    /// What is going on now: at a terminal the next line takes its place.
    pub(super) fn progress(self, label: &str, text: &str) {
        if self.terminal {
            write(&format!("\r\x1b[K{}", self.labelled(label, text)));
        } else {
            self.row(label, text);
        }
    }

    /// Commands that a person can copy.
    pub(super) fn commands(self, label: &str, lines: &[String]) {
        for (index, line) in lines.iter().enumerate() {
            let label = if index == 0 { label } else { "" };
            self.row(label, &self.painted(CYAN, line));
        }
    }

    /// Why the demo ends; what went wrong first, the logs after it.
    pub(super) fn failure(self, error: &anyhow::Error) {
        self.line("");
        self.line(&self.painted(RED, &format!("error: {error:#}")));
    }

    fn labelled(self, label: &str, text: &str) -> String {
        let label = self.painted(DIM, &format!("{label:<LABEL_WIDTH$}"));
        format!("  {label} {text}")
    }

    fn painted(self, colour: &str, text: &str) -> String {
        if self.colours {
            format!("\x1b[{colour}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    fn line(self, text: &str) {
        let clear = if self.terminal { "\r\x1b[K" } else { "" };
        write(&format!("{clear}{}\n", text.trim_end()));
    }
}

/// Whoever closes our output does not want to read it; the exit status still tells.
fn write(text: &str) {
    let mut out = stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}

/// Minor units of the euro as people write them: 12000 is `120.00 EUR`.
pub(super) fn euros(cents: i64) -> String {
    let sign = if cents < 0 { "-" } else { "" };
    let cents = cents.unsigned_abs();
    format!("{sign}{}.{:02} EUR", cents / 100, cents % 100)
}

/// `7 ms`, `1.25 s`.
pub(super) fn span(time: Duration) -> String {
    match time.as_millis() {
        millis @ 0..1_000 => format!("{millis} ms"),
        _ => format!("{:.2} s", time.as_secs_f64()),
    }
}

/// `CREDIT_LIMIT_EXCEEDED` or `credit_limit_exceeded` as words.
pub(super) fn words(name: &impl Display) -> String {
    name.to_string().to_lowercase().replace('_', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_and_times_read_well() {
        assert_eq!(euros(12_000), "120.00 EUR");
        assert_eq!(euros(-5), "-0.05 EUR");
        assert_eq!(span(Duration::from_micros(7_900)), "7 ms");
        assert_eq!(span(Duration::from_millis(1_254)), "1.25 s");
        assert_eq!(words(&"CREDIT_LIMIT_EXCEEDED"), "credit limit exceeded");
    }
}
