//! `status`: how things stand, for people or as JSON.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::Args;
use serde_json::{Value as Json, json};

use crate::{
    config::Config,
    error::Error,
    status::{self, Slot, Status, Stream, Waiting},
};

/// Show slot, lag and stream
#[derive(Args, Clone, Debug)]
pub struct StatusOf {
    #[command(flatten)]
    pub config: Config,
    /// As one JSON document
    #[arg(long)]
    pub json: bool,
}

/// Looks, and shows what it found; fails if Postgres or NATS could not be asked.
///
/// # Errors
/// When standard output is closed.
pub async fn run(StatusOf { config, json }: StatusOf) -> anyhow::Result<ExitCode> {
    let found = status::look(&config).await;
    let text = if json {
        format!("{:#}\n", as_json(&config, &found))
    } else {
        as_lines(&config, &found)
    };
    io::stdout().write_all(text.as_bytes())?;
    let is_whole = found.slot.is_ok() && found.stream.is_ok();
    Ok(if is_whole {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn as_json(config: &Config, found: &Status) -> Json {
    let trouble = |error: &Error| json!({ "trouble": error.to_string() });
    let slot = match &found.slot {
        Ok(Some(slot)) => slot_json(slot),
        Ok(None) => Json::Null,
        Err(error) => trouble(error),
    };
    let waiting = match &found.waiting {
        Ok(waiting) => json!({
            "events": waiting.events,
            "events_is_at_least": waiting.is_at_least,
            "seconds": waiting.seconds,
        }),
        Err(error) => trouble(error),
    };
    let stream = match &found.stream {
        Ok(Some(stream)) => json!({
            "messages": stream.messages,
            "last_sequence": stream.last_sequence,
            "last_position": stream.last.as_ref().map(|last| last.position.to_string()),
            "last_id": stream.last.as_ref().map(|last| last.id.as_str()),
            "append_path": stream.paths.name(),
            "trouble": stream.trouble,
        }),
        Ok(None) => Json::Null,
        Err(error) => trouble(error),
    };
    json!({
        "slot_name": config.source.slot, "slot": slot,
        "waiting": waiting,
        "stream_name": config.stream.name, "stream": stream,
    })
}

fn slot_json(slot: &Slot) -> Json {
    let lsn = |lsn: Option<tokio_postgres::types::PgLsn>| lsn.map(|lsn| lsn.to_string());
    json!({
        "state": slot.state,
        "confirmed_lsn": lsn(slot.confirmed),
        "restart_lsn": lsn(slot.restart),
        "lag_bytes": slot.lag_bytes,
        "retained_bytes": slot.retained_bytes,
        "safe_bytes": slot.safe_bytes,
        "holder": slot.holder.as_ref().map(|holder| json!({
            "pid": holder.pid,
            "application": holder.application,
            "address": holder.address,
            "since": holder.since,
        })),
    })
}

fn as_lines(config: &Config, found: &Status) -> String {
    let slot = match &found.slot {
        Ok(Some(slot)) => slot_lines(slot),
        Ok(None) => {
            "does not exist: the relay makes it, and first publishes the table's rows".to_owned()
        }
        Err(error) => error.to_string(),
    };
    let waiting = match &found.waiting {
        Ok(waiting) => waiting_line(waiting),
        Err(error) => format!("not known: {error}"),
    };
    let stream = match &found.stream {
        Ok(Some(stream)) => stream_lines(stream),
        Ok(None) => "does not exist: the relay makes it, unless CDC_STREAM_CREATE=never".to_owned(),
        Err(error) => error.to_string(),
    };
    format!(
        "slot     {} {slot}\nwaiting  {waiting}\nstream   {} {stream}\n",
        config.source.slot, config.stream.name
    )
}

fn slot_lines(slot: &Slot) -> String {
    let bytes = |bytes: Option<i64>| bytes.map_or_else(|| "?".to_owned(), |b| format!("{b} bytes"));
    let holder = match &slot.holder {
        Some(holder) => format!(
            "held by process {} ({} at {}, since {})",
            holder.pid,
            holder.application.as_deref().unwrap_or("?"),
            holder.address.as_deref().unwrap_or("this host"),
            holder.since.as_deref().unwrap_or("?"),
        ),
        None => "held by nobody: no relay runs".to_owned(),
    };
    let lsn = slot
        .confirmed
        .map_or_else(|| "?".to_owned(), |lsn| lsn.to_string());
    let safe = match slot.safe_bytes {
        Some(safe) => format!(", and is lost after {safe} bytes more"),
        None => String::new(),
    };
    format!(
        "is {}, {holder}\n         confirmed {lsn}, {} behind; retains {} of WAL{safe}",
        slot.state,
        bytes(slot.lag_bytes),
        bytes(slot.retained_bytes),
    )
}

fn waiting_line(waiting: &Waiting) -> String {
    let least = if waiting.is_at_least { "at least " } else { "" };
    match waiting.events {
        0 => "nothing".to_owned(),
        events => format!(
            "{least}{events} events, the oldest for {:.1} s",
            waiting.seconds
        ),
    }
}

fn stream_lines(stream: &Stream) -> String {
    let last = match (&stream.last, &stream.trouble) {
        (Some(last), _) => format!("event {} at {}", last.id, last.position),
        (None, Some(trouble)) => trouble.clone(),
        (None, None) => "no event".to_owned(),
    };
    format!(
        "holds {} events, the last at sequence {}: {last}\n         appended to by {}",
        stream.messages,
        stream.last_sequence,
        stream.paths.name()
    )
}
