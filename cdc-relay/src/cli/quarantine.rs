//! `quarantine`: what stands there, and what is to become of it.
//!
//! Nothing here publishes. A decision is written beside its item, and the relay that holds the slot does
//! what it says; so these commands need NATS alone, and work from anywhere.

mod decide;
mod fix;
mod list;
mod show;

use std::{env, io::Write as _, time::Duration};

use anyhow::{Context as _, bail};
use chassis::nats;
use clap::{Args, Subcommand};

use crate::{
    config::Config,
    quarantine::{self, Decision, Listed, Place, Store},
};

/// Look at events that cannot be published, and decide about them
#[derive(Args, Clone, Debug)]
#[command(args_conflicts_with_subcommands = false)]
pub struct Quarantine {
    #[command(flatten)]
    pub config: Config,
    #[command(subcommand)]
    pub action: Action,
}

#[derive(Clone, Debug, Subcommand)]
pub enum Action {
    /// List what waits, oldest first
    List(list::List),
    /// Show an item with its row
    Show(show::Show),
    /// Replace what an item is published with
    Fix(fix::Fix),
    /// Publish items, and what is held behind them
    Release(decide::Release),
    /// Never publish items; what is held behind them goes on
    Discard(decide::Discard),
}

/// Which items a decision is about.
#[derive(Args, Clone, Debug)]
#[group(required = true, multiple = false)]
pub struct Selected {
    /// Items, as `list` names them, or their events' ids
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// What blocks this aggregate
    #[arg(long, num_args = 2, value_names = ["TYPE", "ID"])]
    aggregate: Option<Vec<String>>,
    /// Everything that blocks an aggregate
    #[arg(long)]
    all: bool,
}

/// How long a command tries to reach NATS.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// Does what the command line says.
///
/// # Errors
/// What keeps it from being done; a decision that the relay refuses is one.
pub async fn run(Quarantine { config, action }: Quarantine) -> anyhow::Result<()> {
    let settings = config.stream.quarantine();
    let settings = settings.context("CDC_QUARANTINE_STREAM is `none`: there is no quarantine")?;
    let connecting = nats::connect(&config.nats, "cdc-relay-quarantine");
    let client = tokio::time::timeout(CONNECT_TIMEOUT, connecting)
        .await
        .with_context(|| format!("NATS does not answer within {CONNECT_TIMEOUT:?}"))??;
    let Some(store) = quarantine::find(&client, &settings).await? else {
        return match action {
            // The relay makes the stream when it starts.
            Action::List(list) => list.none(),
            _ => bail!(
                "there is no stream {} yet: nothing stands in quarantine",
                settings.quarantine
            ),
        };
    };
    match action {
        Action::List(list) => list.run(&store).await,
        Action::Show(show) => show.run(&store, &config.columns.payload).await,
        Action::Fix(fix) => fix.run(&store).await,
        Action::Release(release) => release.run(&store).await,
        Action::Discard(discard) => discard.run(&store).await,
    }
}

/// The one open item that `id` names.
async fn one(store: &Store, id: &str) -> anyhow::Result<Listed> {
    let mut found = named(store, id, false).await?;
    if found.len() > 1 {
        let names: Vec<_> = found.iter().map(|item| item.place.key.as_str()).collect();
        bail!("{id} names several items: {}", names.join(", "));
    }
    found.pop().with_context(|| {
        format!("no item in quarantine has the name or the event id `{id}`: see `cdc-relay quarantine list`")
    })
}

/// The items that `id` names; closed ones only if there is no other.
async fn named(store: &Store, id: &str, closed: bool) -> anyhow::Result<Vec<Listed>> {
    let wanted = |place: &Place, meta: &quarantine::Meta| {
        let key = &place.key;
        let name = id == key.as_str() || id.eq_ignore_ascii_case(key.short());
        (closed || meta.is_open()) && (name || meta.names.id.as_deref() == Some(id))
    };
    Ok(store.list(wanted).await?.items)
}

fn decision(why: &str) -> Decision {
    let by = env::var("USER").unwrap_or_else(|_| "unknown".to_owned());
    Decision::now(&by, why)
}

fn say(line: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{line}").context("cannot write to standard output")
}

/// A point in time as people and programs read it, in UTC.
fn time(ms: u64) -> String {
    let (days, second) = (ms / 86_400_000, ms / 1000 % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// The Gregorian date so many days after 1970-01-01, counted in years that begin in March.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::time;

    #[test]
    fn times_are_the_calendars() {
        assert_eq!(time(0), "1970-01-01T00:00:00Z");
        assert_eq!(time(951_782_400_000), "2000-02-29T00:00:00Z");
        assert_eq!(time(1_795_577_696_789), "2026-11-25T03:34:56Z");
        assert_eq!(time(4_107_542_399_000), "2100-02-28T23:59:59Z");
    }
}
