//! One session's work: three futures in one task, so that nothing is handed between threads.
//!
//! ```text
//! read    WAL ──decode──▶ window           holds when the window is full
//! append  window ──batch──▶ JetStream      one append in flight
//! report  ledger ──status──▶ Postgres      by the clock, whatever the other two wait for
//! ```

use std::{
    pin::pin,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use mailbox::envelope::Position;
use metrics::{counter, gauge};
use tokio::{
    sync::Notify,
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_postgres::types::PgLsn;
use tokio_util::sync::CancellationToken;

use crate::{
    config::{Source, Table},
    error::{Error, Result},
    pgoutput::{self, Message, Relation, Tuple},
    progress::Progress,
    publish::Appender,
    record::Mapping,
    subject::Template,
    wal::{Event, System, WalReader, WalWriter},
    window::Window,
};

/// A status goes out at least so often: well under any sensible `wal_sender_timeout`.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// And at most so often, however fast the ledger moves: each one wakes the walsender.
const REPORT_PAUSE: Duration = Duration::from_millis(50);

/// A session's shared state.
#[derive(Debug)]
pub struct Pipeline<'a> {
    source: &'a Source,
    template: &'a Template,
    system: System,
    /// The last event that the stream held when the session began; what is not after it is there.
    stored: Option<Position>,
    window: Window,
    progress: Mutex<Progress>,
    /// The ledger moved, or Postgres asks for a status.
    report_due: Notify,
    /// The window is drained and closed: the last status may go out.
    drained: CancellationToken,
}

impl<'a> Pipeline<'a> {
    pub fn new(
        source: &'a Source,
        template: &'a Template,
        system: System,
        stored: Option<Position>,
        confirmed: PgLsn,
    ) -> Self {
        Self {
            source,
            template,
            system,
            stored,
            window: Window::default(),
            progress: Mutex::new(Progress::resume(confirmed)),
            report_due: Notify::new(),
            drained: CancellationToken::new(),
        }
    }

    /// Runs until `stop`, then drains what was gathered, confirms it and ends the stream in order.
    ///
    /// # Errors
    /// The first failure of the three; what was in flight is then found out from the stream.
    pub async fn run(
        &self,
        reader: WalReader,
        mut writer: WalWriter,
        appender: &mut Appender,
        stop: &CancellationToken,
    ) -> Result<()> {
        let (reader, (), ()) = tokio::try_join!(
            self.read(reader, stop),
            self.append(appender),
            self.report(&mut writer),
        )?;
        reader.finish().await;
        Ok(())
    }

    async fn read(&self, mut reader: WalReader, stop: &CancellationToken) -> Result<WalReader> {
        let mut decoder = Decoder::default();
        let reading = async {
            loop {
                match reader.next().await? {
                    Event::Data(message) => self.take(&mut decoder, &message).await?,
                    Event::Keepalive {
                        wal_end,
                        reply_requested,
                    } => {
                        self.ledger().confirm_idle(wal_end);
                        if reply_requested {
                            self.report_due.notify_one();
                        }
                    }
                }
            }
        };
        let ended: Result<()> = tokio::select! {
            biased;
            () = stop.cancelled() => Ok(()),
            ended = reading => ended,
        };
        self.window.close();
        ended.map(|()| reader)
    }

    async fn take(&self, decoder: &mut Decoder, message: &[u8]) -> Result<()> {
        match pgoutput::decode(message).map_err(Error::definite)? {
            Message::Begin { commit_lsn } => {
                self.ledger().begin();
                decoder.begin(commit_lsn);
            }
            Message::Relation(relation) => decoder.relation(&relation, &self.source.table)?,
            Message::Insert { relation, tuple } => {
                self.take_row(decoder, relation, &tuple).await?;
            }
            Message::Commit { end_lsn, .. } => {
                self.ledger().received(end_lsn);
                self.window.commit(end_lsn).await;
            }
            Message::Other(_) => {}
        }
        Ok(())
    }

    async fn take_row(
        &self,
        decoder: &mut Decoder,
        relation: u32,
        tuple: &Tuple<'_>,
    ) -> Result<()> {
        let Some((mapping, commit_lsn, index)) = decoder.row(relation) else {
            return Ok(());
        };
        let position = Position {
            system: self.system.id,
            timeline: self.system.timeline,
            lsn: commit_lsn.into(),
            index,
        };
        if self.stored.is_some_and(|stored| position <= stored) {
            counter!("cdc_relay_resumed_total").increment(1);
            return Ok(());
        }
        let record = mapping
            .record(tuple, position, self.template)
            .map_err(|error| {
                Error::Definite(format!(
                    "the outbox row at {position} cannot be published: {error}"
                ))
            })?;
        self.window.push(record).await;
        Ok(())
    }

    async fn append(&self, appender: &mut Appender) -> Result<()> {
        while let Some(batch) = self.window.take().await {
            if let Some(end) = batch.end {
                self.ledger().published(end);
            }
            appender.append(batch.records).await?;
            if let Some(end) = batch.end {
                // I2: only now, with the acknowledgement in hand.
                self.ledger().acknowledged(end);
                self.report_due.notify_one();
            }
        }
        self.drained.cancel();
        Ok(())
    }

    async fn report(&self, writer: &mut WalWriter) -> Result<()> {
        let mut clock = interval(REPORT_INTERVAL);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut drained = pin!(self.drained.cancelled());
        loop {
            let last = tokio::select! {
                () = &mut drained => true,
                _ = clock.tick() => false,
                () = self.report_due.notified() => false,
            };
            let (confirmed, lag) = {
                let ledger = self.ledger();
                (ledger.confirmable(), ledger.lag_bytes())
            };
            gauge!("cdc_relay_lag_bytes").set(lag as f64);
            gauge!("cdc_relay_window_entries").set(self.window.len() as f64);
            writer.report(confirmed).await?;
            if last {
                return writer.finish().await;
            }
            sleep(REPORT_PAUSE).await;
        }
    }

    fn ledger(&self) -> MutexGuard<'_, Progress> {
        // A panic inside the ledger is a broken invariant: it must not be used again.
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the decoder stands in the WAL.
#[derive(Debug)]
struct Decoder {
    outbox: Option<(u32, Mapping)>,
    commit_lsn: PgLsn,
    /// Rows of the outbox so far in this transaction.
    index: u32,
}

impl Default for Decoder {
    fn default() -> Self {
        Self {
            outbox: None,
            commit_lsn: PgLsn::from(0),
            index: 0,
        }
    }
}

impl Decoder {
    fn begin(&mut self, commit_lsn: PgLsn) {
        self.commit_lsn = commit_lsn;
        self.index = 0;
    }

    fn relation(&mut self, relation: &Relation<'_>, table: &Table) -> Result<()> {
        if relation.schema == table.schema && relation.name == table.name {
            let mapping = Mapping::of(relation).map_err(|error| {
                Error::Definite(format!("table {} is no outbox: {error}", table.quoted()))
            })?;
            self.outbox = Some((relation.id, mapping));
        } else if self
            .outbox
            .as_ref()
            .is_some_and(|(id, _)| *id == relation.id)
        {
            // The outbox was renamed away: its rows are another table's now.
            self.outbox = None;
        }
        Ok(())
    }

    /// Counts a row of the outbox: how to read it, its commit, its place in the transaction. `None`
    /// for a row of another table.
    fn row(&mut self, relation: u32) -> Option<(&Mapping, PgLsn, u32)> {
        let (id, mapping) = self.outbox.as_ref()?;
        if *id != relation {
            return None;
        }
        let index = self.index;
        self.index += 1;
        Some((mapping, self.commit_lsn, index))
    }
}
