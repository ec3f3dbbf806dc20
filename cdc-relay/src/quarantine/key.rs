//! What an item is called: the bucket of its aggregate, its key, and the subjects made of them.
//!
//! The danger: a key must be the same each time the row is read, and never another row's. The position
//! alone is not: a server restored to an earlier point gives its LSNs out again. So the event's id is
//! in it as well. The timeline is not: a promotion brings the same row under another.

use std::fmt;

use mailbox::envelope::Position;

/// Which queue an item stands in. Rows of one aggregate share a bucket, and stay in their order.
///
/// It is a hash: two aggregates that share one are held and released together, which costs time and
/// never order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Bucket(Option<u64>);

/// The token of rows whose aggregate cannot be read: each stands for itself, and holds nothing.
const ALONE: &str = "none";

impl Bucket {
    /// Rows that hold nothing but themselves.
    pub const ALONE: Self = Self(None);

    pub fn of(aggregate_type: &str, aggregate_id: &str) -> Self {
        // A zero byte cannot stand in a Postgres text: `a` + `bc` is not `ab` + `c`.
        let parts = [aggregate_type.as_bytes(), b"\0", aggregate_id.as_bytes()];
        Self(Some(fnv1a(parts.into_iter().flatten().copied())))
    }

    /// Reads a subject's token.
    pub fn parse(token: &str) -> Option<Self> {
        if token == ALONE {
            return Some(Self::ALONE);
        }
        let hash = u64::from_str_radix(token, 16).ok()?;
        (token.len() == 16).then_some(Self(Some(hash)))
    }

    pub fn is_alone(self) -> bool {
        self.0.is_none()
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(hash) => write!(f, "{hash:016x}"),
            None => f.write_str(ALONE),
        }
    }
}

/// Names one row for ever: system, commit, index in the transaction, and a hash of its id.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(String);

impl Key {
    pub fn of(position: Position, id: Option<&str>) -> Self {
        let Position {
            system, lsn, index, ..
        } = position;
        // The low half is enough: the position has told the rows of one history apart already.
        let hash = fnv1a(id.unwrap_or_default().bytes()) & 0xFFFF_FFFF;
        Self(format!("{system}-{lsn:X}-{index}-{hash:08x}"))
    }

    /// What people type: the commit and the index, as the position shows them.
    pub fn short(&self) -> &str {
        let without_hash = self.0.rsplit_once('-').map_or("", |(head, _)| head);
        without_hash.split_once('-').map_or("", |(_, tail)| tail)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An item's place in the quarantine stream, which is also what a released event names in its header
/// `Cdc-Quarantine`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    pub bucket: Bucket,
    pub key: Key,
}

impl Place {
    /// Reads the last two tokens of a subject, or the header's value.
    pub fn parse(text: &str) -> Option<Self> {
        let (head, key) = text.rsplit_once('.')?;
        let bucket = head.rsplit_once('.').map_or(head, |(_, token)| token);
        Some(Self {
            bucket: Bucket::parse(bucket)?,
            key: Key(key.to_owned()),
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.bucket, self.key)
    }
}

/// The subjects of one relay's quarantine.
#[derive(Clone, Debug)]
pub struct Subjects(String);

impl Subjects {
    pub fn of(stream: &str) -> Self {
        Self(format!("quarantine.{stream}"))
    }

    /// What the quarantine stream takes.
    pub fn all(&self) -> String {
        format!("{}.>", self.0)
    }

    /// Whose session it is: the fence.
    pub fn session(&self) -> String {
        format!("{}.session", self.0)
    }

    /// Items before this mark say nothing about where to resume.
    pub fn origin(&self) -> String {
        format!("{}.origin", self.0)
    }

    pub fn items(&self) -> String {
        format!("{}.item.>", self.0)
    }

    pub fn items_of(&self, bucket: Bucket) -> String {
        format!("{}.item.{bucket}.*", self.0)
    }

    pub fn item(&self, place: &Place) -> String {
        format!("{}.item.{place}", self.0)
    }

    /// A piece of what is too large for one message. `upload` tells a torn attempt from the next.
    pub fn part(&self, place: &Place, upload: &str, at: usize) -> String {
        format!("{}.part.{place}.{upload}.{at}", self.0)
    }

    pub fn parts_of(&self, place: &Place) -> String {
        format!("{}.part.{place}.>", self.0)
    }

    pub fn fix(&self, place: &Place) -> String {
        format!("{}.fix.{place}", self.0)
    }

    pub fn requests(&self) -> String {
        format!("{}.request.>", self.0)
    }

    pub fn request(&self, place: &Place) -> String {
        format!("{}.request.{place}", self.0)
    }
}

/// FNV-1a, 64 bits: short, and the same for ever.
fn fnv1a(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Position = Position {
        system: 7,
        timeline: 1,
        lsn: 0x16B_3748,
        index: 3,
    };

    #[test]
    fn the_hash_is_fnv1a() {
        assert_eq!(fnv1a(b"".iter().copied()), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"a".iter().copied()), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a(b"foobar".iter().copied()), 0x85944171f73967e8);
    }

    #[test]
    fn a_key_tells_rows_apart_and_survives_a_promotion() {
        let key = Key::of(HERE, Some("a"));
        assert_ne!(key, Key::of(HERE, Some("b")), "another history's row");
        assert_ne!(key, Key::of(Position { index: 4, ..HERE }, Some("a")));
        let promoted = Position {
            timeline: 2,
            ..HERE
        };
        assert_eq!(key, Key::of(promoted, Some("a")));
        assert_eq!(key.short(), "16B3748-3");
    }

    #[test]
    fn a_place_is_read_from_its_subject_and_from_its_header() {
        let subjects = Subjects::of("ORDERS");
        for bucket in [Bucket::of("order", "42"), Bucket::ALONE] {
            let place = Place {
                bucket,
                key: Key::of(HERE, None),
            };
            assert_eq!(Place::parse(&place.to_string()), Some(place.clone()));
            assert_eq!(Place::parse(&subjects.item(&place)), Some(place));
        }
        assert_eq!(Place::parse("quarantine.ORDERS.session"), None);
    }

    #[test]
    fn aggregates_are_told_apart_where_type_and_id_meet() {
        assert_ne!(Bucket::of("a", "bc"), Bucket::of("ab", "c"));
    }
}
