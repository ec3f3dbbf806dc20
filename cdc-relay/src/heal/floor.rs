//! What the stream has removed on purpose: its limits (`max_age`, `max_msgs`, `max_bytes`) or an
//! operator's purge. That is not missing, and must not be published again.
//!
//! ```text
//! removed │ first message, stored at T │ … held … │ last
//!         └ each was stored before T, so its row was written before T
//! ```
//!
//! A stream that removes from the front has removed nothing that was stored after its first message.
//! A row that was written after that moment (by its UUIDv7, whatever its transaction took) is
//! therefore missing if the stream lacks it; of an older one nothing can be told, and it is left out.
//! Where rows do not tell their time, or messages were removed from the middle, a person has to say.

use std::time::Duration;

use async_nats::jetstream::stream::{Info, RetentionPolicy};

/// How far the clocks of whoever draws ids and of the NATS server may be apart.
const CLOCKS_APART_MAX: Duration = Duration::from_secs(60);

/// What is not in the stream any more though it once was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    /// Nothing: whatever is not in the stream has never been there, or was lost.
    Nothing,
    /// Only what was stored before this, in milliseconds since 1970.
    Before(u64),
    /// It cannot be told; says why.
    Unknown(String),
    /// Whatever has no greater id than this: somebody says so.
    UpToId(String),
}

impl Removed {
    pub fn of(info: &Info) -> Self {
        let (config, state) = (&info.config, &info.state);
        let begin = config.first_sequence.unwrap_or(1).max(1);
        let deleted = state.deleted_count.unwrap_or(0);
        if deleted > 0 {
            return Self::Unknown(format!("{deleted} messages were deleted amid others"));
        }
        let removes_at_will = config.retention != RetentionPolicy::Limits
            || config.max_messages_per_subject > 0
            || config.allow_message_ttl;
        if state.first_sequence <= begin && (state.messages > 0 || state.last_sequence < begin) {
            return Self::Nothing;
        }
        if removes_at_will {
            return Self::Unknown(
                "the stream removes messages by subject, TTL or interest".to_owned(),
            );
        }
        // Of an empty stream the last message is the one that tells.
        let since = if state.messages > 0 {
            state.first_timestamp
        } else {
            state.last_timestamp
        };
        let margin = i128::try_from(CLOCKS_APART_MAX.as_nanos()).unwrap_or(i128::MAX);
        let until = (since.unix_timestamp_nanos() + margin) / 1_000_000;
        match u64::try_from(until) {
            Ok(until) if since.unix_timestamp() > 0 => Self::Before(until),
            _ => Self::Unknown("the stream was emptied".to_owned()),
        }
    }
}

/// The least UUIDv7 of a moment, as text.
pub fn least_uuid(unix_ms: u64) -> String {
    uuid::Uuid::from_u128(u128::from(unix_ms & 0xFFFF_FFFF_FFFF) << 80 | 0x7000 << 64).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_becomes_the_least_id_of_it() {
        let id = uuid::Uuid::now_v7();
        let (seconds, nanos) = id.get_timestamp().unwrap().to_unix();
        let ms = seconds * 1000 + u64::from(nanos) / 1_000_000;
        assert!(least_uuid(ms) <= id.to_string());
        assert!(least_uuid(ms + 1) > id.to_string());
        assert_eq!(least_uuid(0), "00000000-0000-7000-0000-000000000000");
    }
}
