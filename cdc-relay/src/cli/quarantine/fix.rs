//! `quarantine fix`.

use std::{collections::BTreeMap, fs, path::PathBuf};

use anyhow::{Context as _, bail, ensure};
use clap::Args;

use super::{decision, one, say};
use crate::quarantine::{self, Store};

/// The whole of an earlier fix is replaced. The item itself stays as it was
#[derive(Args, Clone, Debug)]
pub struct Fix {
    /// The item, as `list` names it, or its event's id
    #[arg(value_name = "ID")]
    id: String,
    /// The payload is to be what this file holds
    #[arg(long, value_name = "FILE")]
    payload: Option<PathBuf>,
    /// It is to go to this subject
    #[arg(long)]
    subject: Option<String>,
    /// It is to be an event of this type
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,
    /// A column is to hold this text
    #[arg(long, value_name = "COLUMN=VALUE")]
    set: Vec<String>,
    /// A column is to be NULL
    #[arg(long, value_name = "COLUMN")]
    null: Vec<String>,
    /// A header is to have this value
    #[arg(long, value_name = "NAME=VALUE")]
    header: Vec<String>,
    /// A header is to be left out
    #[arg(long, value_name = "NAME")]
    no_header: Vec<String>,
    /// Why, for whoever reads it later
    #[arg(long, default_value = "")]
    why: String,
}

impl Fix {
    pub(super) async fn run(&self, store: &Store) -> anyhow::Result<()> {
        let item = one(store, &self.id).await?;
        ensure!(
            item.blocks(),
            "{} is only held: it goes by itself after what blocks its aggregate",
            self.id
        );
        let mut columns = pairs(&self.set)?;
        for column in &self.null {
            columns.insert(column.clone(), None);
        }
        let mut headers = pairs(&self.header)?;
        for name in &self.no_header {
            headers.insert(name.clone(), None);
        }
        let payload = match &self.payload {
            Some(path) => Some(fs::read(path).with_context(|| path.display().to_string())?),
            None => None,
        };
        let is_empty = self.subject.is_none()
            && self.event_type.is_none()
            && columns.is_empty()
            && headers.is_empty();
        if is_empty && payload.is_none() {
            bail!("nothing is to be replaced: see `cdc-relay quarantine fix --help`");
        }
        let fix = quarantine::Fix {
            subject: self.subject.clone(),
            event_type: self.event_type.clone(),
            headers,
            columns,
            has_payload: payload.is_some(),
            payload: payload.unwrap_or_default().into(),
            decision: decision(&self.why),
            ..quarantine::Fix::default()
        };
        store.mend(&item.place, fix).await?;
        let name = item.place.key.short();
        say(&format!(
            "{name} is fixed: `cdc-relay quarantine release {name}` publishes it so"
        ))
    }
}

fn pairs(given: &[String]) -> anyhow::Result<BTreeMap<String, Option<String>>> {
    let pair = |text: &String| {
        let (name, value) = text
            .split_once('=')
            .with_context(|| format!("`{text}` is not NAME=VALUE"))?;
        Ok((name.to_owned(), Some(value.to_owned())))
    };
    given.iter().map(pair).collect()
}
