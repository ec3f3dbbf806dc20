//! What a stream can take, so that a record that it cannot take is found before it is sent.

use async_nats::Client;

use crate::{record::Record, stream::Truth};

/// Room for the headers that an append adds itself.
const HEADERS_OF_AN_APPEND: usize = 320;

/// What the stream can take. A record is checked before it is sent: an atomic batch that lacks a
/// message is refused as a whole, without a word about which.
#[derive(Clone, Debug)]
pub struct Limits {
    stream: String,
    subjects: Vec<String>,
    bytes_max: usize,
    /// Which setting says so.
    bytes_limit: &'static str,
}

impl Limits {
    pub fn of(client: &Client, truth: &Truth) -> Self {
        let (bytes_max, bytes_limit) = match truth.message_bytes_max {
            Some(bytes) if bytes < client.max_payload() => (bytes, "stream's `max_msg_size`"),
            _ => (client.max_payload(), "NATS server's `max_payload`"),
        };
        Self {
            stream: truth.stream.clone(),
            subjects: truth.subjects.clone(),
            bytes_max,
            bytes_limit,
        }
    }

    /// # Errors
    /// Why the record cannot be appended, and what would mend it.
    pub fn check(&self, record: &Record) -> Result<(), String> {
        let bytes = record.bytes() + HEADERS_OF_AN_APPEND + self.stream.len();
        if bytes > self.bytes_max {
            return Err(format!(
                "it takes {bytes} bytes with its headers, and the limit is {}: raise the {}, or make the \
                 event smaller",
                self.bytes_max, self.bytes_limit
            ));
        }
        if self
            .subjects
            .iter()
            .any(|pattern| covers(pattern, &record.subject))
        {
            return Ok(());
        }
        Err(format!(
            "it goes to `{}`, which stream {} does not take (it takes {}): add the subject to the \
             stream, or mend CDC_SUBJECT",
            record.subject,
            self.stream,
            self.subjects.join(", "),
        ))
    }
}

/// Whether a stream's subject pattern takes the subject.
pub(crate) fn covers(pattern: &str, subject: &str) -> bool {
    let mut tokens = subject.split('.');
    for wanted in pattern.split('.') {
        match (wanted, tokens.next()) {
            (">", Some(_)) => return true,
            ("*", Some(_)) => {}
            (wanted, Some(token)) if wanted == token => {}
            _ => return false,
        }
    }
    tokens.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::covers;

    #[test]
    fn patterns_cover_what_nats_says_they_do() {
        for (pattern, subject, expected) in [
            ("a.b", "a.b", true),
            ("a.*", "a.b", true),
            ("a.>", "a.b.c", true),
            (">", "a", true),
            ("a.>", "a", false),
            ("a.*", "a.b.c", false),
            ("a.b.c", "a.b", false),
            ("a", "b", false),
        ] {
            assert_eq!(covers(pattern, subject), expected, "{pattern} {subject}");
        }
    }
}
