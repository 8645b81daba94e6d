//! Finds spellings of values in all readings of a text.

use onecli_model::ValueClass;

use super::anchors::Anchors;
use super::edges;
use super::hold::{LookaheadLengths, Tail};
use super::reading::{Character, Decoding, EscapedText, is_introducer, is_plain};
use super::spelling::Needle;

/// Longest character, in bytes.
const MAX_CHARACTER: usize = 4;
/// Number of read lengths that are followed in parallel.
const RING: usize = MAX_CHARACTER + 1;

/// The spellings to search for. Variations by escapes and line breaks are not listed in them.
#[derive(Default, Clone)]
pub(crate) struct Needles {
    /// The needles without duplicates, sorted by their bytes.
    sorted: Vec<Needle>,
    /// For each byte, the number of needles that begin with a lower byte; empty without needles.
    lower: Vec<usize>,
    /// Bits by the first and second byte of a text. No needle begins at a pair whose bit is clear. Empty without
    /// needles.
    pairs: Vec<[u64; 4]>,
    /// Indices in `sorted`, ordered by the needles' lengths.
    by_length: Vec<usize>,
    lookahead: LookaheadLengths,
    anchors: Anchors,
}

/// A match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Match {
    /// Includes the characters before the needle that contain bits of the value.
    pub(super) start: usize,
    pub(super) end: usize,
    /// The part to mask after the end of the text.
    pub(super) tail: Tail,
}

impl Needles {
    /// Adds needles, without duplicates.
    pub(crate) fn extend(&mut self, needles: impl IntoIterator<Item = Needle>) {
        for needle in needles {
            self.lookahead.add(needle.class());
            self.note_beginning(&needle.bytes);
            self.anchors.add(&needle.bytes, needle.class().alphabet);
            self.sorted.push(needle);
        }
        self.sort();
    }

    /// Lets bytes wait for values of this class, even if no such value is known.
    pub(crate) fn watch_for(&mut self, class: ValueClass) {
        self.lookahead.add(class);
    }

    /// Returns the union of both sets.
    pub(crate) fn joined(&self, others: &Needles) -> Needles {
        let mut all = self.clone();
        all.lookahead = all.lookahead.and(others.lookahead);
        all.extend(others.sorted.iter().cloned());
        all
    }

    /// Returns whether a search for `others` finds every match that a search for these needles finds, and holds every
    /// byte that it holds.
    pub(crate) fn is_within(&self, others: &Needles) -> bool {
        others.lookahead.and(self.lookahead) == others.lookahead
            && self.sorted.iter().all(|own| others.has(own))
    }

    fn has(&self, needle: &Needle) -> bool {
        let place = self.sorted.binary_search_by(|own| own.bytes.as_slice().cmp(needle.bytes.as_slice()));
        let own = place.ok().and_then(|place| self.sorted.get(place));
        own.is_some_and(|own| own.tail >= needle.tail && own.lead >= needle.lead)
    }

    /// The number of bytes in all needles.
    pub(crate) fn bytes(&self) -> usize {
        self.sorted.iter().map(Needle::len).sum()
    }

    /// The classes of all needles' values.
    pub(super) fn lookahead(&self) -> LookaheadLengths {
        self.lookahead
    }

    fn sort(&mut self) {
        // Of needles with equal bytes, the one with the longest tail comes first.
        self.sorted
            .sort_unstable_by(|a, b| a.bytes.as_slice().cmp(b.bytes.as_slice()).then(b.tail.cmp(&a.tail)));
        self.sorted.dedup_by(|later, kept| {
            let is_same = later.bytes == kept.bytes;
            if is_same {
                kept.lead = kept.lead.max(later.lead);
            }
            is_same
        });
        let below = |first| self.sorted.partition_point(|needle| usize::from(needle.bytes[0]) < first);
        self.lower = (0..=256).map(below).collect();
        self.by_length = (0..self.sorted.len()).collect();
        self.by_length.sort_unstable_by_key(|place| self.sorted[*place].bytes.len());
    }

    /// Adds a needle, which must not be empty, to the pairs.
    fn note_beginning(&mut self, needle: &[u8]) {
        const ALL: [u64; 4] = [u64::MAX; 4];
        /// The bytes that are not [`is_plain`]. After them, the needle's second byte may follow in another spelling,
        /// or on the next line.
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

    /// Returns whether a needle may begin with these two bytes of a text, in some reading.
    fn may_begin(&self, first: u8, second: u8) -> bool {
        let second = usize::from(second);
        self.pairs.get(usize::from(first)).is_some_and(|bits| bits[second / 64] >> (second % 64) & 1 == 1)
    }

    /// The next position, from `at` on, at which a needle may begin.
    fn next_beginning(&self, haystack: &[u8], at: usize) -> Option<usize> {
        let rest = haystack.get(at..)?;
        let found = rest.windows(2).position(|pair| self.may_begin(pair[0], pair[1]));
        // The byte after the last one is not known yet.
        found.or(rest.len().checked_sub(1)).map(|next| at + next)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.sorted.is_empty()
    }

    /// Returns whether this lower-case text contains a needle, ignoring case.
    pub(super) fn is_in_lower_case(&self, text: &[u8]) -> bool {
        let needles = self.by_length.iter().map(|place| self.sorted[*place].bytes.as_slice());
        let is_in = |needle: &[u8]| text.windows(needle.len()).any(|part| part.eq_ignore_ascii_case(needle));
        needles.take_while(|needle| needle.len() <= text.len()).any(is_in)
    }

    /// Returns whether this text contains the end of a needle. See [`Anchors`].
    pub(crate) fn is_end_in(&self, text: &[u8]) -> bool {
        !self.is_empty() && !self.anchors.find(&EscapedText::new(text)).is_nothing()
    }

    /// Returns whether this text contains a needle, in any spelling, or in lower case as in the name of a header
    /// field.
    pub(crate) fn is_in(&self, text: &[u8]) -> bool {
        !self.find(&EscapedText::new(text)).is_empty() || self.is_in_lower_case(text)
    }

    /// The starts of all matches, including the preceding characters that contain bits of the value.
    pub(crate) fn places(&self, text: &EscapedText<'_>) -> Vec<usize> {
        self.find(text).iter().map(|found| found.start).collect()
    }

    /// All matches, including overlapping ones.
    pub(super) fn find(&self, text: &EscapedText<'_>) -> Vec<Match> {
        self.search(text).0
    }

    /// All matches, and the ends of needles that belong to no match.
    pub(super) fn search(&self, text: &EscapedText<'_>) -> (Vec<Match>, Vec<usize>) {
        if self.is_empty() {
            return Default::default();
        }
        let found = self.anchors.find(text);
        if found.is_nothing() {
            return Default::default();
        }
        let matches = self.follow_all(text);
        let mut ends = found.ends;
        ends.retain(|end| !matches.iter().any(|found| (found.start..=found.end).contains(end)));
        (matches, ends)
    }

    /// Finds all matches without checking for ends of needles first. The time grows with the agreement between text
    /// and needles.
    fn follow_all(&self, text: &EscapedText<'_>) -> Vec<Match> {
        let mut matches: Vec<Match> = Vec::new();
        let mut idle = vec![false; text.ways()];
        let mut search =
            Search { needles: &self.sorted, text, heads: Default::default(), best: None, lead: 0 };
        let mut next = 0;
        while let Some(at) = self.next_beginning(text.raw(), next) {
            next = at + 1;
            // Most readings of an introducer begin no needle. This is determined once for each.
            let idle = text.way(at).and_then(|way| idle.get_mut(way));
            if idle.as_ref().is_some_and(|idle| **idle) {
                continue;
            }
            let begins = self.follow(&mut search, at);
            if let Some(idle) = idle {
                *idle = !begins;
            }
            // A backslash before a value may be read as part of it. That is still the same match.
            let beyond = matches.last().map_or((Tail::NONE, 0), |found| (found.tail, found.end));
            let lead = std::mem::take(&mut search.lead);
            if let Some((tail, end)) = search.best.take().filter(|best| *best > beyond) {
                matches.push(Match { start: edges::beginning(text, at, lead), end, tail });
            }
        }
        matches
    }

    /// Follows all needles from `start` on. Returns whether any needle begins with a reading of the text there.
    fn follow(&self, search: &mut Search<'_, '_>, start: usize) -> bool {
        let byte = search.text.raw()[start];
        if !is_introducer(byte) {
            let range = self.beginning_with(byte);
            search.follow(range, start + 1);
            return !range.is_empty();
        }
        search.heads.iter_mut().for_each(Vec::clear);
        let mut begins = false;
        for reading in search.text.readings(start) {
            let range = self.beginning_with(reading.character.as_bytes()[0]);
            begins |= !range.is_empty();
            search.enter(range, 0, reading);
        }
        search.branch(1);
        begins
    }

    fn beginning_with(&self, byte: u8) -> Range {
        let first = usize::from(byte);
        match self.lower.get(first..first + 2) {
            Some(&[from, to]) => Range { from, to },
            _ => Range { from: 0, to: 0 },
        }
    }
}

/// Needles with the same beginning, as a range of indices.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Range {
    from: usize,
    to: usize,
}

impl Range {
    fn is_empty(self) -> bool {
        self.from >= self.to
    }
}

/// Follows all needles in parallel through the readings of a text.
struct Search<'t, 'b> {
    needles: &'t [Needle],
    text: &'t EscapedText<'b>,
    /// The positions that matching readings have reached, with their needles, by the number of bytes read. A text
    /// with several readings has several positions. The array is a ring, because a character has up to four bytes.
    heads: [Vec<(usize, Range)>; RING],
    /// The match that masks the most bytes.
    best: Option<(Tail, usize)>,
    /// The largest number of bytes before a match that contain bits of the value.
    lead: usize,
}

impl Search<'_, '_> {
    /// Continues after the first byte, which all needles in `range` share.
    fn follow(&mut self, mut range: Range, mut at: usize) {
        let (raw, mut read) = (self.text.raw(), 1);
        // Most bytes of most texts have one reading.
        loop {
            range = self.complete(range, at, read);
            if range.is_empty() {
                return;
            }
            let Some(byte) = raw.get(at).filter(|byte| is_plain(**byte)) else { break };
            range = self.narrow(range, read, *byte);
            (at, read) = (at + 1, read + 1);
        }
        if at < raw.len() {
            self.heads.iter_mut().for_each(Vec::clear);
            self.heads[read % RING].push((at, range));
            self.branch(read);
        }
    }

    /// Continues from all heads; none of them has read fewer than `read` bytes.
    fn branch(&mut self, mut read: usize) {
        while !self.heads.iter().all(Vec::is_empty) {
            let now = std::mem::take(&mut self.heads[read % RING]);
            for &(head, range) in &now {
                let range = self.complete(range, head, read);
                if !range.is_empty() {
                    self.step(range, read, head);
                }
            }
            // The vector is put back so that its allocation is reused.
            self.heads[read % RING] = now;
            self.heads[read % RING].clear();
            read += 1;
        }
    }

    /// Reads at `head`: a character, or a line break and a character.
    fn step(&mut self, range: Range, read: usize, head: usize) {
        let text = self.text;
        text.readings(head).for_each(|reading| self.enter(range, read, reading));
        if text.raw().get(head).is_some_and(|byte| !is_plain(*byte)) {
            // A wrapped value may contain one break in a row. An empty line ends an event, a head, or a block.
            let mut behind = Vec::new();
            text.line_breaks(head, &mut behind);
            for head in behind {
                text.readings(head).for_each(|reading| self.enter(range, read, reading));
            }
        }
    }

    /// Records the first needle if it is complete; the other needles continue.
    fn complete(&mut self, range: Range, at: usize, read: usize) -> Range {
        match self.needles.get(range.from) {
            Some(needle) if !range.is_empty() && needle.bytes.len() == read => {
                let (end, tail) = needle.tail.follow(self.text, at);
                self.best = self.best.max(Some((tail, end)));
                self.lead = self.lead.max(needle.lead);
                Range { from: range.from + 1, ..range }
            }
            _ => range,
        }
    }

    /// Adds a head after this character, with the needles that continue with it.
    fn enter(&mut self, range: Range, read: usize, reading: Decoding) {
        let range = self.narrow_by(range, read, reading.character);
        let next = &mut self.heads[(read + reading.character.as_bytes().len()) % RING];
        if !range.is_empty() && !next.contains(&(reading.end, range)) {
            next.push((reading.end, range));
        }
    }

    fn narrow_by(&self, range: Range, read: usize, character: Character) -> Range {
        let bytes = character.as_bytes().iter().enumerate();
        bytes.fold(range, |range, (more, byte)| self.narrow(range, read + more, *byte))
    }

    /// The needles of `range` that continue with `byte` after the `read` bytes that they share.
    fn narrow(&self, range: Range, read: usize, byte: u8) -> Range {
        let needles = &self.needles[range.from..range.to.max(range.from)];
        let at = |needle: &Needle| needle.bytes.get(read).copied();
        if let [one] = needles {
            return if at(one) == Some(byte) { range } else { Range { to: range.from, ..range } };
        }
        let from = needles.partition_point(|needle| at(needle) < Some(byte));
        let length = needles[from..].partition_point(|needle| at(needle) == Some(byte));
        Range { from: range.from + from, to: range.from + from + length }
    }
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;

    #[test]
    fn no_needle_begins_at_an_unrecorded_pair() {
        let mut needles = Needles::default();
        let needle = |text: &str| Needle::new(Zeroizing::new(text.into()), ValueClass::ISSUED).unwrap();
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
