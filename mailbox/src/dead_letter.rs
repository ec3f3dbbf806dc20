//! Events that cannot be applied, kept with their reason (I10), and what people do about them.
//!
//! ```text
//!  consumer ─► writer ─► DEAD_LETTERS ─► letters: look ─┬► redrive: claim · handle · COMMIT, then deleted
//!                                                       └► discard: DISCARDED_LETTERS, then deleted
//! ```
//!
//! A dead letter is a message on `dead.{durable}` in the stream `DEAD_LETTERS`: the original bytes, what
//! happened in headers `Dead-Letter-…`, and each original header under its name with `Original-` before
//! it, so that none of them acts on this stream. Taking that prefix off gives back the original.
//!
//! Danger: a letter is deleted only when its event is committed, or when it stands among the discarded
//! ones (I10). What happens between leads to a repeat, which the inbox absorbs (I6).

mod letter;
mod letters;
mod redrive;
mod writer;

pub use letter::{Letter, Opened, Origin};
pub use letters::{Error, Letters};
pub use redrive::{Outcome, Redrive};
pub(crate) use writer::DeadLetters;

/// The stream of the dead letters of all consumers.
pub const STREAM: &str = "DEAD_LETTERS";
/// A dead letter's subject is this and its consumer's durable name.
pub const SUBJECT_PREFIX: &str = "dead.";
/// Why the event could not be applied.
pub const REASON: &str = "Dead-Letter-Reason";
/// How the reason begins where the event ended the process that applied it, each time.
pub(crate) const DIED: &str = "applying it was begun";
/// The durable consumer that could not apply it.
pub const DURABLE: &str = "Dead-Letter-Durable";
/// The stream that it came from.
pub const ORIGIN_STREAM: &str = "Dead-Letter-Stream";
/// Its sequence in that stream.
pub const ORIGIN_SEQUENCE: &str = "Dead-Letter-Sequence";
/// Its subject there.
pub const ORIGIN_SUBJECT: &str = "Dead-Letter-Subject";
/// How often it had been delivered.
pub const ATTEMPTS: &str = "Dead-Letter-Attempts";
/// Present if the payload was left out, being too large to be stored together with these headers. It
/// still stands in [`ORIGIN_STREAM`] at [`ORIGIN_SEQUENCE`].
pub const PAYLOAD_OMITTED: &str = "Dead-Letter-Payload-Omitted";
/// Stands before the names of the original headers.
pub const ORIGINAL_PREFIX: &str = "Original-";
/// The stream of what was discarded, for a while.
pub const DISCARDED_STREAM: &str = "DISCARDED_LETTERS";
/// A discarded letter's subject is this and its consumer's durable name.
pub const DISCARDED_PREFIX: &str = "discarded.";
/// On a discarded letter: why it was.
pub const DISCARD_REASON: &str = "Dead-Letter-Discard-Reason";
/// On a discarded letter: its sequence in [`STREAM`].
pub const DISCARDED_SEQUENCE: &str = "Dead-Letter-Discarded-Sequence";
