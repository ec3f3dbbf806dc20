//! One session's work: three futures in one task, so that nothing is handed between threads.
//!
//! ```text
//! read    WAL ──spool, intake──▶ window    holds when the window is full
//! append  window ──batch──▶ JetStream      one append in flight, a full batch sent ahead
//! report  ledger ──status──▶ Postgres      by the clock, whatever the other two wait for
//! ```

use std::{
    future::pending,
    pin::pin,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, UNIX_EPOCH},
};

use metrics::{counter, gauge};
use tokio::{
    sync::Notify,
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_postgres::types::PgLsn;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span};

use crate::{
    error::{Error, Result},
    intake::{Intake, Taken},
    progress::Progress,
    publish::{Appender, Next},
    quarantine::{Desk, POLL},
    spool::CommitOrder,
    wal::{Event, WalWriter},
    window::{Batch, Window},
};

/// A status goes out at least so often: well under any sensible `wal_sender_timeout`.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// And at most so often, however fast the ledger moves: each one wakes the walsender.
const REPORT_PAUSE: Duration = Duration::from_millis(50);

/// From 1970 to 2000, where Postgres begins to count.
const POSTGRES_EPOCH: Duration = Duration::from_secs(946_684_800);

/// A session's shared state.
#[derive(Debug)]
pub struct Pipeline {
    window: Window,
    progress: Mutex<Progress>,
    /// The ledger moved, or Postgres asks for a status.
    report_due: Notify,
    /// The window is drained and closed: the last status may go out.
    drained: CancellationToken,
}

impl Pipeline {
    /// Goes on from what the slot has `confirmed`; until it `is_proven` that the stream belongs to
    /// this WAL, nothing more is confirmed.
    pub fn new(confirmed: PgLsn, is_proven: bool) -> Self {
        Self {
            window: Window::default(),
            progress: Mutex::new(Progress::resume(confirmed, is_proven)),
            report_due: Notify::new(),
            drained: CancellationToken::new(),
        }
    }

    /// Runs until `stop`, then drains what was gathered, confirms it and ends the stream in order. So
    /// it does at a row that cannot be published: what was committed before it is not held up.
    ///
    /// # Errors
    /// The first failure of the three; what was in flight is then found out from the stream.
    pub async fn run(
        &self,
        reader: CommitOrder,
        mut writer: WalWriter,
        mut intake: Intake<'_>,
        (appender, desk): (&mut Appender, &mut Desk<'_>),
        stop: &CancellationToken,
    ) -> Result<()> {
        let ((reader, ended), (), ()) = tokio::try_join!(
            self.read(reader, &mut intake, stop),
            self.append(appender, desk),
            self.report(&mut writer),
        )?;
        reader.finish().await;
        ended
    }

    /// Reads until `stop` or a definite failure, which is returned beside the reader.
    async fn read(
        &self,
        mut reader: CommitOrder,
        intake: &mut Intake<'_>,
        stop: &CancellationToken,
    ) -> Result<(CommitOrder, Result<()>)> {
        let reading = async {
            loop {
                match reader.next().await? {
                    Event::Data(message) => self.take(intake.take(&message)?, intake).await,
                    Event::Keepalive {
                        wal_end,
                        reply_requested,
                    } => {
                        intake.resume().sent(wal_end)?;
                        self.ledger().confirm_idle(wal_end);
                        if reply_requested {
                            self.report_due.notify_one();
                        }
                    }
                }
            }
        };
        let ended = tokio::select! {
            biased;
            () = stop.cancelled() => Ok(()),
            ended = reading => ended,
        };
        match ended {
            Err(error) if !matches!(error, Error::Definite(_)) => Err(error),
            ended => {
                self.window.close();
                Ok((reader, ended))
            }
        }
    }

    async fn take(&self, taken: Taken, intake: &Intake<'_>) {
        match taken {
            Taken::Begin(time) => self.ledger().begin(time),
            Taken::Event(record) => {
                self.ledger().row();
                self.window.push(record).await;
            }
            Taken::Offender(item) => {
                self.ledger().row();
                self.window.push_offender(item).await;
            }
            Taken::Stored => {
                counter!("cdc_relay_resumed_total").increment(1);
                if intake.resume().is_proven() {
                    self.ledger().prove();
                }
            }
            Taken::Commit(end) => {
                self.ledger().received(end);
                self.window.commit(end).await;
            }
            Taken::Other => {}
        }
    }

    async fn append(&self, appender: &mut Appender, desk: &mut Desk<'_>) -> Result<()> {
        let mut ahead = None;
        while let Some(next) = self.next(ahead.take(), appender, desk).await? {
            let (end, rows) = (next.end(), next.rows());
            if let Some(end) = end {
                self.ledger().published(end);
            }
            let span = span(appender, &next);
            ahead = self
                .append_one(next, appender, desk)
                .instrument(span)
                .await?;
            self.ledger().rows_done(rows);
            if let Some(end) = end {
                // I2: only now, with the acknowledgement in hand.
                self.ledger().acknowledged(end);
                self.report_due.notify_one();
            }
        }
        self.drained.cancel();
        Ok(())
    }

    /// Appends a batch, and gives the one that was sent ahead meanwhile.
    async fn append_one(
        &self,
        next: Next,
        appender: &mut Appender,
        desk: &mut Desk<'_>,
    ) -> Result<Option<Next>> {
        match next {
            Next::Taken(mut batch) => {
                desk.settle(&mut batch, appender.last_sequence()).await?;
                appender.append_batch(batch, self.following(desk)).await
            }
            Next::Sent(sent) => {
                desk.pass(sent.last_row());
                appender.append_sent(*sent, self.following(desk)).await
            }
        }
    }

    /// A batch that is full already, before it is asked for: unless its rows have to be looked at.
    async fn following(&self, desk: &Desk<'_>) -> Batch {
        if desk.is_idle() {
            self.window.take_full().await
        } else {
            pending().await
        }
    }

    async fn next(
        &self,
        ahead: Option<Next>,
        appender: &mut Appender,
        desk: &mut Desk<'_>,
    ) -> Result<Option<Next>> {
        match ahead {
            Some(ahead) => Ok(Some(ahead)),
            None => Ok(self.take_next(appender, desk).await?.map(Next::Taken)),
        }
    }

    /// The next batch; meanwhile what people ask of the quarantine is done.
    async fn take_next(
        &self,
        appender: &mut Appender,
        desk: &mut Desk<'_>,
    ) -> Result<Option<Batch>> {
        while desk.has_open() {
            desk.work(appender).await?;
            let pause = if desk.has_work() {
                Duration::ZERO
            } else {
                POLL
            };
            tokio::select! {
                biased;
                batch = self.window.take() => return Ok(batch),
                () = sleep(pause) => {}
            }
        }
        Ok(self.window.take().await)
    }

    async fn report(&self, writer: &mut WalWriter) -> Result<()> {
        let mut clock = interval(REPORT_INTERVAL);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut drained = pin!(self.drained.cancelled());
        loop {
            // By the clock it asks for an answer: a server that says nothing is gone.
            let (last, ask) = tokio::select! {
                () = &mut drained => (true, false),
                _ = clock.tick() => (false, true),
                () = self.report_due.notified() => (false, false),
            };
            let confirmed = {
                let ledger = self.ledger();
                show_lag(&ledger);
                ledger.confirmable()
            };
            gauge!("cdc_relay_window_entries").set(self.window.waiting() as f64);
            writer.report(confirmed, ask).await?;
            if last {
                return writer.finish().await;
            }
            sleep(REPORT_PAUSE).await;
        }
    }

    fn ledger(&self) -> MutexGuard<'_, Progress> {
        // One task holds it, never across a wait: a panic in it has ended that task.
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One append, for traces: how long JetStream took, and for which part of the WAL.
fn span(appender: &Appender, next: &Next) -> Span {
    tracing::info_span!(
        "append",
        stream = appender.stream(),
        follows_sequence = appender.last_sequence(),
        rows = next.rows(),
        commits_until = next.end().map(tracing::field::display),
    )
}

fn show_lag(ledger: &Progress) {
    let since = |time: i64| {
        let committed = POSTGRES_EPOCH + Duration::from_micros(time.max(0).unsigned_abs());
        // Clocks differ: what has just been committed may lie ahead.
        UNIX_EPOCH
            .elapsed()
            .unwrap_or_default()
            .saturating_sub(committed)
    };
    let seconds = ledger.oldest().map(since).unwrap_or_default().as_secs_f64();
    gauge!("cdc_relay_lag_bytes").set(ledger.lag_bytes() as f64);
    gauge!("cdc_relay_lag_events").set(ledger.lag_rows() as f64);
    gauge!("cdc_relay_lag_seconds").set(seconds);
}
