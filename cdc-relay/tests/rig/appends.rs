//! Appends by hand: what a relay's session does, without a relay.

use anyhow::Result;
use async_nats::Client;
use bytes::Bytes;
use cdc_relay::{
    config::{Config, StreamConfig},
    publish::Appender,
    record::{Layout, Record, Row},
    stream::{Missing, read_truth},
};
use mailbox::envelope::Position;

fn whole_config() -> Config {
    let flags = [
        "--database-url=postgres://nobody@127.0.0.1/none",
        "--cdc-stream=EVENTS",
        "--cdc-stream-subjects=events.>",
        "--cdc-stream-duplicate-window-seconds=1",
    ];
    Config::of(flags).expect("these flags are right")
}

pub fn config() -> StreamConfig {
    whole_config().stream
}

/// Events of one writer: their ids and their place in the WAL are its own.
pub fn events(writer: &str, lsn: u64, count: u32) -> Result<Vec<Record>> {
    let config = whole_config();
    let layout = Layout::of(&config.columns, &config.message);
    let event = |index| {
        let id = format!("{writer}-{lsn}-{index}");
        let texts = [id.as_str(), "thing", "1", "Made"].map(|text| Some(text.into()));
        let row = Row {
            texts: &texts,
            payload: Bytes::from_static(b"x"),
            is_json: false,
            extra: Vec::new(),
        };
        let position = Position {
            system: 7,
            timeline: 1,
            lsn,
            index,
        };
        Ok(Record::new(row, position, &layout)?)
    };
    (0..count).map(event).collect()
}

pub async fn appender(client: &Client) -> Result<Appender> {
    let truth = read_truth(client, &config(), Missing::Create).await?;
    Ok(Appender::after(client.clone(), &truth))
}

pub async fn last_sequence(client: &Client) -> Result<u64> {
    Ok(read_truth(client, &config(), Missing::Create)
        .await?
        .last_sequence)
}
