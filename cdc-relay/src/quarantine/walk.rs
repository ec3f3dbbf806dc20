//! Everything in quarantine, for people to look at.

use std::collections::{BTreeMap, HashMap};

use async_nats::{HeaderMap, jetstream::stream::Info};

use super::{
    holds::HELD_MAX,
    item::{Meta, State},
    key::Place,
    request::{Request, read_request},
    store::Store,
};
use crate::{error::Result, stream::Headers};

const DURING: &str = "list the quarantine";

/// Items that a listing holds in memory (I12); what is beyond is only counted.
const LIST_MAX: usize = 10 * HELD_MAX;

/// An item, and what was asked for about it.
#[derive(Clone, Debug)]
pub struct Listed {
    pub place: Place,
    pub meta: Meta,
    pub request: Option<Request>,
}

impl Listed {
    /// Somebody has to decide about it before its aggregate goes on.
    pub fn blocks(&self) -> bool {
        let became_one = |request: &Request| request.refused.is_some();
        let offends = self.meta.role == super::Role::Offender;
        self.meta.is_open() && (offends || self.request.as_ref().is_some_and(became_one))
    }
}

/// Items in the order in which they stand in quarantine, and how many there are besides.
#[derive(Debug, Default)]
pub struct List {
    pub items: Vec<Listed>,
    pub more: u64,
}

/// Ids that are handed on at once.
const CHUNK: usize = 1000;

/// Goes through the messages on some subjects.
#[derive(Debug)]
pub struct Walk<'a>(Headers<'a, Info>);

impl<'a> Walk<'a> {
    async fn over(store: &'a Store, filters: Vec<String>) -> Result<Self> {
        let headers = Headers::behind(store.stream(), 0, filters, DURING).await;
        headers.map(Self)
    }

    /// Sequence, place and headers of the next message.
    async fn next(&mut self) -> Result<Option<(u64, Place, HeaderMap)>> {
        while let Some((at, message)) = self.0.next().await? {
            if let (Some(place), Some(headers)) = (Place::parse(&message.subject), &message.headers)
            {
                return Ok(Some((at, place, headers.clone())));
            }
        }
        Ok(None)
    }

    /// The next ids of events that are in quarantine instead of the stream, or were discarded: who
    /// compares the table with the stream must not take them for missing. What was released is in the
    /// stream, or is missing there. `None` at the end.
    pub async fn absent_on_purpose(&mut self) -> Result<Option<Vec<String>>> {
        let mut ids = Vec::new();
        while let Some((_, _, headers)) = self.next().await? {
            let meta = Meta::read(&headers).filter(|meta| meta.state != State::Released);
            ids.extend(meta.and_then(|meta| meta.names.id));
            if ids.len() >= CHUNK {
                return Ok(Some(ids));
            }
        }
        Ok((!ids.is_empty()).then_some(ids))
    }
}

impl Store {
    /// Goes through all items.
    pub async fn walk(&self) -> Result<Walk<'_>> {
        Walk::over(self, vec![self.subjects().items()]).await
    }

    /// Lists what `wanted` wants.
    pub async fn list(&self, wanted: impl Fn(&Place, &Meta) -> bool) -> Result<List> {
        let mut items: BTreeMap<u64, (Place, Meta)> = BTreeMap::new();
        let mut requests: HashMap<Place, Request> = HashMap::new();
        let mut more = 0;
        let filters = vec![self.subjects().items(), self.subjects().requests()];
        let mut walk = Walk::over(self, filters).await?;
        while let Some((at, place, headers)) = walk.next().await? {
            if let Some(meta) = Meta::read(&headers) {
                if !wanted(&place, &meta) {
                    continue;
                }
                if items.len() < LIST_MAX {
                    items.insert(at, (place, meta));
                } else {
                    more += 1;
                }
            } else if let Some(request) = read_request(&headers)
                && requests.len() < LIST_MAX
            {
                requests.insert(place, request);
            }
        }
        let listed = |(place, meta): (Place, Meta)| Listed {
            request: requests.get(&place).cloned(),
            place,
            meta,
        };
        Ok(List {
            items: items.into_values().map(listed).collect(),
            more,
        })
    }
}
