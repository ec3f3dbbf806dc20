//! What a running relay remembers of the stream between two sessions: enough to notice that JetStream
//! lost what it had acknowledged (I11), whatever took its place.

use async_nats::{Client, jetstream, jetstream::stream::LastRawMessageErrorKind};
use mailbox::envelope;

use super::Cause;
use crate::{
    error::{Error, Result},
    publish::Acknowledged,
    stream::Truth,
};

/// The last acknowledged append to a stream, and which stream that was.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    last: Option<Acknowledged>,
    created_ns: Option<i128>,
    /// A stream that this process has filled, should its mark say otherwise.
    filled: Option<i128>,
}

impl Memory {
    /// What a session ended with; one that appended nothing adds nothing.
    pub fn note(&mut self, created_ns: i128, last: Option<Acknowledged>) {
        self.created_ns = Some(created_ns);
        if last.is_some() {
            self.last = last;
        }
    }

    /// All that the stream lacked is published.
    pub fn filled(&mut self, created_ns: i128, last: Option<Acknowledged>) {
        self.filled = Some(created_ns);
        self.note(created_ns, last);
    }

    /// What was remembered is being mended.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// # Errors
    /// [`Error::Heal`] when the stream is another one, or lacks what it had acknowledged.
    pub async fn check(&self, client: &Client, truth: &Truth) -> Result<()> {
        let name = &truth.stream;
        if self
            .created_ns
            .is_some_and(|created| created != truth.created_ns)
        {
            return Err(Error::Heal(Cause::StreamDeleted(format!(
                "stream {name} was deleted and made anew behind the relay's back"
            ))));
        }
        if let Some(why) = &truth.unfinished
            && self.filled != Some(truth.created_ns)
        {
            return Err(lost(format!(
                "stream {name} was not filled again to the end before the relay was stopped: {why}"
            )));
        }
        let Some(last) = &self.last else {
            return Ok(());
        };
        if truth.last_sequence < last.sequence {
            return Err(lost(format!(
                "stream {name} ends at sequence {}, and had acknowledged {}: JetStream lost its tail, \
                 {} events at least",
                truth.last_sequence,
                last.sequence,
                last.sequence - truth.last_sequence
            )));
        }
        let during = "compare the stream with what it had acknowledged";
        let stream = jetstream::new(client.clone())
            .get_stream_no_info(name)
            .await;
        let stream = stream.map_err(|e| Error::transient(during, &e))?;
        match stream.get_raw_message(last.sequence).await {
            Ok(found) => match found.headers.get(envelope::EVENT_ID) {
                // A mark has stood in for the id.
                Some(id) if last.id.is_empty() || id.as_str() == last.id => Ok(()),
                _ => Err(lost(format!(
                    "stream {name} had acknowledged event {} at sequence {}, and holds another there: \
                     JetStream lost its tail, and others have written since",
                    last.id, last.sequence
                ))),
            },
            // Removed by its limits, or by hand.
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(()),
            Err(error) => Err(Error::transient(during, &error)),
        }
    }
}

fn lost(why: String) -> Error {
    Error::Heal(Cause::LostTail(why))
}
