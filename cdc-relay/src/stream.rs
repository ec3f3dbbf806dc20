//! The JetStream stream: made where it is missing, and read for the truth about what it holds (I5).

use async_nats::{
    Client,
    jetstream::{
        self, ErrorCode,
        context::{CreateStreamErrorKind, GetStreamErrorKind},
        stream::{Config, Info, LastRawMessageErrorKind, Stream},
    },
};
use mailbox::envelope;
use metrics::gauge;

mod headers;
mod look;
mod settings;

pub use self::{
    headers::Headers,
    look::{Look, look},
    settings::{differences, unsuitable},
};
use crate::{
    config::{Create, StreamConfig},
    error::{Error, Result},
    heal::{Cause, floor::Removed, mark},
    history::Stored,
    publish::{Acknowledged, Paths},
    quarantine::Place,
};

/// What the stream's leader says that it holds.
#[derive(Clone, Debug)]
pub struct Truth {
    pub stream: String,
    /// The patterns that the stream takes.
    pub subjects: Vec<String>,
    /// The largest message that it takes, if it limits that itself.
    pub message_bytes_max: Option<usize>,
    /// What the stream's settings allow.
    pub paths: Paths,
    /// The next append must follow this.
    pub last_sequence: u64,
    /// How many messages it holds.
    pub messages: u64,
    /// When it was made, in nanoseconds since 1970: another stream of the name has another.
    pub created_ns: i128,
    /// What it has removed on purpose.
    pub removed: Removed,
    /// What was being published again when the relay ended: not all of it is here yet.
    pub unfinished: Option<String>,
    /// The row after which the WAL is to be resumed: of the last event, unless that says otherwise;
    /// `None` while the stream is empty.
    pub last: Option<Stored>,
    /// The last event's own id.
    pub last_id: Option<String>,
    /// The last event was released from quarantine, where this was its place.
    pub released: Option<Place>,
}

impl Truth {
    /// The stream's end, as what JetStream has acknowledged at least.
    pub fn acknowledged(&self) -> Option<Acknowledged> {
        self.last_id.as_ref().map(|id| Acknowledged {
            sequence: self.last_sequence,
            id: id.clone(),
        })
    }

    /// Says how events are appended.
    pub fn show_path(&self) {
        if !self.paths.atomic {
            tracing::warn!(
                stream = self.stream,
                "the stream takes no atomic batches: the events of a transaction go one after the other, which \
                 is as safe, much slower, and shows them one by one. On nats-server 2.12 or newer, `nats stream \
                 edit {} --allow-batch` mends that",
                self.stream
            );
        }
        gauge!("cdc_relay_append_path", "path" => self.paths.name()).set(1.0);
    }
}

/// Whether JetStream answers: with the stream, if there is one.
///
/// # Errors
/// [`Error::Transient`] when it does not. That there is no such stream is an answer.
pub async fn reach(client: &Client, config: &StreamConfig) -> Result<Option<Info>> {
    let jetstream = jetstream::new(client.clone());
    match jetstream.get_stream(&config.name).await {
        Err(error) if !matches!(error.kind(), GetStreamErrorKind::JetStream(_)) => {
            Err(unreachable("find the stream", &error))
        }
        found => Ok(found.ok().map(|stream| stream.cached_info().clone())),
    }
}

/// What to do where there is no stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Nothing was ever published: make it.
    Create,
    /// What was published is gone: make it, with the mark that it is to be filled.
    Recreate,
    /// It was deleted behind a slot that has confirmed what stood in it.
    Heal,
}

/// Finds the stream, or makes it, and reads its end through the leader.
///
/// # Errors
/// [`Error::Heal`] when the stream was deleted, and is not to be simply created.
pub async fn read_truth(client: &Client, config: &StreamConfig, missing: Missing) -> Result<Truth> {
    let during = "read the stream";
    let mut stream = find_or_create(client, config, missing).await?;
    let info = stream
        .info()
        .await
        .map_err(|e| Error::transient(during, &e))?
        .clone();
    if let Some(why) = unsuitable(&info.config) {
        return Err(Error::Definite(why));
    }
    if config.create == Create::Missing {
        for difference in differences(&info.config, config) {
            tracing::warn!(
                stream = config.name,
                difference,
                "the stream is not as it is configured"
            );
        }
    }
    let last_sequence = info.state.last_sequence;
    let (last, last_id, released) =
        match mark::read(info.config.metadata.get(mark::KEY), last_sequence) {
            // Whoever marked it has closed what was released before.
            Some(marked) => (Some(marked), None, None),
            None => match last_event(&stream, config, last_sequence).await? {
                Some(end) => (Some(end.resume), Some(end.id), end.released),
                None => (None, None, None),
            },
        };
    if last.is_none() && info.state.last_sequence > 0 {
        tracing::warn!(
            stream = config.name,
            "the stream was emptied: what the slot has not confirmed is published, though it may have stood there before"
        );
    }
    Ok(Truth {
        stream: config.name.clone(),
        message_bytes_max: usize::try_from(info.config.max_message_size)
            .ok()
            .filter(|bytes| *bytes > 0),
        last_sequence,
        messages: info.state.messages,
        created_ns: info.created.unix_timestamp_nanos(),
        removed: Removed::of(&info),
        unfinished: info.config.metadata.get(mark::HEALING).cloned(),
        paths: Paths::of(&info.config),
        subjects: info.config.subjects,
        last,
        last_id,
        released,
    })
}

/// What the last event says.
struct End {
    id: String,
    resume: Stored,
    released: Option<Place>,
}

/// The message at the end, asked for after the last sequence: one that came in between makes the next
/// append fail, and the truth is read again. The very sequence is asked for first, so that a server
/// that has fallen behind cannot pair a new sequence with an old message.
async fn last_event<T>(
    stream: &Stream<T>,
    config: &StreamConfig,
    sequence: u64,
) -> Result<Option<End>> {
    if sequence == 0 {
        return Ok(None);
    }
    let last = match stream.get_raw_message(sequence).await {
        Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => {
            // Deleted: the last one that is left.
            stream.get_last_raw_message_by_subject(">").await
        }
        found => found,
    };
    let last = match last {
        Ok(last) => last,
        Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => return Ok(None),
        Err(error) => return Err(Error::transient("read the last message", &error)),
    };
    let header = |name: &str| last.headers.get(name).map(|value| value.as_str());
    match (
        header(envelope::POSITION).map(str::parse),
        header(envelope::EVENT_ID),
    ) {
        (Some(Ok(position)), Some(id)) => {
            let own = Stored {
                position,
                id: id.to_owned(),
            };
            // An event out of its place says where the WAL was left.
            let resume = header(envelope::RESUME).and_then(|text| text.parse().ok());
            let place = header(envelope::QUARANTINE).and_then(Place::parse);
            Ok(Some(End {
                id: own.id.clone(),
                resume: resume.unwrap_or(own),
                released: place,
            }))
        }
        _ => Err(Error::Definite(format!(
            "message {} of stream {} carries no position ({}): somebody else writes to the stream, and \
             this relay must be its only writer. Delete the message, or give the relay another stream",
            last.sequence,
            config.name,
            envelope::POSITION
        ))),
    }
}

async fn find_or_create(
    client: &Client,
    config: &StreamConfig,
    missing: Missing,
) -> Result<Stream> {
    let jetstream = jetstream::new(client.clone());
    let during = "find the stream";
    match jetstream.get_stream(&config.name).await {
        Ok(stream) => return Ok(stream),
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(refused)
                if refused.error_code() == ErrorCode::STREAM_NOT_FOUND =>
            {
                if missing == Missing::Heal && config.create != Create::Never {
                    return Err(Error::Heal(Cause::StreamDeleted(format!(
                        "stream {} was deleted behind its slot",
                        config.name
                    ))));
                }
            }
            GetStreamErrorKind::JetStream(refused)
                if refused.error_code() == ErrorCode::JETSTREAM_NOT_ENABLED =>
            {
                return Err(Error::definite(
                    "the NATS server runs without JetStream: start it with `-js` or a `jetstream` block",
                ));
            }
            _ => return Err(unreachable(during, &error)),
        },
    }
    if config.create == Create::Never {
        return Err(Error::Definite(format!(
            "there is no stream {}, and CDC_STREAM_CREATE=never says that somebody else makes it: \
             `nats stream add {0}`, with subjects {:?}, limits retention and atomic batches",
            config.name, config.subjects
        )));
    }
    tracing::info!(stream = config.name, subjects = ?config.subjects, "creating the stream");
    let during = "create the stream";
    let mut wanted = Config {
        // An older server refuses settings that it does not know.
        allow_atomic_publish: client.is_server_compatible(2, 12, 0),
        allow_batch_publish: client.is_server_compatible(2, 14, 0),
        ..settings::wanted(config)
    };
    if missing == Missing::Recreate {
        let why = format!("stream {} was deleted", config.name);
        wanted.metadata.insert(mark::HEALING.to_owned(), why);
    }
    let created = jetstream.create_stream(wanted).await;
    created.map_err(|error| match error.kind() {
        // Subjects that overlap another stream's, too many replicas, a limit of the account.
        CreateStreamErrorKind::JetStream(refused) if refused.code() < 500 => Error::Definite(format!(
            "{during} {}: JetStream refuses: {refused}. Mend CDC_STREAM_SUBJECTS (and CDC_SUBJECT with it) or \
             CDC_STREAM_REPLICAS",
            config.name
        )),
        _ => unreachable(during, &error),
    })
}

/// Nobody answered: a leader may be missing for a moment, or JetStream altogether.
fn unreachable(during: &str, error: &(dyn std::error::Error + 'static)) -> Error {
    match Error::transient(during, error) {
        Error::Transient(text) if text.contains("no responders") => Error::Transient(format!(
            "{text}; if this goes on, the NATS server runs without JetStream: start it with `-js` or a \
             `jetstream` block"
        )),
        other => other,
    }
}
