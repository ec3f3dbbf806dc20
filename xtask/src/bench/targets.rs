//! The targets, and whether this run meets them.

use serde_json::{Value, json};

use super::drain::{Contender, Drain};
use super::relay::{Case, Found, Outcome};
use super::server::Sync;
use super::steady::Steady;

/// One target.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) what: String,
    pub(super) value: f64,
    pub(super) bound: f64,
    /// Whether less is better.
    pub(super) at_most: bool,
}

impl Verdict {
    pub(super) fn is_met(&self) -> bool {
        if self.at_most {
            self.value <= self.bound
        } else {
            self.value >= self.bound
        }
    }

    pub(super) fn print(&self) {
        println!(
            "{:<8} {:>7.2} (wanted {} {})  {}",
            if self.is_met() { "met" } else { "MISSED" },
            self.value,
            if self.at_most { "≤" } else { "≥" },
            self.bound,
            self.what,
        );
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "what": self.what,
            "value": self.value,
            "bound": self.bound,
            "bound_is": if self.at_most { "maximum" } else { "minimum" },
            "met": self.is_met(),
        })
    }
}

const PEAK_MIB: f64 = 32.0;

/// Judges what was measured; a target whose contender did not run is left out.
pub(super) fn judge(found: &Found) -> Vec<Verdict> {
    let outcomes = found.outcomes.as_slice();
    let mut verdicts = Vec::new();
    let one = Case {
        rows_per_transaction: 1,
        sync: Sync::Default,
    };
    for (peer, bound) in [
        (Contender::PgRecvlogical, 1.2),
        (Contender::Debezium, 2.5),
        (Contender::Polling, 5.0),
    ] {
        let what = format!("1 row a transaction: relay ÷ {}", peer.name());
        add(&mut verdicts, what, ratio(outcomes, one, peer), bound);
    }

    let hundred = Case {
        rows_per_transaction: 100,
        sync: Sync::Default,
    };
    let postgres = rate(outcomes, hundred, Contender::PgRecvlogical);
    let nats = [Contender::Pipelined, Contender::Batches]
        .into_iter()
        .filter_map(|way| rate(outcomes, hundred, way))
        .reduce(f64::max);
    if let (Some(postgres), Some(nats)) = (postgres, nats) {
        let relay = rate(outcomes, hundred, Contender::Relay);
        let what = "100 rows a transaction: relay ÷ the lower ceiling".to_owned();
        add(
            &mut verdicts,
            what,
            relay.map(|relay| relay / postgres.min(nats)),
            0.9,
        );
    }
    for rows_per_transaction in [1, 100] {
        synced(&mut verdicts, outcomes, rows_per_transaction);
    }
    resources(&mut verdicts, outcomes);
    for steady in &found.steady {
        latencies(&mut verdicts, steady);
    }
    verdicts
}

fn synced(verdicts: &mut Vec<Verdict>, outcomes: &[Outcome], rows_per_transaction: u64) {
    let [default, always] = [Sync::Default, Sync::Always].map(|sync| Case {
        rows_per_transaction,
        sync,
    });
    let head = format!("{rows_per_transaction} a transaction, sync always: relay ÷");
    let pipelined = ratio(outcomes, always, Contender::Pipelined);
    add(
        verdicts,
        format!("{head} pipelined publishing"),
        pipelined,
        5.0,
    );
    let own = rate(outcomes, default, Contender::Relay);
    let kept = rate(outcomes, always, Contender::Relay).zip(own);
    add(
        verdicts,
        format!("{head} itself with the default"),
        kept.map(|(a, b)| a / b),
        0.6,
    );
}

fn resources(verdicts: &mut Vec<Verdict>, outcomes: &[Outcome]) {
    for outcome in outcomes
        .iter()
        .filter(|outcome| outcome.contender == Contender::Relay)
    {
        let case = outcome.case;
        let name = format!(
            "{} a transaction, sync {}",
            case.rows_per_transaction,
            case.sync.name()
        );
        let Some(drain) = outcome.median() else {
            continue;
        };
        if let Some((own, nats)) = drain.usage.contender.zip(drain.usage.nats) {
            verdicts.push(Verdict {
                what: format!("{name}: the relay's CPU ÷ nats-server's"),
                value: own / nats,
                bound: 0.5,
                at_most: true,
            });
        }
        let peak = outcome
            .drains
            .iter()
            .filter_map(|drain| drain.usage.peak_kib)
            .max();
        if let Some(kib) = peak {
            verdicts.push(Verdict {
                what: format!("{name}: the relay's peak memory, MiB"),
                value: kib as f64 / 1024.0,
                bound: PEAK_MIB,
                at_most: true,
            });
        }
    }
}

fn latencies(verdicts: &mut Vec<Verdict>, steady: &Steady) {
    for (name, quantile, bound) in [("p50", 0.5, 3.0), ("p99", 0.99, 10.0)] {
        let latency = steady.acknowledged.value_at_quantile(quantile);
        verdicts.push(Verdict {
            what: format!(
                "{} transactions/s: {name} ÷ a commit and an acknowledgement alone",
                steady.rate
            ),
            value: latency as f64 / steady.reference as f64,
            bound,
            at_most: true,
        });
    }
}

fn add(verdicts: &mut Vec<Verdict>, what: String, value: Option<f64>, bound: f64) {
    verdicts.extend(value.map(|value| Verdict {
        what,
        value,
        bound,
        at_most: false,
    }));
}

fn ratio(outcomes: &[Outcome], case: Case, peer: Contender) -> Option<f64> {
    Some(rate(outcomes, case, Contender::Relay)? / rate(outcomes, case, peer)?)
}

fn rate(outcomes: &[Outcome], case: Case, contender: Contender) -> Option<f64> {
    let mut found = outcomes.iter();
    let found = found.find(|outcome| outcome.case == case && outcome.contender == contender)?;
    found.median().map(Drain::rate)
}
