//! Dead letters as people see them: what is known of one, and its event's message in JSON.

use std::time::{SystemTime, UNIX_EPOCH};

use mailbox::dead_letter::Letter;
use proto::Timestamp;
use proto::dead_letters::v1::DeadLetter;

use crate::ToJson;

/// A larger message is not shown: with its JSON beside it, it has to fit into one answer.
pub(crate) const SHOWN_BYTES_MAX: usize = 256 * 1024;
/// What is known of a letter.
pub(crate) fn dead_letter(letter: Letter) -> DeadLetter {
    DeadLetter {
        sequence: letter.sequence,
        durable: letter.durable,
        reason: letter.reason,
        attempts: letter.attempts,
        dead_time: Some(timestamp(letter.time)),
        event_id: letter.event_id,
        event_type: letter.event_type,
        aggregate_type: letter.aggregate_type,
        aggregate_id: letter.aggregate_id,
        origin_stream: letter.origin.stream,
        origin_sequence: letter.origin.sequence,
        origin_subject: letter.origin.subject,
        payload_bytes: letter.payload_bytes,
        payload_omitted: letter.payload_omitted,
    }
}

fn timestamp(time: SystemTime) -> Timestamp {
    // JetStream's: after 1970, and before i64 seconds run out.
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(since.subsec_nanos()).unwrap_or_default(),
    }
}

/// The message in JSON, or why it is not shown.
pub(crate) fn shown(to_json: ToJson, event_type: &str, payload: &[u8]) -> Result<String, String> {
    if payload.len() > SHOWN_BYTES_MAX {
        return Err(format!(
            "its message has {} bytes, too many to show",
            payload.len()
        ));
    }
    let json = to_json(event_type, payload)?;
    if json.len() > 2 * SHOWN_BYTES_MAX {
        return Err(format!(
            "in JSON it has {} bytes, too many to show",
            json.len()
        ));
    }
    Ok(json)
}
