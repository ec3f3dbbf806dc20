//! How answers are printed: a record or a table for people, JSON for programs, or ids alone for pipes.

mod customer;
mod letter;
mod order;
mod table;

use std::io::{self, Stdout, Write};

use proto::Timestamp;
use proto::orders::v1::Order;
use serde::Serialize;

use self::table::Table;
use crate::cli::Output;
use crate::failure::Failure;

/// Something that is printed in its own right.
pub(crate) trait Shown: Serialize {
    /// The columns of a table of them, and whether each is of numbers.
    const COLUMNS: &'static [(&'static str, bool)];
    fn id(&self) -> String;
    /// A row of that table.
    fn row(&self) -> Vec<String>;
    /// All of it, with names.
    fn record(&self) -> Vec<(&'static str, String)>;
}

/// Standard output, in the form that was asked for.
#[derive(Debug)]
pub(crate) struct Out {
    stdout: Stdout,
    form: Form,
    table: Option<Table>,
}

#[derive(Clone, Copy, Debug)]
enum Form {
    People,
    Json,
    Ids,
}

impl Out {
    pub(crate) fn new(output: &Output) -> Self {
        let form = match (output.json, output.quiet) {
            (true, _) => Form::Json,
            (_, true) => Form::Ids,
            _ => Form::People,
        };
        Self {
            stdout: io::stdout(),
            form,
            table: None,
        }
    }

    /// One thing: all of it.
    pub(crate) fn one(&mut self, shown: &impl Shown) -> Result<(), Failure> {
        match self.form {
            Form::Json => self.document(shown),
            Form::Ids => self.line(&shown.id()),
            Form::People => {
                for (name, value) in shown.record() {
                    self.line(&format!("{name:<11}{}", one_line(&value)))?;
                }
                Ok(())
            }
        }
    }

    /// A page of many, which in JSON is the service's answer as a whole.
    pub(crate) fn page<T: Shown>(
        &mut self,
        answer: &impl Serialize,
        items: &[T],
        next_page_token: &str,
    ) -> Result<(), Failure> {
        if matches!(self.form, Form::Json) {
            return self.document(answer);
        }
        self.items(items)?;
        if !next_page_token.is_empty() {
            self.note(&format!(
                "there are more: --all, or --page-token {next_page_token}"
            ))?;
        }
        Ok(())
    }

    /// Some of many, which in JSON are lines; the table goes on from those before.
    pub(crate) fn items<T: Shown>(&mut self, items: &[T]) -> Result<(), Failure> {
        match self.form {
            Form::Json => items.iter().try_for_each(|item| {
                let line = serde_json::to_string(item).map_err(io::Error::from)?;
                self.line(&line)
            }),
            Form::Ids => items.iter().try_for_each(|item| self.line(&item.id())),
            Form::People => {
                let rows: Vec<_> = items.iter().map(T::row).collect();
                let table = self.table.get_or_insert_with(|| Table::new(T::COLUMNS));
                let lines = table.lines(&rows);
                lines.iter().try_for_each(|line| self.line(line))
            }
        }
    }

    /// An order that has changed: a line, which whoever reads sees at once.
    pub(crate) fn change(&mut self, order: &Order) -> Result<(), Failure> {
        match self.form {
            Form::People => {
                let line = format!(
                    "{}  {}",
                    time(order.update_time.as_ref()),
                    order::state(order)
                );
                self.line(&line)
            }
            Form::Json | Form::Ids => self.items(std::slice::from_ref(order)),
        }?;
        Ok(self.stdout.flush()?)
    }

    /// To standard error, past what is asked for.
    pub(crate) fn note(&self, text: &str) -> Result<(), Failure> {
        Ok(writeln!(io::stderr(), "shop: {text}")?)
    }

    fn document(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(value).map_err(io::Error::from)?;
        self.line(&text)
    }

    pub(crate) fn line(&mut self, text: &str) -> Result<(), Failure> {
        Ok(writeln!(self.stdout, "{text}")?)
    }
}

/// What others wrote may hold what would move about on a terminal.
fn one_line(text: &str) -> String {
    let plain = |letter: char| if letter.is_control() { ' ' } else { letter };
    text.chars().map(plain).collect()
}

/// In UTC, to the second: `2026-11-25T12:00:00Z`.
fn time(time: Option<&Timestamp>) -> String {
    let text = time.and_then(|time| serde_json::to_value(time).ok());
    let text = text.as_ref().and_then(|text| text.as_str());
    match text.and_then(|text| text.get(..19)) {
        Some(seconds) => format!("{seconds}Z"),
        None => "–".to_owned(),
    }
}

/// An enum value's name as words: `ORDER_STATE_PENDING` without `ORDER_STATE_` is `pending`.
fn words(name: &str, prefix: &str) -> String {
    let own = name.strip_prefix(prefix).unwrap_or(name);
    own.to_lowercase().replace('_', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_to_the_second_and_names_are_words() {
        let at = Timestamp {
            seconds: 1_700_000_000,
            nanos: 987_000_000,
        };
        assert_eq!(time(Some(&at)), "2023-11-14T22:13:20Z");
        assert_eq!(time(None), "–");
        assert_eq!(words("ORDER_STATE_PENDING", "ORDER_STATE_"), "pending");
    }
}
