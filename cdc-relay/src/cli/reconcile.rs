//! `reconcile`: what the stream lacks of the table, and what it holds beyond it; `--publish` mends it.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use chassis::{nats, telemetry};
use clap::Args;
use serde_json::json;

use crate::{
    backfill::{Order, backfill, kept},
    config::Config,
    error::Error,
    heal::{
        Cause,
        report::{self, Report},
        verify::Verdict,
    },
    primary,
    slot::{self, Slot},
};

#[derive(Args, Clone, Debug)]
pub struct Reconcile {
    #[command(flatten)]
    pub config: Config,
    /// Publish what is missing; no relay may run meanwhile. Without it nothing is changed
    #[arg(long)]
    pub publish: bool,
    /// Only rows with greater ids than this are missing: what is older was removed on purpose
    #[arg(long, value_name = "ID")]
    pub after: Option<String>,
    /// As one JSON document
    #[arg(long)]
    pub json: bool,
}

/// Compares; fails when something is missing, or cannot be told.
///
/// # Errors
/// When one of the two cannot be looked at, or a relay holds the slot that is to be made anew.
pub async fn run(given: Reconcile) -> anyhow::Result<ExitCode> {
    let config = &given.config;
    if let Some(prefix) = &config.source.message_prefix {
        anyhow::bail!(
            "there is nothing to compare the stream with: events are messages with the prefix {prefix}, and no \
             table holds them"
        );
    }
    let _telemetry = telemetry::init(&config.telemetry, "cdc-relay")?;
    let nats = nats::connect(&config.nats, "cdc-relay").await?;
    let after = given.after.as_deref();
    if given.publish {
        let count = publish(config, &nats, after).await?;
        let text = if given.json {
            format!("{:#}\n", json!({ "published": count }))
        } else {
            format!(
                "{count} events were published; what the slot has not confirmed, the relay publishes from there\n"
            )
        };
        io::stdout().write_all(text.as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    let report = report::report(config, &nats, after).await?;
    let text = if given.json {
        as_json(&report)
    } else {
        as_text(&report, config)
    };
    io::stdout().write_all(text.as_bytes())?;
    Ok(match report.verdict {
        Verdict::Complete => ExitCode::SUCCESS,
        Verdict::Missing { .. } | Verdict::Unclear(_) => ExitCode::FAILURE,
    })
}

/// The relay's own mend, on a person's word: a running relay holds the slot, and this is refused.
async fn publish(
    config: &Config,
    nats: &async_nats::Client,
    after: Option<&str>,
) -> anyhow::Result<u64> {
    let (server, mut sql) = primary::connect(&config.source.database_url).await?;
    let slot = &config.source.slot;
    let order = Order {
        cause: &Cause::Requested,
        after,
        is_trusted: true,
        is_careful: false,
    };
    let prepared = slot::prepare(&sql, &config.source).await?;
    if let Slot::Ready { .. } = prepared {
        let streams = (&server, config.spool.is_on());
        match kept::heal(config, streams, &mut sql, nats, order).await {
            Ok(done) => return Ok(done.count),
            // The slot is of no use for this stream: another one is made.
            Err(Error::Heal(cause)) => tracing::warn!(%cause, "dropping the slot, to make it anew"),
            Err(error) => return Err(error.into()),
        }
    }
    if prepared != Slot::Missing {
        slot::discard(&sql, slot).await?;
    }
    let done = backfill(config, &server, &mut sql, nats, order).await?;
    Ok(done.count)
}

fn as_json(report: &Report) -> String {
    let (count, first, unclear) = match &report.verdict {
        Verdict::Complete => (Some(0), None, None),
        Verdict::Missing { count, first } => (Some(*count), Some(first), None),
        Verdict::Unclear(why) => (None, None, Some(why)),
    };
    let phantoms = report
        .phantoms
        .map(|found| json!({ "count": found.count, "from_sequence": found.from_sequence }));
    let document = json!({
        "slot": report.slot,
        "caught_up": report.is_caught_up,
        "messages": report.messages,
        "missing": count,
        "first_missing": first,
        "unclear": unclear,
        "only_in_stream": phantoms,
    });
    format!("{document:#}\n")
}

fn as_text(report: &Report, config: &Config) -> String {
    let (table, stream) = (config.source.table.quoted(), &config.stream.name);
    let mut text = format!("slot {}: {}\n", config.source.slot, report.slot);
    text.push_str(&match &report.verdict {
        Verdict::Complete => format!("stream {stream} holds every row of {table}\n"),
        Verdict::Missing { count, first } => {
            format!("stream {stream} lacks {count} rows of {table}, the first of them {first}\n")
        }
        Verdict::Unclear(why) => format!("{why}\n"),
    });
    if !report.is_caught_up {
        text.push_str("no relay has come past the table as it is now: some of that may only be waiting for it\n");
    }
    if let Some(found) = report.phantoms {
        text.push_str(&format!(
            "{} events from sequence {} on have no row in {table}, though older ones do: the database was \
             restored to an earlier point\n",
            found.count, found.from_sequence
        ));
    }
    text
}
