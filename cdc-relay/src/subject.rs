//! The subject that an event is published on: a template over the outbox row's columns, such as
//! `events.{type}`.

use std::{borrow::Cow, fmt, str::FromStr};

/// A checked template: literal text and columns in turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    text: String,
    parts: Vec<Part<String>>,
}

/// A template whose columns are known by their place among a row's texts.
#[derive(Clone, Debug)]
pub struct Resolved {
    parts: Vec<Part<usize>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part<C> {
    Literal(String),
    Column(C),
}

/// Why a template, or the subject that a row made of it, cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    #[error(
        "`{{{0}}}` is not a column that a subject can be made of: use {{type}}, {{aggregatetype}}, \
         {{aggregateid}} or another column that holds text, a number or a uuid"
    )]
    UnknownColumn(String),
    #[error("a `{{` without its `}}`")]
    Unclosed,
    #[error("a column of the subject is NULL")]
    Null,
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
            if matches!(column, "" | "payload" | "headers") {
                return Err(Invalid::UnknownColumn(column.to_owned()));
            }
            parts.push(Part::Column(column.to_owned()));
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Literal(rest.to_owned()));
        }
        let template = Self {
            text: text.to_owned(),
            parts,
        };
        template.resolve(|_| 0).subject(&[Some("x".into())])?;
        Ok(template)
    }
}

impl Template {
    /// Looks the columns up, once for all rows.
    pub fn resolve(&self, mut place: impl FnMut(&str) -> usize) -> Resolved {
        let part = |part: &Part<String>| match part {
            Part::Literal(text) => Part::Literal(text.clone()),
            Part::Column(name) => Part::Column(place(name)),
        };
        Resolved {
            parts: self.parts.iter().map(part).collect(),
        }
    }

    /// A pattern that takes every subject that this can become.
    pub fn pattern(&self) -> String {
        let mut pattern = String::new();
        for part in &self.parts {
            match part {
                Part::Literal(text) => pattern.push_str(text),
                // What a column holds may have dots, so nothing can be said of what follows.
                Part::Column(_) => {
                    let whole = pattern.rfind('.').map_or(0, |dot| dot + 1);
                    pattern.truncate(whole);
                    pattern.push('>');
                    return pattern;
                }
            }
        }
        pattern
    }
}

impl Resolved {
    /// Whether the subject is made of this text.
    pub fn needs(&self, text: usize) -> bool {
        self.parts
            .iter()
            .any(|part| matches!(part, Part::Column(at) if *at == text))
    }

    /// The subject for a row, of its texts.
    ///
    /// # Errors
    /// [`Invalid::Subject`] when a column's value is empty or holds what a subject cannot.
    pub fn subject(&self, texts: &[Option<Cow<'_, str>>]) -> Result<String, Invalid> {
        let mut subject = String::with_capacity(64);
        for part in &self.parts {
            subject.push_str(match part {
                Part::Literal(text) => text,
                Part::Column(at) => texts
                    .get(*at)
                    .and_then(Option::as_deref)
                    .ok_or(Invalid::Null)?,
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

    const COLUMNS: [(&str, &str); 4] = [
        ("aggregatetype", "order"),
        ("aggregateid", "42"),
        ("type", "orders.v1.OrderCreated"),
        ("tenant", "acme"),
    ];

    fn subject(template: &str) -> Result<String, Invalid> {
        let texts = COLUMNS.map(|(_, value)| Some(value.into()));
        let place = |name: &str| {
            let at = COLUMNS.iter().position(|(known, _)| *known == name);
            at.unwrap_or(COLUMNS.len())
        };
        template.parse::<Template>()?.resolve(place).subject(&texts)
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
        assert_eq!(subject("t.{tenant}.e").unwrap(), "t.acme.e");
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
        let resolved = template.resolve(|_| 0);
        for event_type in ["", ">", "a.*", "a b", "a\r\nPUB x 1", ".a"] {
            assert!(
                resolved.subject(&[Some(event_type.into())]).is_err(),
                "{event_type:?}"
            );
        }
        assert_eq!(resolved.subject(&[None]), Err(Invalid::Null));
    }

    #[test]
    fn a_pattern_takes_whatever_a_template_can_become() {
        for (template, pattern) in [
            ("events.{type}", "events.>"),
            ("events.x{type}", "events.>"),
            ("{tenant}.a", ">"),
            ("events.all", "events.all"),
        ] {
            assert_eq!(template.parse::<Template>().unwrap().pattern(), pattern);
        }
    }
}
