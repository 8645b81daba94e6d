//! Finds spellings of values in every reading of a text.

use memchr::memmem;
use zeroize::Zeroizing;

use super::reading::{Reading, Text, is_introducer, is_plain};
use super::spelling::Needle;

/// Longest character, in bytes.
const MAX_CHARACTER: usize = 4;

/// What to look for: spellings that vary by escapes and line breaks alone.
#[derive(Default, Clone)]
pub(in crate::http) struct Needles {
    /// In the order of their bytes.
    sorted: Vec<Needle>,
    /// How many begin with a lower byte than this one; empty without needles.
    lower: Vec<usize>,
    /// Bits by first and second byte of a text: where none is set, no needle begins. Empty without needles.
    pairs: Vec<[u64; 4]>,
}

/// What was found in some bytes.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Matches, as start and end, by their start.
    pub(super) matches: Vec<(usize, usize)>,
    /// From here on the bytes may be the beginning of a match.
    pub(super) open_from: usize,
}

impl Needles {
    /// Adds needles. Those that are there already count once.
    pub(in crate::http) fn extend(&mut self, needles: impl IntoIterator<Item = Needle>) {
        for needle in needles.into_iter().filter(|needle| !needle.is_empty()) {
            self.note_beginning(&needle);
            self.sorted.push(needle);
        }
        self.sorted.sort_unstable_by(|a, b| a.as_slice().cmp(b.as_slice()));
        self.sorted.dedup();
        self.lower = (0..=256)
            .map(|first| self.sorted.partition_point(|needle| usize::from(needle[0]) < first))
            .collect();
    }

    /// Adds a needle, which is not empty, to the pairs.
    fn note_beginning(&mut self, needle: &[u8]) {
        const ALL: [u64; 4] = [u64::MAX; 4];
        /// What is not [`is_plain`]: the needle's second byte may follow in another spelling, or on the next line.
        const OTHERWISE: [u8; 5] = *b"%\\&\r\n";
        if self.pairs.is_empty() {
            self.pairs.resize(256, [0; 4]);
            for introducer in OTHERWISE.into_iter().filter(|byte| is_introducer(*byte)) {
                self.pairs[usize::from(introducer)] = ALL;
            }
        }
        let row = &mut self.pairs[usize::from(needle[0])];
        match needle.get(1) {
            None => *row = ALL,
            Some(second) => {
                for second in OTHERWISE.iter().chain([second]) {
                    row[usize::from(second / 64)] |= 1 << (second % 64);
                }
            }
        }
    }

    /// May a needle begin with these two bytes of a text, read in some way?
    fn may_begin(&self, first: u8, second: u8) -> bool {
        let second = usize::from(second);
        self.pairs.get(usize::from(first)).is_some_and(|bits| bits[second / 64] >> (second % 64) & 1 == 1)
    }

    /// Where the next needle may begin, from `at` on.
    fn next_beginning(&self, haystack: &[u8], at: usize) -> Option<usize> {
        let rest = haystack.get(at..)?;
        let found = rest.windows(2).position(|pair| self.may_begin(pair[0], pair[1]));
        // Of the last byte nobody knows what comes next.
        found.or(rest.len().checked_sub(1)).map(|next| at + next)
    }

    pub(in crate::http) fn is_empty(&self) -> bool {
        self.sorted.is_empty()
    }

    /// Is one in this text, which is in lower case? Compared without regard to case.
    pub(super) fn is_in_lower_case(&self, text: &[u8]) -> bool {
        self.sorted.iter().any(|needle| {
            text.len() >= needle.len()
                && memmem::find(text, &Zeroizing::new(needle.to_ascii_lowercase())).is_some()
        })
    }

    /// Is one in this text, in whatever spelling, or in lower case as in the name of a header field?
    pub(in crate::http) fn is_in(&self, text: &[u8]) -> bool {
        !self.find(text).matches.is_empty() || self.is_in_lower_case(text)
    }

    /// Every match, wherever it begins, overlapping ones too.
    pub(super) fn find(&self, haystack: &[u8]) -> Findings {
        let mut findings = Findings { matches: Vec::new(), open_from: haystack.len() };
        if self.is_empty() {
            return findings;
        }
        let text = Text::new(haystack);
        let mut idle = vec![false; text.ways()];
        let mut search = Search { haystack, text: &text, heads: Default::default(), cut: false };
        let mut next = 0;
        while let Some(at) = self.next_beginning(haystack, next) {
            next = at + 1;
            let byte = &haystack[at];
            let mut end = None;
            search.cut = false;
            if is_introducer(*byte) {
                // Most ways to read one begin no needle, and are complete: that is found once for each.
                let idle = text.way(at).and_then(|way| idle.get_mut(way));
                if idle.as_ref().is_some_and(|idle| **idle) {
                    continue;
                }
                search.cut = text.is_cut(at);
                let mut begins = false;
                let first_of = |reading: Reading| reading.character.as_bytes()[0];
                for (place, first) in text.readings(at).map(first_of).enumerate() {
                    let needles = self.beginning_with(first);
                    begins |= !needles.is_empty();
                    if !needles.is_empty() && !text.readings(at).take(place).any(|r| first_of(r) == first) {
                        for needle in needles {
                            end = end.max(search.follow(needle, at));
                        }
                    }
                }
                if let Some(idle) = idle {
                    *idle = !begins && !search.cut;
                }
            } else {
                for needle in self.beginning_with(*byte) {
                    end = end.max(search.follow(needle, at));
                }
            }
            // A backslash before a value may be read as part of it: that is the same match, not a second one.
            let beyond = findings.matches.last().map_or(0, |(_, end)| *end);
            findings.matches.extend(end.filter(|end| *end > beyond).map(|end| (at, end)));
            if search.cut {
                findings.open_from = findings.open_from.min(at);
            }
        }
        findings
    }

    fn beginning_with(&self, byte: u8) -> &[Needle] {
        let first = usize::from(byte);
        match self.lower.get(first..first + 2) {
            Some(&[from, to]) => &self.sorted[from..to],
            _ => &[],
        }
    }
}

/// Follows a needle through the readings of a text.
struct Search<'t, 'b> {
    haystack: &'b [u8],
    text: &'t Text<'b>,
    /// Where the readings that agree so far have got to, by how much of the needle they have read: several, where a
    /// text can be read in several ways. A ring, as a character is some bytes at once.
    heads: [Vec<usize>; MAX_CHARACTER + 1],
    /// Whether more bytes might make a match of what was followed.
    cut: bool,
}

impl Search<'_, '_> {
    /// The end of the longest match that begins at `start`.
    fn follow(&mut self, needle: &[u8], start: usize) -> Option<usize> {
        // Most bytes of most texts have one reading.
        let plain = needle
            .iter()
            .zip(self.haystack.get(start..)?)
            .take_while(|(wanted, byte)| is_plain(**byte) && wanted == byte);
        let read = plain.count();
        if read == needle.len() {
            return Some(start + read);
        }
        if self.haystack.get(start + read).is_some_and(|byte| is_plain(*byte)) {
            return None;
        }
        self.heads.iter_mut().for_each(Vec::clear);
        self.heads[read % (MAX_CHARACTER + 1)].push(start + read);
        for read in read..needle.len() {
            let now = std::mem::take(&mut self.heads[read % (MAX_CHARACTER + 1)]);
            for &head in &now {
                self.step(&needle[read..], read, head);
                if read > 0 && self.haystack.get(head).is_none_or(|byte| !is_plain(*byte)) {
                    // One break may be within a wrapped value; an empty line ends an event, a head, a block.
                    let mut behind = Vec::new();
                    self.text.line_breaks(head, &mut behind);
                    for head in behind {
                        self.step(&needle[read..], read, head);
                    }
                }
            }
            // The place is kept for its memory.
            self.heads[read % (MAX_CHARACTER + 1)] = now;
            self.heads[read % (MAX_CHARACTER + 1)].clear();
            if self.heads.iter().all(Vec::is_empty) {
                return None;
            }
        }
        self.heads[needle.len() % (MAX_CHARACTER + 1)].iter().copied().max()
    }

    /// Reads the character at `head`, where it is what `rest` begins with.
    fn step(&mut self, rest: &[u8], read: usize, head: usize) {
        self.cut |= self.text.is_cut(head);
        for reading in self.text.readings(head) {
            let bytes = reading.character.as_bytes();
            // Most differ in the first byte, and have no other.
            if rest.first() == bytes.first() && (bytes.len() == 1 || rest.starts_with(bytes)) {
                let next = &mut self.heads[(read + bytes.len()) % (MAX_CHARACTER + 1)];
                if !next.contains(&reading.end) {
                    next.push(reading.end);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn nothing_begins_where_no_pair_is_noted() {
        let mut needles = Needles::default();
        let needle = |text: &str| Arc::new(Zeroizing::new(text.as_bytes().to_vec()));
        needles.extend(["ab", "ac", "z", "%q"].map(needle));
        for first in 0..=255 {
            for second in 0..=255 {
                let begins = is_introducer(first)
                    || first == b'z'
                    || (first == b'a' && (matches!(second, b'b' | b'c') || !is_plain(second)));
                assert_eq!(needles.may_begin(first, second), begins, "{first} {second}");
            }
        }
        assert_eq!(needles.next_beginning(b"xxaxxab", 0), Some(5));
        assert_eq!(needles.next_beginning(b"xxa", 0), Some(2), "the last byte");
        assert_eq!(needles.next_beginning(b"xxa", 3), None);
    }
}
