//! The subject that an event is published on: a template over the outbox row's columns, such as
//! `events.{type}`.

use std::{fmt, str::FromStr};

use crate::record::Columns;

/// A checked template: literal text and columns in turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    text: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    AggregateType,
    AggregateId,
    Type,
}

/// Why a template, or the subject that a row made of it, cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    #[error(
        "`{{{0}}}` is not a column that a subject can be made of: use {{aggregatetype}}, \
         {{aggregateid}} or {{type}}"
    )]
    UnknownColumn(String),
    #[error("a `{{` without its `}}`")]
    Unclosed,
    #[error(
        "`{0}` is not a subject to publish on: its tokens are separated by single dots, and hold \
         neither blanks nor `*` nor `>`"
    )]
    Subject(String),
}

impl FromStr for Template {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((literal, after)) = rest.split_once('{') {
            let (column, after) = after.split_once('}').ok_or(Invalid::Unclosed)?;
            if !literal.is_empty() {
                parts.push(Part::Literal(literal.to_owned()));
            }
            parts.push(match column {
                "aggregatetype" => Part::AggregateType,
                "aggregateid" => Part::AggregateId,
                "type" => Part::Type,
                other => return Err(Invalid::UnknownColumn(other.to_owned())),
            });
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Literal(rest.to_owned()));
        }
        let template = Self {
            text: text.to_owned(),
            parts,
        };
        let probe = Columns {
            id: "x",
            aggregate_type: "x",
            aggregate_id: "x",
            event_type: "x",
        };
        template.subject(&probe)?;
        Ok(template)
    }
}

impl Template {
    /// The subject for a row.
    ///
    /// # Errors
    /// [`Invalid::Subject`] when a column's value is empty or holds what a subject cannot.
    pub fn subject(&self, columns: &Columns<'_>) -> Result<String, Invalid> {
        let mut subject = String::with_capacity(64);
        for part in &self.parts {
            subject.push_str(match part {
                Part::Literal(text) => text,
                Part::AggregateType => columns.aggregate_type,
                Part::AggregateId => columns.aggregate_id,
                Part::Type => columns.event_type,
            });
        }
        if is_publishable(&subject) {
            Ok(subject)
        } else {
            Err(Invalid::Subject(subject))
        }
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn is_publishable(subject: &str) -> bool {
    let bad = |c: char| c.is_whitespace() || c.is_control() || c == '*' || c == '>';
    subject.split('.').all(|token| !token.is_empty()) && !subject.contains(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: Columns<'_> = Columns {
        id: "1",
        aggregate_type: "order",
        aggregate_id: "42",
        event_type: "orders.v1.OrderCreated",
    };

    fn subject(template: &str) -> Result<String, Invalid> {
        template.parse::<Template>()?.subject(&ROW)
    }

    #[test]
    fn columns_stand_where_the_template_names_them() {
        assert_eq!(
            subject("events.{type}").unwrap(),
            "events.orders.v1.OrderCreated"
        );
        assert_eq!(
            subject("{aggregatetype}.{aggregateid}.x").unwrap(),
            "order.42.x"
        );
    }

    #[test]
    fn a_wrong_template_is_refused_at_start() {
        assert_eq!(
            subject("a.{payload}"),
            Err(Invalid::UnknownColumn("payload".into()))
        );
        assert_eq!(subject("a.{type"), Err(Invalid::Unclosed));
        for wrong in ["", "a..{type}", "a.>", "a b.{type}", "*.{type}", "a."] {
            assert!(
                matches!(subject(wrong), Err(Invalid::Subject(_))),
                "{wrong}"
            );
        }
    }

    #[test]
    fn a_value_cannot_smuggle_a_wildcard_or_an_empty_token_in() {
        let template: Template = "events.{type}".parse().unwrap();
        for event_type in ["", ">", "a.*", "a b", "a\r\nPUB x 1", ".a"] {
            let row = Columns { event_type, ..ROW };
            assert!(template.subject(&row).is_err(), "{event_type:?}");
        }
    }
}
