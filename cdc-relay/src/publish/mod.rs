//! Appends to the stream by compare-and-swap: each append states the sequence that it expects to
//! follow, so that nothing overtakes a failed one, and a second relay that believes it is alone is
//! refused (I5).
//!
//! ```text
//! truth: last sequence, last position ──▶ append(expects last sequence) ──ok──▶ last sequence + n
//!     ▲                                                   │
//!     └──────────── any error or time-out ────────────────┘   never retried blindly
//! ```
//!
//! The danger: a time-out does not mean *not stored*. Whoever gets an error from [`Appender::append`]
//! must drop the appender and open another, which reads the truth again.
//!
//! One append is in flight, and what stores nothing goes ahead of the next (`ahead.rs`). Plain messages that each state their sequence could be pipelined, but are
//! no fence then: a stranger's message costs the one whose place it took, and those behind it fit again.

mod ahead;
mod exchange;
mod fast;
mod limits;
mod pace;

pub use ahead::{Next, Sent};
pub use limits::Limits;
pub(crate) use limits::covers;

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use async_nats::{
    Client,
    connection::State,
    jetstream::{publish::PublishAck, stream},
};
use mailbox::envelope::Position;
use metrics::{counter, histogram};
use tokio::time::sleep;

use self::{
    exchange::{DURING, Exchange},
    fast::FastIngest,
    pace::{Pace, Way},
};
use crate::{
    config::Transactions,
    error::{Error, Result},
    record::Record,
    stream::Truth,
    window::{BATCH_RECORDS_MAX, Batch},
};

/// How long an append may take in all: a stuck socket holds the messages before the acknowledgement.
const APPEND_TIMEOUT: Duration = Duration::from_secs(15);

/// How often an append in flight looks whether its connection is still the one that it went out on.
const CONNECTION_CHECK: Duration = Duration::from_millis(100);

/// Without fast batches, more than this many messages are not even tried one by one.
const SINGLES_MAX: usize = 16;

/// After [`Error::Unclear`] so many go one by one: as many as can have come together.
const CAREFUL_MAX: usize = BATCH_RECORDS_MAX;

/// What the stream takes besides single messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paths {
    /// Batches of which all or nothing is stored (nats-server 2.12 and newer).
    pub atomic: bool,
    /// Batches that end at the first message that fails (nats-server 2.14 and newer).
    pub fast: bool,
}

impl Paths {
    pub fn of(config: &stream::Config) -> Self {
        Self {
            atomic: config.allow_atomic_publish,
            fast: config.allow_batch_publish,
        }
    }

    /// For status, metrics and logs.
    pub fn name(self) -> &'static str {
        match (self.atomic, self.fast) {
            (true, true) => "atomic-and-fast",
            (true, false) => "atomic",
            (false, true) => "fast",
            (false, false) => "one-by-one",
        }
    }
}

/// Who writes to the stream, at its end as it was read last.
#[derive(Debug)]
pub struct Appender {
    exchange: Exchange,
    paths: Paths,
    fast: Option<FastIngest>,
    pace: Pace,
    /// Whether transactions of several events may go either way too.
    apart: bool,
    /// How many records are still to go one by one, whatever they belong to.
    careful: usize,
    last_sequence: u64,
    acknowledged: Option<Acknowledged>,
}

/// The end of an append that JetStream has acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledged {
    pub sequence: u64,
    pub id: String,
}

/// The end of an append that is on its way.
#[derive(Debug)]
struct Last {
    count: u64,
    id: String,
    position: Position,
}

impl Last {
    fn of(records: &[Record]) -> Option<Self> {
        let last = records.last()?;
        Some(Self {
            count: records.len() as u64,
            id: last.id().to_owned(),
            position: last.position,
        })
    }
}

impl Appender {
    /// Appends after `truth`.
    pub fn after(client: Client, truth: &Truth) -> Self {
        Self {
            exchange: Exchange::new(client, &truth.stream),
            paths: truth.paths,
            fast: None,
            pace: Pace::default(),
            apart: false,
            careful: 0,
            last_sequence: truth.last_sequence,
            acknowledged: None,
        }
    }

    /// Lets a transaction's events appear one after the other where that is quicker, if `transactions` says so.
    /// Their order, and that each is stored once, hold all the same.
    #[must_use]
    pub fn taking(self, transactions: Transactions) -> Self {
        let apart = transactions == Transactions::Apart;
        Self { apart, ..self }
    }

    /// The stream that is appended to.
    pub fn stream(&self) -> &str {
        &self.exchange.stream
    }

    /// The sequence that the next append follows.
    pub fn last_sequence(&self) -> u64 {
        self.last_sequence
    }

    /// Sends the next records one by one, so that one which JetStream refuses is known by its id. A
    /// transaction among them is seen in part for a moment.
    pub fn be_careful(&mut self) {
        self.careful = CAREFUL_MAX;
    }

    /// The last append that was acknowledged to this appender.
    pub fn last_acknowledged(&self) -> Option<&Acknowledged> {
        self.acknowledged.as_ref()
    }

    /// Appends a batch and waits until JetStream has acknowledged all of it; meanwhile the next is sent
    /// ahead, where `following` gives one and nothing of it is stored by that.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub async fn append_batch(
        &mut self,
        batch: Batch,
        following: impl Future<Output = Batch>,
    ) -> Result<Option<Next>> {
        let begun = Instant::now();
        if self.careful > 0 || !self.paths.atomic {
            self.append(batch.records).await?;
            return Ok(None);
        }
        match self.way(&batch, begun) {
            Way::Together => self.append_whole(batch, following).await,
            Way::Apart => {
                let count = batch.records.len();
                self.append_apart(batch.records).await?;
                self.pace.learn(Way::Apart, count, begun, begun.elapsed());
                Ok(None)
            }
        }
    }

    /// Transactions of one event each need not appear together, so they go whichever way is the quicker.
    fn way(&self, batch: &Batch, now: Instant) -> Way {
        if self.may_go_apart(batch) {
            self.pace.choose(batch.records.len(), now)
        } else {
            Way::Together
        }
    }

    fn may_go_apart(&self, batch: &Batch) -> bool {
        let count = batch.records.len();
        (batch.is_of_singles || self.apart)
            && count >= 2
            && (self.paths.fast || count <= SINGLES_MAX)
    }

    /// Appends all of `records` or nothing, in their order, and waits until JetStream has
    /// acknowledged them; where the stream takes no atomic batches, an error may leave the first of
    /// them stored.
    ///
    /// # Errors
    /// After any, what was stored is not known: drop the appender and read the truth again.
    pub async fn append(&mut self, records: Vec<Record>) -> Result<()> {
        if self.careful > 0 {
            self.careful = self.careful.saturating_sub(records.len());
            self.append_singly(records).await
        } else if self.paths.atomic || records.len() < 2 {
            self.append_together(records).await
        } else {
            self.append_apart(records).await
        }
    }

    async fn append_together(&mut self, records: Vec<Record>) -> Result<()> {
        let Some(last) = Last::of(&records) else {
            return Ok(());
        };
        let appending = async {
            let commit = self.exchange.send(records, self.last_sequence).await?;
            self.exchange.acknowledged(commit).await
        };
        let ack = while_connected(&self.exchange.client, appending).await?;
        self.acknowledged(&ack, last)
    }

    /// Each message states its sequence, and none is stored behind one that failed: the server sees to
    /// it in a fast batch, and otherwise each waits for the acknowledgement of the one before it.
    async fn append_apart(&mut self, records: Vec<Record>) -> Result<()> {
        if !self.paths.fast {
            return self.append_singly(records).await;
        }
        let Some(last) = Last::of(&records) else {
            return Ok(());
        };
        let fast = match &mut self.fast {
            Some(fast) => fast,
            none => none.insert(FastIngest::open(&self.exchange.client).await?),
        };
        let sent = fast.append(&self.exchange, records, self.last_sequence);
        let ack = while_connected(&self.exchange.client, sent).await?;
        self.acknowledged(&ack, last)
    }

    async fn append_singly(&mut self, records: Vec<Record>) -> Result<()> {
        for record in records {
            self.append_together(vec![record]).await?;
        }
        Ok(())
    }

    fn acknowledged(&mut self, ack: &PublishAck, last: Last) -> Result<()> {
        let expected = self.last_sequence + last.count;
        // A duplicate at the very place that was asked for is this message, stored by an attempt
        // that timed out. Elsewhere, it is another event of the same id.
        if ack.duplicate && ack.sequence != expected {
            return Err(Error::Definite(format!(
                "event {} cannot be published: stream {} holds one of the same id already, at sequence {}. \
                 Ids in the outbox must be unique; this one is taken again once the stream's duplicate \
                 window has passed",
                last.id, self.exchange.stream, ack.sequence
            )));
        }
        if ack.sequence != expected {
            return Err(Error::Transient(format!(
                "stream {} stored at sequence {}, not at {expected}",
                self.exchange.stream, ack.sequence
            )));
        }
        self.last_sequence = expected;
        self.acknowledged = Some(Acknowledged {
            sequence: expected,
            id: last.id,
        });
        counter!("cdc_relay_published_total").increment(last.count);
        histogram!("cdc_relay_batch_size").record(last.count as f64);
        Ok(())
    }
}

/// Waits for the exchange, but no longer than the connection lasts.
async fn while_connected(
    client: &Client,
    exchange: impl Future<Output = Result<PublishAck>>,
) -> Result<PublishAck> {
    let connection = connection(client);
    let exchange = Error::within(DURING, APPEND_TIMEOUT, exchange);
    tokio::select! {
        ack = exchange => ack,
        () = lost(client, connection) => Err(Error::Transient(
            "append to the stream: the connection to NATS was lost, and the acknowledgement with it"
                .to_owned(),
        )),
    }
}

/// Which connection this is, if there is one: they are counted.
fn connection(client: &Client) -> Option<u64> {
    let count = client.statistics().connects.load(Ordering::Relaxed);
    (client.connection_state() == State::Connected).then_some(count)
}

async fn lost(client: &Client, this: Option<u64>) {
    while this.is_some() && connection(client) == this {
        sleep(CONNECTION_CHECK).await;
    }
}
