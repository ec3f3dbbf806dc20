//! From the plugin's messages to what the window takes: which transaction, which row of the outbox,
//! and whether the stream has it already. No waiting and no I/O.

use mailbox::envelope::Position;
use tokio_postgres::types::PgLsn;

mod logical;

use crate::{
    config::Source,
    error::{Error, Result},
    history::Resume,
    pgoutput::{self, Message, Relation, Tuple},
    publish::Limits,
    quarantine::{self, Item},
    record::{Layout, Mapping, Record},
    types::Types,
    wal::System,
};

/// What a message means.
#[derive(Debug)]
pub enum Taken {
    /// A transaction begins, which committed so many microseconds after 2000 began.
    Begin(i64),
    /// An event that the stream lacks.
    Event(Record),
    /// A row that cannot be published.
    Offender(Box<Item>),
    /// An event that the stream holds.
    Stored,
    /// The transaction ends.
    Commit(PgLsn),
    /// Nothing to an outbox.
    Other,
}

/// The outbox as the WAL describes it.
#[derive(Debug)]
struct Outbox {
    relation: u32,
    mapping: Mapping,
    /// The description itself, for rows that are set aside.
    description: Vec<u8>,
}

/// Where the intake stands in the WAL.
#[derive(Debug)]
pub struct Intake<'a> {
    source: &'a Source,
    layout: &'a Layout,
    system: System,
    limits: Limits,
    resume: Resume,
    /// Why a row that cannot be published must stop the relay, if it must.
    stops: Option<String>,
    types: Types,
    outbox: Option<Outbox>,
    /// What the payloads of logical messages are described as, since the last of them.
    payload_type: Option<u32>,
    commit_lsn: PgLsn,
    /// Rows of the outbox so far in this transaction.
    index: u32,
}

impl<'a> Intake<'a> {
    pub fn new(
        source: &'a Source,
        layout: &'a Layout,
        system: System,
        limits: Limits,
        resume: Resume,
        stops: Option<String>,
    ) -> Self {
        Self {
            source,
            layout,
            system,
            limits,
            resume,
            stops,
            types: Types::default(),
            outbox: None,
            payload_type: None,
            commit_lsn: PgLsn::from(0),
            index: 0,
        }
    }

    /// Reads columns of these types as well.
    pub fn with_types(self, types: Types) -> Self {
        Self { types, ..self }
    }

    /// What the stream is known to hold.
    pub fn resume(&self) -> &Resume {
        &self.resume
    }

    /// Takes one message of the plugin.
    ///
    /// # Errors
    /// [`Error::Definite`] at a table that is no outbox, and without a quarantine at a row that cannot be
    /// published.
    pub fn take(&mut self, message: &[u8]) -> Result<Taken> {
        match pgoutput::decode(message).map_err(Error::definite)? {
            Message::Begin {
                commit_lsn,
                commit_time,
            } => {
                self.commit_lsn = commit_lsn;
                self.index = 0;
                Ok(Taken::Begin(commit_time))
            }
            Message::Relation(relation) => self.relation(relation).map(|()| Taken::Other),
            Message::Insert { relation, tuple } => self.row(relation, &tuple),
            Message::Commit { end_lsn } => Ok(Taken::Commit(end_lsn)),
            Message::Logical {
                is_transactional,
                prefix,
                content,
            } => self.logical(is_transactional, prefix, content),
            Message::Other(_) => Ok(Taken::Other),
        }
    }

    fn relation(&mut self, mut relation: Relation<'_>) -> Result<()> {
        let table = &self.source.table;
        if relation.schema == table.schema && relation.name == table.name {
            for column in &mut relation.columns {
                column.type_oid = self.types.base(column.type_oid);
            }
            let mapping = Mapping::of(&relation, self.layout)
                .map_err(|error| Error::no_outbox(table, &error))?;
            self.outbox = Some(Outbox {
                relation: relation.id,
                mapping,
                description: quarantine::encode_relation(&relation),
            });
        } else if self
            .outbox
            .as_ref()
            .is_some_and(|outbox| outbox.relation == relation.id)
        {
            return Err(Error::Definite(format!(
                "table {} was renamed to {}.{}. If another table has its name now: add that one to \
                 publication {}; SELECT pg_drop_replication_slot('{}'); then the relay publishes from \
                 the table what the stream lacks",
                table.quoted(),
                relation.schema,
                relation.name,
                self.source.publication,
                self.source.slot
            )));
        }
        Ok(())
    }

    fn row(&mut self, relation: u32, tuple: &Tuple<'_>) -> Result<Taken> {
        let outbox = self.outbox.as_ref();
        let Some(outbox) = outbox.filter(|outbox| outbox.relation == relation) else {
            return Ok(Taken::Other);
        };
        let mapping = &outbox.mapping;
        let position = Position {
            system: self.system.id,
            timeline: self.system.timeline,
            lsn: self.commit_lsn.into(),
            index: self.index,
        };
        self.index += 1;
        if self.resume.is_stored(position, || mapping.id(tuple))? {
            return Ok(Taken::Stored);
        }
        let record = mapping.record(tuple, position, self.layout);
        let record = record.map_err(|error| error.to_string());
        let checked = record.and_then(|record| self.limits.check(&record).map(|()| record));
        match (checked, &self.stops) {
            (Ok(record), _) => Ok(Taken::Event(record)),
            (Err(why), None) => {
                let names = quarantine::names(mapping, tuple);
                let bytes = quarantine::encode_row(&outbox.description, tuple);
                let item = Item::offender(&why, position, names, bytes);
                Ok(Taken::Offender(Box::new(item)))
            }
            (Err(why), Some(stops)) => {
                let id = mapping
                    .id(tuple)
                    .unwrap_or_else(|| "(without an id)".to_owned());
                let table = self.source.table.quoted();
                Err(Error::Definite(format!(
                    "event {id} at {position} cannot be published: {why}. Nor can it be set aside: {stops}. \
                     What was committed before it is published, and nothing after it. To mend the row \
                     itself: update or delete it in {table}; SELECT pg_drop_replication_slot('{}'); then \
                     the relay publishes from the table what the stream lacks, as far as its rows are \
                     still there",
                    self.source.slot
                )))
            }
        }
    }
}
