//! Finds where a text may contain a match, in time that depends on the text only.
//!
//! Following a needle takes longer the further the text agrees with it. An agent that chooses the text could measure
//! how good its guess is. So needles are followed only in a text that contains the end of a needle, its last 24
//! decoded bytes. An agent cannot write those without knowing them, and shorter agreement changes nothing here. An
//! end without a match raises an alert (`http/returned`), as a match does. A random key selects the positions in the
//! table, so an agent cannot construct a text with collisions either.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};

use onecli_model::Alphabet;

use super::hold::goes_on;
use super::reading::{EscapedText, is_plain};

/// Decoded bytes at the end of a needle that a text must contain. For a shorter needle they are all of its bytes,
/// except up to three. In hex and in UTF-16 these are 12 bytes of the value.
const ANCHOR: usize = 24;
/// Maximum number of needle ends that are recorded in one text.
const MAX_ENDS: usize = 64;
/// Maximum number of readings of the last bytes that are followed in parallel. If a text has more, its needles are
/// followed.
const MAX_WAYS: usize = 32;
/// Number of plain bytes after which equal ways are merged again.
const MERGE_EVERY: usize = 16;
/// Number of bits in the index of a table bit.
const TABLE_BITS: u32 = 16;

/// The ends of all needles.
#[derive(Clone, Default)]
pub(super) struct Anchors {
    random: RandomState,
    key: u64,
    /// One bit for each end; in most texts no lookup finds a set bit.
    table: Vec<u64>,
    /// Keyed hashes of the ends, sorted.
    ends: Vec<u64>,
    /// The lengths of the ends, at most [`ANCHOR`].
    lengths: Vec<usize>,
    /// Set if one of the needles is a text, which may contain any byte.
    has_texts: bool,
}

/// The last decoded bytes of one reading of a text. A byte that no needle may contain resets them.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
struct Way {
    /// The last 16 bytes, with the newest in the lowest byte.
    last: u128,
    /// The eight bytes before them.
    older: u64,
    /// Set after a line break since the last byte. One line break is allowed, two are not.
    broken: bool,
}

impl Way {
    fn with(self, bytes: &[u8]) -> Way {
        bytes.iter().fold(self, |way, byte| {
            let [oldest, ..] = way.last.to_be_bytes();
            Way {
                last: way.last << 8 | u128::from(*byte),
                older: way.older << 8 | u64::from(oldest),
                broken: false,
            }
        })
    }

    /// The last `length` bytes.
    fn end(self, length: usize) -> (u128, u64) {
        let bits = 8 * length.min(ANCHOR);
        match bits.checked_sub(128) {
            None => (self.last & (u128::MAX >> (128 - bits.max(1))), 0),
            Some(0) => (self.last, 0),
            Some(more) => (self.last, self.older & (u64::MAX >> (64 - more))),
        }
    }
}

/// Length of a needle's end that is compared. Only few different lengths exist, because each is checked at every
/// byte.
fn anchor_length(needle: usize) -> usize {
    let length = needle.min(ANCHOR);
    if length > 16 { length / 4 * 4 } else { length }
}

/// The result of a search.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// The positions after the ends of needles; at most [`MAX_ENDS`].
    pub(super) ends: Vec<usize>,
    /// Set if there are too many readings to decide.
    pub(super) is_unclear: bool,
}

impl Found {
    /// Returns whether there can be no match.
    pub(super) fn is_nothing(&self) -> bool {
        self.ends.is_empty() && !self.is_unclear
    }
}

impl Anchors {
    /// Adds the end of a needle, which must not be empty.
    pub(super) fn add(&mut self, needle: &[u8], alphabet: Alphabet) {
        self.has_texts |= alphabet == Alphabet::Text;
        if self.table.is_empty() {
            self.key = self.random.hash_one(0) | 1;
            self.table.resize(1 << (TABLE_BITS - 6), 0);
        }
        let length = anchor_length(needle.len());
        let end = Way::default().with(&needle[needle.len() - length..]).end(length);
        let (word, bit) = self.place(end, length);
        self.table[word] |= bit;
        let hash = self.hash(end, length);
        if let Err(place) = self.ends.binary_search(&hash) {
            self.ends.insert(place, hash);
        }
        if !self.lengths.contains(&length) {
            self.lengths.push(length);
        }
    }

    /// Finds the ends of needles in any reading of the text. Without one, the text contains no needle.
    pub(super) fn find(&self, text: &EscapedText<'_>) -> Found {
        let mut ways = Ways {
            anchors: self,
            text,
            here: vec![Way::default()],
            later: BTreeMap::new(),
            at: 0,
            found: Found::default(),
        };
        while ways.at < text.raw().len() && !ways.found.is_unclear {
            ways.pass_plain_bytes();
            ways.pass_one_byte();
        }
        ways.found
    }

    /// Returns the way after these bytes. Bytes before one outside the alphabet belong to no match, so ways that
    /// differ only in those are merged. As a result, most escapes create no second way.
    fn follow(&self, way: Way, bytes: &[u8]) -> Way {
        let is_within = self.has_texts || bytes.iter().all(|byte| goes_on(Alphabet::Token, *byte));
        if is_within { way.with(bytes) } else { Way::default() }
    }

    /// Returns whether this way now ends with the end of a needle.
    fn is_end(&self, way: Way) -> bool {
        self.lengths.iter().any(|&length| {
            let end = way.end(length);
            let (word, bit) = self.place(end, length);
            self.table[word] & bit != 0 && self.ends.binary_search(&self.hash(end, length)).is_ok()
        })
    }

    fn place(&self, (last, older): (u128, u64), length: usize) -> (usize, u64) {
        let [low, high] = halves(last);
        let high =
            (high ^ older.rotate_left(17).wrapping_mul(self.key)).rotate_left(29).wrapping_mul(self.key);
        let mixed = (low ^ high ^ u64::try_from(length).unwrap_or(0)).wrapping_mul(self.key);
        let number = usize::try_from(mixed >> (64 - TABLE_BITS)).unwrap_or(0);
        (number / 64, 1 << (number % 64))
    }

    fn hash(&self, end: (u128, u64), length: usize) -> u64 {
        self.random.hash_one((end, length))
    }
}

fn halves(number: u128) -> [u64; 2] {
    let bytes = number.to_le_bytes();
    [0, 8].map(|from| u64::from_le_bytes(std::array::from_fn(|at| bytes[from + at])))
}

/// Scans a text in all readings in parallel.
struct Ways<'w, 't> {
    anchors: &'w Anchors,
    text: &'w EscapedText<'t>,
    /// The ways that have reached `at`. The way that reads each byte as itself is always among them.
    here: Vec<Way>,
    /// The ways that are further ahead because of an escape.
    later: BTreeMap<usize, Vec<Way>>,
    at: usize,
    found: Found,
}

impl Ways<'_, '_> {
    /// Records `at` if the way there is the end of a needle.
    fn note(&mut self, way: Way, at: usize) {
        if self.anchors.is_end(way) && self.found.ends.len() < MAX_ENDS && self.found.ends.last() != Some(&at)
        {
            self.found.ends.push(at);
        }
    }

    /// Skips bytes that have one reading.
    fn pass_plain_bytes(&mut self) {
        let raw = self.text.raw();
        let mut passed = 0;
        while self.later.is_empty()
            && let Some(byte) = raw.get(self.at).filter(|byte| is_plain(**byte))
        {
            self.at += 1;
            for place in 0..self.here.len() {
                let way = self.anchors.follow(self.here[place], &[*byte]);
                self.here[place] = way;
                self.note(way, self.at);
            }
            passed += 1;
            if passed % MERGE_EVERY == 0 && self.here.len() > 1 {
                merge(&mut self.here);
            }
        }
    }

    /// Processes one byte in all its readings.
    fn pass_one_byte(&mut self) {
        let text = self.text;
        let at = self.at;
        let Some(byte) = text.raw().get(at) else { return };
        let mut breaks = Vec::new();
        if !is_plain(*byte) {
            text.line_breaks(at, &mut breaks);
        }
        for way in std::mem::take(&mut self.here) {
            for reading in text.readings(at) {
                let next = self.anchors.follow(way, reading.character.as_bytes());
                self.note(next, reading.end);
                self.go_on(next, reading.end);
            }
            for &behind in breaks.iter().filter(|_| !way.broken) {
                self.go_on(Way { broken: true, ..way }, behind);
            }
        }
        self.at += 1;
        self.here = self.later.remove(&self.at).unwrap_or_default();
    }

    /// Adds a way that continues at `at`.
    fn go_on(&mut self, way: Way, at: usize) {
        let ways = self.later.entry(at).or_default();
        if !ways.contains(&way) {
            ways.push(way);
        }
        self.found.is_unclear |= ways.len() > MAX_WAYS;
    }
}

/// Merges ways with the same last bytes.
fn merge(ways: &mut Vec<Way>) {
    let mut at = 1;
    while at < ways.len() {
        if ways[..at].contains(&ways[at]) {
            ways.swap_remove(at);
        } else {
            at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn anchors(needles: &[&[u8]], alphabet: Alphabet) -> Anchors {
        let mut anchors = Anchors::default();
        for needle in needles {
            anchors.add(needle, alphabet);
        }
        anchors
    }

    fn may_be_in(needle: &str, text: &str) -> bool {
        !anchors(&[needle.as_bytes()], Alphabet::Token).find(&EscapedText::new(text.as_bytes())).is_nothing()
    }

    #[test]
    fn only_the_complete_end_of_a_needle_matches() {
        let needle = "sk-proj-ghijklmn0123456789abcdef";
        for beginning in 0..needle.len() {
            assert!(!may_be_in(needle, &needle[..beginning]), "{beginning}");
        }
        assert!(!may_be_in(needle, "hijklmn0123456789abcdef"), "one byte less than counts");
        for text in ["89abcdef", "0x89abcdef 01234567\n\n89abcdef", "%300123456789abcde"] {
            assert!(!may_be_in(needle, text), "{text}");
        }
        for text in [
            "89abcdef",
            "\n89abcdef",
            "\r\n89abcdef",
            "\\u00389abcdef",
            "%38%39abcd&#x65;f",
            "\\\\u00389abcdef",
        ] {
            assert!(may_be_in(needle, &format!("x ghijklmn01234567{text} y")), "{text}");
        }
    }

    #[test]
    fn every_needle_end_is_found() {
        let anchors = anchors(&[b"sk-proj-ghijklmn0123456789abcdef", b"12345678"], Alphabet::Token);
        let end = "ghijklmn0123456789abcdef ".repeat(3);
        let found = anchors.find(&EscapedText::new(end.as_bytes()));
        assert_eq!(found, Found { ends: vec![17, 24, 42, 49, 67, 74], is_unclear: false });
        let many = anchors.find(&EscapedText::new(end.repeat(100).as_bytes()));
        assert_eq!((many.ends.len(), many.is_unclear), (MAX_ENDS, false));
    }

    #[test]
    fn short_needles_must_match_completely() {
        let anchors = anchors(&[b"12345678", b"abcdefghijk"], Alphabet::Token);
        let may_be_in = |text: &str| !anchors.find(&EscapedText::new(text.as_bytes())).is_nothing();
        assert!(may_be_in("x12345678x") && may_be_in("abcdefghijk"));
        assert!(!may_be_in("x2345678x") && !may_be_in("bcdefghijk"));
    }

    proptest! {
        /// A needle in a text is noticed in any spelling of its characters.
        #[test]
        fn needle_in_any_spelling_is_noticed(
            needle in "[a-zA-Z0-9%&._-]{8,40}",
            spelt in prop::collection::vec(0_usize..7, 40),
            before in "[a-z%&\\\\ \n]{0,9}",
        ) {
            let spell = |(c, how): (char, &usize)| match how {
                0 | 1 => c.to_string(),
                2 => format!("%{:02x}", u32::from(c)),
                3 => format!("\\u{:04X}", u32::from(c)),
                4 => format!("&#{};", u32::from(c)),
                5 => format!("\\{:03o}", u32::from(c)),
                _ => format!("\n{c}"),
            };
            let text: String = before + &needle.chars().zip(&spelt).map(spell).collect::<String>();
            for alphabet in [Alphabet::Text, Alphabet::Token] {
                let is_of = needle.bytes().all(|byte| alphabet.contains(byte) || byte == b'%');
                let anchors = anchors(&[needle.as_bytes()], alphabet);
                prop_assert!(!is_of || !anchors.find(&EscapedText::new(text.as_bytes())).is_nothing(), "{text}");
            }
        }
    }
}
