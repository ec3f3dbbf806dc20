//! A connection in replication mode: connects, authenticates, and runs the few commands that come
//! before the stream.

use std::{io, pin::pin, time::Duration};

use bytes::BytesMut;
use chassis::postgres::{Target, Transport, explain};
use fallible_iterator::FallibleIterator as _;
use postgres_protocol::message::{
    backend::{DataRowBody, ErrorResponseBody, Message},
    frontend,
};
use tokio::{io::AsyncWriteExt as _, time::timeout};
use tokio_postgres::types::PgLsn;

use super::{
    authenticate::authenticate,
    frame::{COPY_BOTH, Frames},
    stream::{WalReader, WalWriter, split},
};
use crate::{
    config::Source,
    error::{Error, Result},
    history::Ancestor,
};

/// How long a command before the stream may take.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);

/// How often a relay that waits for its slot says what it waits for.
const SLOT_REMINDER: Duration = Duration::from_secs(30);

pub(super) type Wire = Frames<Box<dyn Transport>>;

/// A connection that takes replication commands.
pub struct Connection {
    wire: Wire,
    silence_max: Duration,
}

/// Which server this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct System {
    /// The cluster's own identifier, drawn at `initdb`.
    pub id: u64,
    /// Counts promotions.
    pub timeline: u32,
}

/// A new slot's view of the database: what is visible in it was committed before the slot's first
/// transaction, and nothing lies between the two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Where the slot begins to decode.
    pub consistent_point: PgLsn,
    /// For `SET TRANSACTION SNAPSHOT`, while this connection runs no further command.
    pub name: String,
}

impl Connection {
    /// Connects to this server.
    ///
    /// `wal_sender_timeout` bounds how long the server keeps the slot for a relay that has vanished.
    pub async fn open(server: &Target, wal_sender_timeout: Duration) -> Result<Self> {
        let during = "connect for replication";
        let dialled = server.dial().await.map_err(|error| match explain(&error) {
            Some(why) => Error::Definite(format!("{during}: {why}")),
            None => Error::io(&format!("{during} to {server}"), &error),
        })?;
        let (mut wire, end_point) = (Frames::new(dialled.stream), dialled.server_end_point);
        let config = server.login();
        let timeout_ms = wal_sender_timeout.as_millis().to_string();
        let application = config.get_application_name().unwrap_or("cdc-relay");
        let parameters = [
            ("application_name", application),
            ("wal_sender_timeout", &timeout_ms),
            // While a snapshot is exported the connection sits in a transaction, which must not end.
            ("idle_in_transaction_session_timeout", "0"),
            ("idle_session_timeout", "0"),
            // Before streaming there is no wal_sender_timeout: a vanished relay is found by these.
            ("tcp_keepalives_idle", "10"),
            ("tcp_keepalives_interval", "5"),
            ("tcp_keepalives_count", "3"),
        ];
        let greeting = authenticate(&mut wire, &config, end_point, &parameters);
        Error::within(during, COMMAND_TIMEOUT, greeting).await?;
        // A walsender that is busy decoding answers within half of its own timeout.
        let silence_max = 2 * wal_sender_timeout;
        Ok(Self { wire, silence_max })
    }

    /// Asks which server this is.
    pub async fn identify_system(&mut self) -> Result<System> {
        let during = "identify the system";
        let answer = self.row(during, "IDENTIFY_SYSTEM");
        let row = Error::within(during, COMMAND_TIMEOUT, answer).await?;
        let column = |at: usize| row.get(at).and_then(Option::as_deref).unwrap_or_default();
        let malformed =
            || Error::definite(format!("{during}: cannot read Postgres' answer {row:?}"));
        Ok(System {
            id: column(0).parse().map_err(|_| malformed())?,
            timeline: column(1).parse().map_err(|_| malformed())?,
        })
    }

    /// The timelines that this server's own came from; asked only when there are any.
    pub async fn ancestors(&mut self, timeline: u32) -> Result<Vec<Ancestor>> {
        if timeline <= 1 {
            return Ok(Vec::new());
        }
        let during = "read the timeline's history";
        let command = format!("TIMELINE_HISTORY {timeline}");
        let answer = self.row(during, &command);
        let row = Error::within(during, COMMAND_TIMEOUT, answer).await?;
        let content = row.get(1).and_then(Option::as_deref).unwrap_or_default();
        Ok(content.lines().filter_map(ancestor).collect())
    }

    /// Lets the slot follow a failover to a standby (Postgres 17 and newer). It must not be in use.
    pub async fn enable_failover(&mut self, slot: &str) -> Result<()> {
        let during = "let the slot follow a failover";
        let command = format!("ALTER_REPLICATION_SLOT {} (FAILOVER true)", quote(slot));
        let answer = self.row(during, &command);
        Error::within(during, COMMAND_TIMEOUT, answer)
            .await
            .map(drop)
    }

    /// Creates a slot that ends with this connection, and exports the snapshot that it begins after.
    ///
    /// It waits for the transactions that are open at this moment, however long they take: the server
    /// would go on creating the slot for a relay that has given up.
    pub async fn create_temporary_slot(&mut self, name: &str) -> Result<Snapshot> {
        let during = "create the replication slot";
        let name = quote(name);
        let command = format!(
            "CREATE_REPLICATION_SLOT {name} TEMPORARY LOGICAL pgoutput (SNAPSHOT 'export')"
        );
        let mut answer = pin!(self.row(during, &command));
        let row = loop {
            match timeout(SLOT_REMINDER, &mut answer).await {
                Ok(row) => break row?,
                Err(_) => tracing::warn!(
                    "still creating the replication slot: Postgres waits for the transactions that \
                     were open; look for old ones in pg_stat_activity"
                ),
            }
        };
        let malformed =
            || Error::definite(format!("{during}: cannot read Postgres' answer {row:?}"));
        let column = |at: usize| row.get(at).and_then(Option::as_deref).ok_or_else(malformed);
        Ok(Snapshot {
            consistent_point: column(1)?.parse().map_err(|_| malformed())?,
            name: column(2)?.to_owned(),
        })
    }

    /// Takes the slot (it is the relay's lease) and begins to stream what it has not confirmed; with
    /// `streaming`, large transactions in chunks before they have ended (`pgoutput::Mark`).
    ///
    /// # Errors
    /// [`Error::SlotHeld`] while another relay streams from the slot.
    pub async fn start_replication(
        mut self,
        source: &Source,
        streaming: bool,
    ) -> Result<(WalReader, WalWriter)> {
        let during = "start replication";
        let publication = literal(&quote(&source.publication));
        let (slot, messages) = (quote(&source.slot), source.message_prefix.is_some());
        let version = match streaming {
            true => "proto_version '2', streaming 'on'",
            false => "proto_version '1'",
        };
        // 0/0: go on from where the slot was confirmed.
        let command = format!(
            "START_REPLICATION SLOT {slot} LOGICAL 0/0 \
             ({version}, publication_names {publication}, binary 'true', messages '{messages}')"
        );
        self.send(during, &command).await?;
        let started = async {
            loop {
                let tag = self
                    .wire
                    .peek_tag()
                    .await
                    .map_err(|e| Error::io(during, &e))?;
                if tag == COPY_BOTH {
                    self.wire.next().await.map_err(|e| Error::io(during, &e))?;
                    return Ok(());
                }
                let message = self.wire.next_message().await;
                if let Message::ErrorResponse(body) = message.map_err(|e| Error::io(during, &e))? {
                    return Err(server_error(during, &body));
                }
            }
        };
        Error::within(during, COMMAND_TIMEOUT, started).await?;
        Ok(split(self.wire, self.silence_max))
    }

    /// Runs a command that answers with one row; columns as text, `None` for NULL.
    async fn row(&mut self, during: &str, command: &str) -> Result<Vec<Option<String>>> {
        self.send(during, command).await?;
        let answer = async {
            let mut row = Ok(Vec::new());
            loop {
                let message = self.wire.next_message().await;
                match message.map_err(|e| Error::io(during, &e))? {
                    Message::DataRow(body) => {
                        row = columns(&body).map_err(|e| Error::io(during, &e));
                    }
                    Message::ErrorResponse(body) => row = Err(server_error(during, &body)),
                    Message::ReadyForQuery(_) => return row,
                    _ => {}
                }
            }
        };
        answer.await
    }

    async fn send(&mut self, during: &str, command: &str) -> Result<()> {
        let mut out = BytesMut::new();
        frontend::query(command, &mut out).map_err(|e| Error::io(during, &e))?;
        let sent = send(&mut self.wire, &out).await;
        sent.map_err(|e| Error::io(during, &e))
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

/// Writes, and flushes: TLS may keep a record back.
pub(super) async fn send(wire: &mut Wire, bytes: &[u8]) -> io::Result<()> {
    wire.source().write_all(bytes).await?;
    wire.source().flush().await
}

/// A line of a timeline history file: the timeline, the LSN at which it was left, and why.
fn ancestor(line: &str) -> Option<Ancestor> {
    let mut words = line.split_whitespace();
    let timeline = words.next()?.parse().ok()?;
    let left_at = words.next()?.parse().ok()?;
    Some(Ancestor { timeline, left_at })
}

fn columns(body: &DataRowBody) -> io::Result<Vec<Option<String>>> {
    let buffer = body.buffer();
    body.ranges()
        .map(|range| Ok(range.map(|range| String::from_utf8_lossy(&buffer[range]).into_owned())))
        .collect()
}

/// Reads an `ErrorResponse` into the failure that it means.
pub(super) fn server_error(during: &str, body: &ErrorResponseBody) -> Error {
    let (mut code, mut message, mut hint) = (String::new(), String::new(), String::new());
    let mut fields = body.fields();
    while let Ok(Some(field)) = fields.next() {
        let value = String::from_utf8_lossy(field.value_bytes()).into_owned();
        match field.type_() {
            b'C' => code = value,
            b'M' => message = value,
            b'H' => hint = format!(" ({value})"),
            _ => {}
        }
    }
    Error::postgres(during, &code, &format!("{message}{hint}"))
}

/// An identifier, quoted for SQL and for replication commands.
pub(crate) fn quote(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}

/// A string, quoted likewise.
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
