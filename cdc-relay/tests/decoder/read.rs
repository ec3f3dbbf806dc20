//! What the relay's decoder, spool and records make of the plugin's messages.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use cdc_relay::{
    config::{self, Table},
    pgoutput::{Message, decode},
    record::{Headers, Layout, Mapping, Record},
    spool::{Settings, Spool},
};
use clap::{Args as _, Command, FromArgMatches as _};
use mailbox::envelope::Position;

use crate::model::Event;

/// Events with their places, transaction for transaction; those without an event are left out.
pub type Transactions = Vec<Vec<(Position, Event)>>;

pub fn table() -> Table {
    Table {
        schema: "public".to_owned(),
        name: "outbox".to_owned(),
    }
}

pub fn spool() -> Spool {
    let settings = Settings {
        directory: std::env::temp_dir(),
        bytes_max: 1 << 30,
    };
    Spool::new(settings, table())
}

/// Reads the messages of a whole session.
pub fn read(messages: &[Bytes]) -> Result<Transactions> {
    let mut spool = spool();
    let mut reading = Reading::new()?;
    for message in messages {
        if let Some(message) = spool.take(message.clone())? {
            reading.take(&message)?;
        }
        while spool.has_more() {
            if let Some(message) = spool.give()? {
                reading.take(&message)?;
            }
        }
    }
    ensure!(reading.open.is_none(), "the last transaction does not end");
    Ok(reading.done)
}

/// Takes messages in commit order.
pub struct Reading {
    layout: Layout,
    outbox: Option<(u32, Mapping)>,
    lsn: u64,
    open: Option<Vec<(Position, Event)>>,
    pub done: Transactions,
}

impl Reading {
    pub fn new() -> Result<Self> {
        // As it is when nothing is set.
        let command = config::Columns::augment_args(Command::new("test"));
        let matches = config::Message::augment_args(command).try_get_matches_from(["test"])?;
        let columns = config::Columns::from_arg_matches(&matches)?;
        let message = config::Message::from_arg_matches(&matches)?;
        Ok(Self {
            layout: Layout::of(&columns, &message),
            outbox: None,
            lsn: 0,
            open: None,
            done: Vec::new(),
        })
    }

    pub fn take(&mut self, message: &[u8]) -> Result<()> {
        match decode(message)? {
            Message::Begin { commit_lsn, .. } => {
                ensure!(self.open.is_none(), "a transaction within another");
                self.lsn = commit_lsn.into();
                self.open = Some(Vec::new());
            }
            Message::Commit { end_lsn } => {
                ensure!(u64::from(end_lsn) > self.lsn, "it ends before its commit");
                let events = self.open.take().context("a commit without a begin")?;
                if !events.is_empty() {
                    self.done.push(events);
                }
            }
            Message::Relation(relation) if relation.name == "outbox" => {
                self.outbox = Some((relation.id, Mapping::of(&relation, &self.layout)?));
            }
            Message::Insert { relation, tuple } => {
                let outbox = self.outbox.as_ref().filter(|(id, _)| *id == relation);
                let (Some((_, mapping)), Some(open)) = (outbox, &mut self.open) else {
                    return Ok(());
                };
                let position = Position {
                    system: 7,
                    timeline: 1,
                    lsn: self.lsn,
                    index: u32::try_from(open.len())?,
                };
                let record = mapping.record(&tuple, position, &self.layout)?;
                ensure!(
                    mapping.id(&tuple).as_deref() == Some(record.id()),
                    "two ids"
                );
                if open.is_empty() {
                    let longer = [message, b"\0"].concat();
                    let Message::Insert { tuple, .. } = decode(&longer)? else {
                        bail!("not an insert with a byte behind it");
                    };
                    let record = mapping.record(&tuple, position, &self.layout);
                    ensure!(record.is_err(), "a byte behind the row is overlooked");
                }
                open.push((position, event(&record)));
            }
            _ => {}
        }
        Ok(())
    }
}

fn event(record: &Record) -> Event {
    let header = |name: &str| of(&record.headers, name);
    let own = ["Nats-", "Cdc-", "Event-", "Aggregate-"];
    let all = record.headers.iter();
    let extra = all
        .filter(|(name, _)| !own.iter().any(|own| name.starts_with(own)))
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    Event {
        id: header("Nats-Msg-Id"),
        aggregate_type: header("Aggregate-Type"),
        aggregate_id: header("Aggregate-Id"),
        event_type: record.subject["events.".len()..].to_owned(),
        payload: record.payload.to_vec(),
        headers: extra.collect::<BTreeMap<_, _>>(),
    }
}

fn of(headers: &Headers, name: &str) -> String {
    headers.get(name).unwrap_or_default().to_owned()
}
