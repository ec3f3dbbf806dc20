//! What flags, environment and file set. The arguments here are the only description of it: `--help`,
//! the checks of values and the keys of the file are all made of them.
//!
//! ```text
//! flag ─ else ─ environment ─ else ─ file ─ else ─ default
//! ```

mod columns;
mod file;
mod healing;
mod keys;
mod message;
mod monitoring;
mod pairs;
mod retention;
mod source;
mod spool;
mod stream;
mod value;

use std::path::PathBuf;

use chassis::config::{Admin, Nats, Shutdown, Telemetry};
use clap::{Args, Command, FromArgMatches as _, error::ErrorKind};

pub use self::{
    columns::Columns,
    file::apply as apply_file,
    healing::{Healing, Policy},
    message::Message,
    monitoring::Monitoring,
    pairs::{ColumnHeaders, FixedHeaders},
    retention::Retention,
    source::{Source, Table},
    spool::{Spool, Streaming},
    stream::{Create, StreamConfig, Transactions},
};

/// Everything that is set. A group is a section of the file (`keys.rs` names them).
#[derive(Args, Clone, Debug)]
pub struct Config {
    /// A TOML file with what neither flags nor the environment set, by sections
    #[arg(
        id = "CDC_CONFIG",
        long = "config",
        env = "CDC_CONFIG",
        value_name = "FILE"
    )]
    pub file: Option<PathBuf>,
    #[command(flatten, next_help_heading = "[source]")]
    pub source: Source,
    #[command(flatten, next_help_heading = "[columns]")]
    pub columns: Columns,
    #[command(flatten, next_help_heading = "[message]")]
    pub message: Message,
    #[command(flatten, next_help_heading = "[stream]")]
    pub stream: StreamConfig,
    #[command(flatten, next_help_heading = "[spool]")]
    pub spool: Spool,
    #[command(flatten, next_help_heading = "[healing]")]
    pub healing: Healing,
    #[command(flatten, next_help_heading = "[retention]")]
    pub retention: Retention,
    #[command(flatten, next_help_heading = "[nats]")]
    pub nats: Nats,
    #[command(flatten, next_help_heading = "[nats]")]
    pub monitoring: Monitoring,
    #[command(flatten, next_help_heading = "[admin]")]
    pub admin: Admin,
    #[command(flatten, next_help_heading = "[telemetry]")]
    pub telemetry: Telemetry,
    #[command(flatten, next_help_heading = "[shutdown]")]
    pub shutdown: Shutdown,
}

impl Config {
    /// Reads these flags, and the environment.
    ///
    /// # Errors
    /// What is wrong with them, or missing.
    pub fn of<'a>(flags: impl IntoIterator<Item = &'a str>) -> Result<Self, clap::Error> {
        let command = Self::augment_args(Command::new("cdc-relay").no_binary_name(true));
        Self::from_arg_matches(&command.try_get_matches_from(flags)?)?.completed()
    }

    /// Works out what follows from other settings.
    ///
    /// # Errors
    /// What only a person can say.
    pub fn completed(mut self) -> Result<Self, clap::Error> {
        let source = &mut self.source;
        let url = source.database_url.clone();
        let url = url.with_password_file(&source.database_password_file);
        source.database_url = url.map_err(|wrong| {
            clap::Error::raw(
                ErrorKind::ArgumentConflict,
                format!("DATABASE_URL: {wrong}\n"),
            )
        })?;
        if let Some(prefix) = &self.source.message_prefix {
            if self.retention.seconds.is_some() {
                let wrong = "CDC_RETENTION_SECONDS: with CDC_MESSAGE_PREFIX there is no table to remove rows \
                             from; leave one of them out\n";
                return Err(clap::Error::raw(ErrorKind::ArgumentConflict, wrong));
            }
            // Nothing keeps the events that a comparison would need.
            self.healing.verify = false;
            self.healing.has_table = false;
            self.source.table = Table {
                schema: "messages".to_owned(),
                name: prefix.clone(),
            };
        }
        if !self.stream.subjects.is_empty() {
            return Ok(self);
        }
        let pattern = self.message.subject.pattern();
        if pattern == ">" && self.stream.create == Create::Missing {
            let wrong = "CDC_STREAM_SUBJECTS: is needed where CDC_SUBJECT begins with a column, because the \
                         stream cannot take every subject; for example CDC_STREAM_SUBJECTS=events.>\n";
            return Err(clap::Error::raw(ErrorKind::ValueValidation, wrong));
        }
        self.stream.subjects = vec![pattern];
        Ok(self)
    }
}
