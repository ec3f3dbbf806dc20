//! Where an event stands in the WAL of the Postgres cluster that it comes from.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// The place of one event: which cluster, which history of it, which commit, which row of the commit.
///
/// Its text is `{system}/{timeline}/{lsn}/{index}`, with `lsn` as 16 upper-case hexadecimal digits and
/// the others in decimal: `7423096341861900311/1/000000000A12F3B8/0`. Text and value map one to one.
///
/// # Order
///
/// Positions of one system are ordered by (`lsn`, `index`): several rows of a commit share its LSN, and
/// a promoted standby goes on from the LSN at which it left its primary. Positions of different systems
/// have no order. The timeline only breaks ties.
///
/// Danger: order alone does not tell what is stored once the timeline has *changed*. What the old
/// primary wrote behind the point where the new timeline begins is gone from the new one, which uses
/// those LSNs again for other rows. Who resumes across a change of timeline has to ask the server where
/// it began (its timeline history), or it would take new rows for old ones and skip them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    /// The cluster's system identifier, drawn by `initdb`.
    pub system: u64,
    /// The timeline that the server was on when the event was read; a promotion begins a new one.
    pub timeline: u32,
    /// The LSN of the commit record, in bytes of WAL since the beginning.
    pub lsn: u64,
    /// The event's place among those of its transaction, from 0.
    pub index: u32,
}

impl PartialOrd for Position {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self.system == other.system).then(|| {
            let key = |p: &Self| (p.lsn, p.index, p.timeline);
            key(self).cmp(&key(other))
        })
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            system,
            timeline,
            lsn,
            index,
        } = self;
        write!(f, "{system}/{timeline}/{lsn:016X}/{index}")
    }
}

/// The text is not a [`Position`]'s.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a position: expected {{system}}/{{timeline}}/{{lsn, 16 hex digits}}/{{index}}"
)]
pub struct ParsePositionError(String);

impl FromStr for Position {
    type Err = ParsePositionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text)
            // One text for each value: no leading zeros, signs or lower case.
            .filter(|position| position.to_string() == text)
            .ok_or_else(|| ParsePositionError(super::excerpt(text)))
    }
}

fn parse(text: &str) -> Option<Position> {
    let mut parts = text.split('/');
    let position = Position {
        system: parts.next()?.parse().ok()?,
        timeline: parts.next()?.parse().ok()?,
        lsn: u64::from_str_radix(parts.next()?, 16).ok()?,
        index: parts.next()?.parse().ok()?,
    };
    parts.next().is_none().then_some(position)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Position = Position {
        system: 7_423_096_341_861_900_311,
        timeline: 1,
        lsn: 0x0A12_F3B8,
        index: 3,
    };

    #[test]
    fn text_and_value_map_one_to_one() {
        assert_eq!(HERE.to_string(), "7423096341861900311/1/000000000A12F3B8/3");
        let extremes = Position {
            system: u64::MAX,
            timeline: u32::MAX,
            lsn: u64::MAX,
            index: u32::MAX,
        };
        for position in [HERE, extremes] {
            assert_eq!(position.to_string().parse(), Ok(position));
        }
    }

    #[test]
    fn any_other_text_is_refused() {
        for text in [
            "",
            "1/1/0/0",
            "1/1/000000000a12f3b8/3",
            "01/1/000000000A12F3B8/3",
            "1/1/000000000A12F3B8/+3",
            "1/1/000000000A12F3B8",
            "1/1/000000000A12F3B8/3/0",
            "1/1/000000000A12F3B8/4294967296",
            "1/1/0/A12F3B8/3",
        ] {
            assert!(text.parse::<Position>().is_err(), "{text} was accepted");
        }
    }

    #[test]
    fn positions_of_one_system_are_ordered_by_commit_and_index() {
        let later_row = Position { index: 4, ..HERE };
        let later_commit = Position {
            lsn: HERE.lsn + 1,
            index: 0,
            ..HERE
        };
        let promoted = Position {
            timeline: 2,
            lsn: HERE.lsn + 2,
            index: 0,
            ..HERE
        };
        assert!(HERE < later_row && later_row < later_commit && later_commit < promoted);
        let elsewhere = Position { system: 1, ..HERE };
        assert_eq!(HERE.partial_cmp(&elsewhere), None);
    }
}
