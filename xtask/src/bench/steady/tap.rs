//! Listens to the acknowledgements that the server sends to the relay.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use harness::Nats;
use serde_json::Value;

use crate::bench::server::STREAM;
use crate::bench::wire::Wire;

/// Every client's answers go there.
const ANSWERS: &str = "_INBOX.>";

/// How often it looks whether it is to end.
const PATIENCE: Duration = Duration::from_millis(200);

/// Through which sequence the stream was acknowledged, and when that was heard, in ascending order.
pub(super) type Acknowledged = Vec<(u64, Instant)>;

#[derive(Debug)]
pub(super) struct Tap {
    ended: Arc<AtomicBool>,
    thread: JoinHandle<Result<Acknowledged>>,
}

impl Tap {
    pub(super) fn start(nats: &Nats) -> Result<Self> {
        let mut wire = Wire::connect(&nats.url(), ANSWERS)?;
        wire.set_patience(PATIENCE)?;
        let ended = Arc::new(AtomicBool::new(false));
        let is_ended = Arc::clone(&ended);
        let thread = thread::spawn(move || listen(&mut wire, &is_ended));
        Ok(Self { ended, thread })
    }

    /// Ends it; the acknowledgements must reach to the sequence.
    pub(super) fn end(self, sequence: u64) -> Result<Acknowledged> {
        self.ended.store(true, Ordering::Relaxed);
        let heard = self
            .thread
            .join()
            .map_err(|_| anyhow!("the tap panicked"))??;
        let last = heard.last().context("the tap heard nothing")?.0;
        anyhow::ensure!(
            last >= sequence,
            "the tap heard {last} acknowledged of {sequence}"
        );
        Ok(heard)
    }
}

fn listen(wire: &mut Wire, ended: &AtomicBool) -> Result<Acknowledged> {
    let mut heard = Acknowledged::new();
    loop {
        let is_last = ended.load(Ordering::Relaxed);
        let mut answers = Vec::new();
        wire.payloads(|payload| {
            answers.push(payload.to_vec());
            Ok(())
        })?;
        let now = Instant::now();
        let sequences = answers.iter().filter_map(|answer| sequence(answer));
        heard.extend(sequences.map(|sequence| (sequence, now)));
        if is_last && answers.is_empty() {
            return Ok(heard);
        }
    }
}

/// The sequence, if it is the acknowledgement of a message or batch of the relay's stream.
fn sequence(answer: &[u8]) -> Option<u64> {
    let answer: Value = serde_json::from_slice(answer).ok()?;
    let is_ours = answer["stream"] == STREAM && answer.get("error").is_none();
    is_ours.then(|| answer["seq"].as_u64()).flatten()
}
