//! What people ask of the quarantine, without a command line.

use anyhow::{Context as _, Result};
use async_nats::Client;
use cdc_relay::quarantine::{self, Action, Decision, Fix, Listed, Request, Settings, Store};

use super::STREAM;

pub fn settings() -> Settings {
    Settings {
        stream: STREAM.to_owned(),
        quarantine: format!("{STREAM}_QUARANTINE"),
        replicas: 1,
        create: false,
    }
}

pub async fn store(client: &Client) -> Result<Store> {
    let found = quarantine::find(client, &settings()).await?;
    found.context("there is no quarantine")
}

/// Items that nobody has decided about.
pub async fn open(client: &Client) -> Result<Vec<Listed>> {
    let list = store(client).await?.list(|_, meta| meta.is_open()).await?;
    Ok(list.items)
}

pub async fn ask(client: &Client, item: &Listed, action: Action) -> Result<()> {
    let request = Request {
        action,
        decision: Decision::default(),
        refused: None,
    };
    store(client).await?.ask(&item.place, &request).await?;
    Ok(())
}

/// Mends and releases whatever blocks; returns how many items are open.
pub async fn release_all(client: &Client) -> Result<usize> {
    let store = store(client).await?;
    let open = open(client).await?;
    let undecided = |item: &&Listed| item.blocks() && item.request.is_none();
    for item in open.iter().filter(undecided) {
        let fix = Fix {
            event_type: Some("Mended".to_owned()),
            ..Fix::default()
        };
        store.mend(&item.place, fix).await?;
        ask(client, item, Action::Release).await?;
    }
    Ok(open.len())
}
