//! What is read of a row and what it becomes, as the configuration says it: worked out once, so that a
//! row costs no look-up by name.

use async_nats::{HeaderValue, header::HeaderName};

use crate::{
    config::{Columns, Message},
    subject::{Resolved, Template},
};

/// The places of the required texts in [`Layout::texts`].
pub const ID: usize = 0;
pub const AGGREGATE_TYPE: usize = 1;
pub const AGGREGATE_ID: usize = 2;
pub const TYPE: usize = 3;
/// How many of the texts must not be NULL.
pub(super) const REQUIRED: usize = 4;

/// Where `headers` are read when nothing names their column: in a table that has it.
const HEADERS: &str = "headers";

/// What a row is read for.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The columns that are read as text: id, aggregate type, aggregate id and type, then what subject
    /// and headers name beside them.
    pub texts: Vec<String>,
    pub payload: String,
    pub headers: String,
    /// The table must have a column for the headers, because somebody named it.
    pub needs_headers: bool,
    pub(super) subject: Resolved,
    pub(super) fixed: Vec<(HeaderName, HeaderValue)>,
    /// Texts that become headers.
    pub(super) as_headers: Vec<(HeaderName, usize)>,
    pub(super) cloud: Option<Cloud>,
}

/// What makes a message a CloudEvent.
#[derive(Clone, Debug)]
pub(super) struct Cloud {
    pub(super) source: HeaderValue,
    /// The text with the time.
    pub(super) time: Option<usize>,
}

impl Layout {
    /// Whether a row must have this text: to be told apart, or for its subject.
    pub fn is_required(&self, text: usize) -> bool {
        text < REQUIRED || self.subject.needs(text)
    }

    /// The column with the events' types.
    pub fn type_column(&self) -> &str {
        &self.texts[TYPE]
    }

    /// The same for events that go to another subject.
    pub fn for_subject(&self, subject: &Template) -> Self {
        Self {
            subject: subject.resolve(|_| ID),
            ..self.clone()
        }
    }

    /// Reads the configuration.
    pub fn of(columns: &Columns, message: &Message) -> Self {
        let mut texts = vec![
            columns.id.clone(),
            columns.aggregate_type.clone(),
            columns.aggregate_id.clone(),
            columns.event_type.clone(),
        ];
        let mut place = |name: &str| {
            texts
                .iter()
                .position(|known| known == name)
                .unwrap_or_else(|| {
                    texts.push(name.to_owned());
                    texts.len() - 1
                })
        };
        let subject = message.subject.resolve(|name| match name {
            "id" => ID,
            "aggregatetype" => AGGREGATE_TYPE,
            "aggregateid" => AGGREGATE_ID,
            "type" => TYPE,
            column => place(column),
        });
        let columns_as_headers = &columns.as_headers.0;
        let as_headers = columns_as_headers
            .iter()
            .map(|(column, header)| (header.clone(), place(column)))
            .collect();
        let cloud = message.cloudevents_source.clone().map(|source| Cloud {
            source,
            time: columns.time.as_deref().map(place),
        });
        Self {
            texts,
            payload: columns.payload.clone(),
            headers: columns
                .headers
                .clone()
                .unwrap_or_else(|| HEADERS.to_owned()),
            needs_headers: columns.headers.is_some(),
            subject,
            fixed: message.headers.0.clone(),
            as_headers,
            cloud,
        }
    }
}
