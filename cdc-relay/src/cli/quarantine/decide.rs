//! `quarantine release` and `quarantine discard`: written down here, done by the relay.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use clap::Args;
use serde_json::json;
use tokio::time::sleep;

use super::{Selected, decision, list::state, one, say};
use crate::quarantine::{Action, Bucket, Listed, Request, State, Store};

/// How often a command looks whether the relay has done it.
const LOOK: Duration = Duration::from_millis(100);

#[derive(Args, Clone, Debug)]
pub struct Release {
    #[command(flatten)]
    selected: Selected,
    #[command(flatten)]
    how: How,
    /// Why, for whoever reads it later
    #[arg(long, default_value = "")]
    why: String,
}

#[derive(Args, Clone, Debug)]
pub struct Discard {
    #[command(flatten)]
    selected: Selected,
    /// What is held behind it is discarded as well, up to the next one that cannot be published
    #[arg(long)]
    with_held: bool,
    #[command(flatten)]
    how: How,
    /// Why: a discarded event is never published
    #[arg(long)]
    why: String,
}

#[derive(Args, Clone, Debug)]
pub(super) struct How {
    /// How many seconds to wait for the relay to do it
    #[arg(long, value_name = "SECONDS", default_value = "10")]
    wait: u64,
    /// As one JSON document
    #[arg(long)]
    json: bool,
}

impl Release {
    pub(super) async fn run(&self, store: &Store) -> anyhow::Result<()> {
        decide(store, &self.selected, &self.how, Action::Release, &self.why).await
    }
}

impl Discard {
    pub(super) async fn run(&self, store: &Store) -> anyhow::Result<()> {
        let with_held = self.with_held;
        let action = Action::Discard { with_held };
        decide(store, &self.selected, &self.how, action, &self.why).await
    }
}

async fn decide(
    store: &Store,
    selected: &Selected,
    how: &How,
    action: Action,
    why: &str,
) -> anyhow::Result<()> {
    let items = select(store, selected).await?;
    for item in &items {
        let request = Request {
            action,
            decision: decision(why),
            refused: None,
        };
        store.ask(&item.place, &request).await?;
    }
    let until = Instant::now() + Duration::from_secs(how.wait);
    let (mut outcomes, mut done) = (Vec::new(), true);
    for item in &items {
        let outcome = outcome(store, item, until).await?;
        done &= matches!(outcome.0, "released" | "discarded");
        let name = item.place.key.short();
        if how.json {
            outcomes.push(json!({ "item": name, "outcome": outcome.0, "why": outcome.1 }));
        } else {
            let why = outcome.1.map(|why| format!(": {why}")).unwrap_or_default();
            say(&format!("{name} {}{why}", outcome.0))?;
        }
    }
    if how.json {
        say(&json!({ "items": outcomes }).to_string())?;
    }
    if !done {
        bail!("not everything is done");
    }
    Ok(())
}

/// The items that a decision is about; each of them blocks.
async fn select(store: &Store, selected: &Selected) -> anyhow::Result<Vec<Listed>> {
    let mut items = Vec::new();
    for id in &selected.ids {
        let item = one(store, id).await?;
        ensure!(
            item.blocks(),
            "{id} is only held: decide about what blocks its aggregate, and it goes by itself",
        );
        items.push(item);
    }
    if !selected.ids.is_empty() {
        return Ok(items);
    }
    let bucket = match selected.aggregate.as_deref() {
        Some([kind, id]) => Some(Bucket::of(kind, id)),
        _ => None,
    };
    let list = store
        .list(|place, meta| meta.is_open() && bucket.is_none_or(|bucket| place.bucket == bucket))
        .await?;
    items.extend(list.items.into_iter().filter(Listed::blocks));
    ensure!(!items.is_empty(), "nothing of that blocks an aggregate");
    Ok(items)
}

/// What became of the request, as far as it is known by then.
async fn outcome(
    store: &Store,
    item: &Listed,
    until: Instant,
) -> anyhow::Result<(&'static str, Option<String>)> {
    loop {
        match store.item(&item.place).await? {
            Some((meta, _)) if meta.state != State::Open => {
                let closed = Listed {
                    meta,
                    ..item.clone()
                };
                return Ok((state(&closed), None));
            }
            None => return Ok(("is gone", None)),
            Some(_) => {}
        }
        let request = store.request(&item.place).await?;
        if let Some(why) = request.and_then(|request| request.refused) {
            return Ok(("refused", Some(why)));
        }
        if Instant::now() >= until {
            let why = "asked for; the relay does it once it runs and its turn has come: what stands before \
                       it in its aggregate may have to be decided first";
            return Ok(("waits", Some(why.to_owned())));
        }
        sleep(LOOK).await;
    }
}
