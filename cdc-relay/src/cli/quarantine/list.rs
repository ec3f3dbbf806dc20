//! `quarantine list`.

use clap::Args;
use serde_json::{Value, json};

use super::{say, time};
use crate::quarantine::{Listed, Role, State, Store};

#[derive(Args, Clone, Debug)]
pub struct List {
    /// Also what was released or discarded, with the decision
    #[arg(long)]
    all: bool,
    /// As one JSON document
    #[arg(long)]
    json: bool,
}

impl List {
    pub(super) async fn run(&self, store: &Store) -> anyhow::Result<()> {
        let list = store.list(|_, meta| self.all || meta.is_open()).await?;
        if self.json {
            let items: Vec<Value> = list.items.iter().map(to_json).collect();
            return say(&json!({ "items": items, "not_listed": list.more }).to_string());
        }
        if list.items.is_empty() {
            return say("nothing stands in quarantine");
        }
        say(&format!(
            "{:<18} {:<20} {:<9} {:<38} {:<24} REASON",
            "ITEM", "SINCE", "STATE", "EVENT", "AGGREGATE"
        ))?;
        for item in &list.items {
            say(&line(item))?;
        }
        if list.more > 0 {
            say(&format!("… and {} more", list.more))?;
        }
        Ok(())
    }

    /// There is no quarantine yet.
    pub(super) fn none(&self) -> anyhow::Result<()> {
        if self.json {
            return say(&json!({ "items": [], "not_listed": 0 }).to_string());
        }
        say("nothing stands in quarantine")
    }
}

fn line(item: &Listed) -> String {
    let (meta, names) = (&item.meta, &item.meta.names);
    let or_none = |name: &Option<String>| name.clone().unwrap_or_else(|| "(none)".to_owned());
    let aggregate = format!(
        "{} {}",
        or_none(&names.aggregate_type),
        or_none(&names.aggregate_id)
    );
    let line = format!(
        "{:<18} {:<20} {:<9} {:<38} {:<24} {}",
        item.place.key.short(),
        time(meta.stored_at_ms),
        state(item),
        or_none(&names.id),
        aggregate,
        reason(item),
    );
    // Whatever a row holds must not write to a terminal by itself.
    line.replace(char::is_control, " ")
}

/// One word for where the item stands.
pub(super) fn state(item: &Listed) -> &'static str {
    match (item.meta.state, item.meta.role) {
        (State::Released, _) => "released",
        (State::Discarded, _) => "discarded",
        (State::Open, _) if item.blocks() => "blocks",
        (State::Open, Role::Offender | Role::Held) => "held",
    }
}

/// Why it waits, or who decided.
fn reason(item: &Listed) -> String {
    if let Some(decision) = &item.meta.decision {
        return format!("by {}: {}", decision.by, decision.why);
    }
    let refused = item
        .request
        .as_ref()
        .and_then(|request| request.refused.as_ref());
    refused.unwrap_or(&item.meta.reason).clone()
}

pub(super) fn to_json(item: &Listed) -> Value {
    let (meta, names) = (&item.meta, &item.meta.names);
    json!({
        "item": item.place.key.short(),
        "key": item.place.key.as_str(),
        "state": state(item),
        "reason": meta.reason,
        "position": meta.position.to_string(),
        "event_id": names.id,
        "event_type": names.event_type,
        "aggregate_type": names.aggregate_type,
        "aggregate_id": names.aggregate_id,
        "table": meta.table,
        "since": time(meta.stored_at_ms),
        "bytes": meta.bytes,
        "stream_sequence": meta.released,
        "in_doubt": meta.in_doubt,
        "decided": meta.decision.as_ref().map(|decision| json!({
            "by": decision.by, "why": decision.why, "at": time(decision.at_ms),
        })),
        "asked": item.request.as_ref().map(|request| json!({
            "action": request.action,
            "by": request.decision.by,
            "why": request.decision.why,
            "at": time(request.decision.at_ms),
            "refused": request.refused,
        })),
    })
}
