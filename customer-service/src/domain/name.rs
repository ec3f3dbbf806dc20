//! What a customer may be called.

use std::ops::RangeInclusive;

/// Characters in a name at most.
pub const NAME_CHARS_MAX: usize = 200;

/// Format characters that nobody sees and that make a name pass for another one, or break its line:
/// zero width space and its like, directional embeddings, overrides and isolates, line separators.
const DECEPTIVE: [RangeInclusive<char>; 5] = [
    '\u{200b}'..='\u{200b}',
    '\u{2028}'..='\u{202e}',
    '\u{2060}'..='\u{2060}',
    '\u{2066}'..='\u{2069}',
    '\u{feff}'..='\u{feff}',
];
/// What shows nothing by itself, but has its place in a name: soft hyphen, joiners and marks of
/// direction; the fillers of Hangul and Braille's blank.
const UNSEEN: [RangeInclusive<char>; 7] = [
    '\u{ad}'..='\u{ad}',
    '\u{34f}'..='\u{34f}',
    '\u{61c}'..='\u{61c}',
    '\u{115f}'..='\u{1160}',
    '\u{200c}'..='\u{200f}',
    '\u{2800}'..='\u{2800}',
    '\u{3164}'..='\u{3164}',
];

/// A customer's name: 1 to 200 characters, not all blank, without control characters and without
/// format characters that deceive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(String);

/// A name that cannot be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    #[error("must not be empty or all blank")]
    Blank,
    #[error("must have at most {NAME_CHARS_MAX} characters")]
    TooLong,
    #[error("must not contain control characters, such as line breaks")]
    ControlCharacter,
    #[error("must not contain invisible characters, such as U+200B or U+202E")]
    DeceptiveCharacter,
}

impl Name {
    pub fn new(name: String) -> Result<Self, InvalidName> {
        if name.chars().nth(NAME_CHARS_MAX).is_some() {
            Err(InvalidName::TooLong)
        } else if name.contains(char::is_control) {
            Err(InvalidName::ControlCharacter)
        } else if name.contains(|c| is_in(&DECEPTIVE, c)) {
            Err(InvalidName::DeceptiveCharacter)
        } else if name.chars().all(|c| c.is_whitespace() || is_in(&UNSEEN, c)) {
            Err(InvalidName::Blank)
        } else {
            Ok(Self(name))
        }
    }

    /// A name as it was kept: taken once, perhaps by rules that were laxer.
    pub fn kept(name: String) -> Self {
        Self(name)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_in(ranges: &[RangeInclusive<char>], c: char) -> bool {
    ranges.iter().any(|range| range.contains(&c))
}
