//! HTML's character references (HTML 13.5): names and numbers.

use std::sync::LazyLock;

use super::Character;

/// Maximum number of characters between `&` and `;`: the length of the longest name in the table.
pub(super) const MAX_ENTITY: usize = 16;
/// Maximum number of digits, including leading zeros. With `#x`, a number is no longer than a name.
const MAX_DIGITS: u8 = 14;
/// The last code point (Unicode 3.4, D9).
const LAST: u32 = 0x10_ffff;

/// The names that are read, sorted by their bytes: all HTML names for single characters of ASCII, Latin, Greek,
/// Cyrillic and Windows-1252, and all names of HTML 4. Names with more than [`MAX_ENTITY`] characters are left out.
/// Each line has a name and a code point.
static NAMES: LazyLock<Vec<(&str, u32)>> = LazyLock::new(|| {
    let pair = |line: &'static str| {
        let (name, code) = line.split_once(' ')?;
        Some((name, u32::from_str_radix(code, 16).ok()?))
    };
    include_str!("entities.txt").lines().filter_map(pair).collect()
});

/// The text after `&`, so far.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Reference {
    /// The beginning of these names, as a range of indices.
    Name {
        from: usize,
        to: usize,
        length: usize,
    },
    /// `#`
    Hash,
    Number {
        value: u32,
        radix: u32,
        digits: u8,
    },
}

impl Reference {
    /// An empty reference.
    pub(super) fn new() -> Reference {
        Reference::Name { from: 0, to: NAMES.len(), length: 0 }
    }

    /// Adds one character; `None` if no reference begins in this way.
    pub(super) fn with(self, byte: u8) -> Option<Reference> {
        match (self, byte) {
            (Reference::Name { length: 0, .. }, b'#') => Some(Reference::Hash),
            (Reference::Name { from, to, length }, _) => named(from, to, length, byte),
            (Reference::Hash, b'x' | b'X') => Some(Reference::Number { value: 0, radix: 16, digits: 0 }),
            (Reference::Hash, _) => number(0, 10, 0, byte),
            (Reference::Number { value, radix, digits }, _) => number(value, radix, digits, byte),
        }
    }

    /// The character that it encodes, if it is complete.
    pub(super) fn character(self) -> Option<Character> {
        match self {
            Reference::Name { from, length, .. } => {
                let (name, code) = NAMES.get(from)?;
                (name.len() == length).then(|| Character::of(*code)).flatten()
            }
            Reference::Number { value, digits: 1.., .. } => Character::of(value),
            _ => None,
        }
    }

    /// Returns whether it is a number, which may end without a semicolon.
    pub(super) fn is_number(self) -> bool {
        matches!(self, Reference::Number { .. })
    }

    /// Returns whether it is a number that ends before `byte` without a semicolon. Parsers accept that (HTML
    /// 13.2.5.80).
    pub(super) fn ends_before(self, byte: u8) -> bool {
        matches!(self, Reference::Number { radix, digits: 1.., .. } if !char::from(byte).is_digit(radix))
    }
}

/// The names that have `byte` after their common beginning.
fn named(from: usize, to: usize, length: usize, byte: u8) -> Option<Reference> {
    let names = NAMES.get(from..to)?;
    let at = |name: &str| name.as_bytes().get(length).copied();
    let first = names.partition_point(|(name, _)| at(name) < Some(byte));
    let count = names[first..].partition_point(|(name, _)| at(name) == Some(byte));
    let (from, to) = (from + first, from + first + count);
    (count > 0).then_some(Reference::Name { from, to, length: length + 1 })
}

fn number(value: u32, radix: u32, digits: u8, byte: u8) -> Option<Reference> {
    let value = value * radix + char::from(byte).to_digit(radix)?;
    (value <= LAST && digits < MAX_DIGITS).then_some(Reference::Number { value, radix, digits: digits + 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Character> {
        text.bytes().try_fold(Reference::new(), Reference::with).and_then(Reference::character)
    }

    #[test]
    fn entity_table_is_sorted_and_within_the_bound() {
        assert!(NAMES.len() > 500);
        assert_eq!(NAMES.len(), include_str!("entities.txt").lines().count());
        assert!(NAMES.is_sorted_by(|(one, _), (next, _)| one < next));
        assert!(NAMES.iter().all(|(name, _)| name.len() <= MAX_ENTITY));
        for (name, code) in NAMES.iter() {
            assert_eq!(read(name), Character::of(*code), "{name}");
        }
    }

    #[test]
    fn entity_numbers_are_bounded() {
        let s = Character::of(0x73);
        for text in ["#115", "#x73", "#X73", "#0000115", "#x00000000000073", "#00000000000115"] {
            assert_eq!(read(text), s, "{text}");
        }
        for text in ["#", "#x", "", "#x000000000000073", "#x110000", "#99999999999", "am", "amp0", "#1x"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
