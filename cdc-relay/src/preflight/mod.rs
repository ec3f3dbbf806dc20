//! The preflight: looks at everything that the relay needs, changes nothing, and names all that is wrong
//! with its mend, not the first thing only.

mod monitoring;
mod nats;
mod publication;
mod retention;
mod role;
mod server;
mod slot;
mod spool;
mod table;

pub(crate) use retention::signature;

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::Client;

use crate::{
    config::Config,
    error::{Error, Result},
    primary,
    record::Layout,
    wal::Connection,
};

/// How long the look at one peer may take in all.
const LOOK_TIMEOUT: Duration = Duration::from_secs(30);

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Ok,
    /// The relay runs, and somebody should know.
    Warning,
    /// The relay does not run, or not for long.
    Wrong,
}

impl Level {
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Wrong => "wrong",
        }
    }
}

/// What was looked at, and what was found.
#[derive(Clone, Debug)]
pub struct Finding {
    pub level: Level,
    pub what: &'static str,
    pub text: String,
    pub mend: Option<String>,
}

/// All that was found, in the order in which the data flows.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub findings: Vec<Finding>,
}

impl Report {
    pub fn worst(&self) -> Level {
        let levels = self.findings.iter().map(|finding| finding.level);
        levels.max().unwrap_or(Level::Ok)
    }

    fn ok(&mut self, what: &'static str, text: impl Into<String>) {
        self.add(Level::Ok, what, text, None);
    }

    fn warning(&mut self, what: &'static str, text: impl Into<String>, mend: impl Into<String>) {
        self.add(Level::Warning, what, text, Some(mend.into()));
    }

    fn wrong(&mut self, what: &'static str, text: impl Into<String>, mend: impl Into<String>) {
        self.add(Level::Wrong, what, text, Some(mend.into()));
    }

    fn add(
        &mut self,
        level: Level,
        what: &'static str,
        text: impl Into<String>,
        mend: Option<String>,
    ) {
        self.findings.push(Finding {
            level,
            what,
            text: text.into(),
            mend: mend.filter(|mend| !mend.is_empty()),
        });
    }
}

/// Looks at Postgres, and then at NATS; if one cannot be reached, at the other all the same.
pub async fn run(config: &Config) -> Report {
    let mut report = Report::default();
    let largest = postgres(config, &mut report).await;
    spool::look(config, &mut report);
    let max_age = nats::look(config, largest, &mut report).await;
    let interval = monitoring::look(config, &mut report).await;
    retention::period(config, interval, max_age, &mut report);
    report
}

/// The largest payload among the newest rows, if it could be told.
async fn postgres(config: &Config, report: &mut Report) -> Option<usize> {
    let (server, sql) = match primary::connect(&config.source.database_url).await {
        Ok(connected) => connected,
        Err(error) => {
            let mend = "mend DATABASE_URL, pg_hba.conf or the network";
            report.wrong("Postgres", error.to_string(), mend);
            return None;
        }
    };
    report.ok("Postgres", format!("{server} takes writes"));
    let opened = Connection::open(&server, config.source.wal_sender_timeout()).await;
    let replication = match opened {
        Ok(mut connection) => connection.identify_system().await,
        Err(error) => Err(error),
    };
    match replication {
        Ok(system) => report.ok(
            "replication connection",
            format!("system {}, timeline {}", system.id, system.timeline),
        ),
        Err(error) => report.wrong(
            "replication connection",
            error.to_string(),
            "give the role REPLICATION, and let pg_hba.conf admit it to the database",
        ),
    }
    match timeout(LOOK_TIMEOUT, all(config, &sql, report)).await {
        Ok(Ok(largest)) => largest,
        Ok(Err(error)) => {
            report.wrong("Postgres", format!("the look was cut short: {error}"), "");
            None
        }
        Err(_) => {
            let text = format!("the look took longer than {LOOK_TIMEOUT:?}");
            report.wrong("Postgres", text, "look for locks in pg_stat_activity");
            None
        }
    }
}

async fn all(config: &Config, sql: &Client, report: &mut Report) -> Result<Option<usize>> {
    let layout = Layout::of(&config.columns, &config.message);
    let slot = slot::find(sql, config).await?;
    server::look(sql, &slot, report).await?;
    let rights = role::look(sql, report).await?;
    let largest = match &config.source.message_prefix {
        Some(prefix) => {
            report.ok(
                "messages",
                format!("with the prefix {prefix}; no table holds them"),
            );
            publication::exists(sql, config, &rights, report).await?;
            None
        }
        None => table::look(sql, config, &layout, &rights, report).await?,
    };
    slot::look(config, &slot, report);
    Ok(largest)
}

fn failed(error: &tokio_postgres::Error) -> Error {
    Error::sql("look at Postgres", error)
}

fn mib(bytes: i64) -> String {
    format!("{} MiB", bytes / 1024 / 1024)
}
