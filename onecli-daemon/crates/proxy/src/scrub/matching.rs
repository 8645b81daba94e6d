//! Finds spellings of values in every reading of a text.

use onecli_model::ValueClass;

use super::anchors::Anchors;
use super::edges;
use super::hold::{Tail, Watched};
use super::reading::{Character, Reading, Text, is_introducer, is_plain};
use super::spelling::Needle;

/// Longest character, in bytes.
const MAX_CHARACTER: usize = 4;
/// How many lengths of what was read so far are looked at side by side.
const RING: usize = MAX_CHARACTER + 1;

/// What to look for: spellings that vary by escapes and line breaks alone.
#[derive(Default, Clone)]
pub(crate) struct Needles {
    /// In order of their bytes, none twice, once they are sorted.
    sorted: Vec<Needle>,
    /// How many begin with a lower byte than this one; empty without needles.
    lower: Vec<usize>,
    /// Bits by first and second byte of a text: where none is set, no needle begins. Empty without needles.
    pairs: Vec<[u64; 4]>,
    /// The places in `sorted`, in order of the needles' lengths.
    by_length: Vec<usize>,
    watched: Watched,
    anchors: Anchors,
}

/// A match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Match {
    /// With the characters before the needle that hold bits of the value.
    pub(super) start: usize,
    pub(super) end: usize,
    /// What is left to be masked behind the end of the text.
    pub(super) tail: Tail,
}

impl Needles {
    /// Adds needles. Those that are there already count once.
    pub(crate) fn extend(&mut self, needles: impl IntoIterator<Item = Needle>) {
        for needle in needles {
            self.watched.add(needle.class());
            self.note_beginning(&needle.bytes);
            self.anchors.add(&needle.bytes, needle.class().alphabet);
            self.sorted.push(needle);
        }
        self.sort();
    }

    /// Has bytes wait for values of this class, although none may be known.
    pub(crate) fn watch_for(&mut self, class: ValueClass) {
        self.watched.add(class);
    }

    /// All needles of both.
    pub(crate) fn joined(&self, others: &Needles) -> Needles {
        let mut all = self.clone();
        all.watched = all.watched.and(others.watched);
        all.extend(others.sorted.iter().cloned());
        all
    }

    /// Does a search for `others` find all that a search for these finds, and hold all that it holds?
    pub(crate) fn is_within(&self, others: &Needles) -> bool {
        others.watched.and(self.watched) == others.watched && self.sorted.iter().all(|own| others.has(own))
    }

    fn has(&self, needle: &Needle) -> bool {
        let place = self.sorted.binary_search_by(|own| own.bytes.as_slice().cmp(needle.bytes.as_slice()));
        let own = place.ok().and_then(|place| self.sorted.get(place));
        own.is_some_and(|own| own.tail >= needle.tail && own.lead >= needle.lead)
    }

    /// The bytes of all needles.
    pub(crate) fn bytes(&self) -> usize {
        self.sorted.iter().map(Needle::len).sum()
    }

    /// The classes of all needles' values.
    pub(super) fn watched(&self) -> Watched {
        self.watched
    }

    fn sort(&mut self) {
        // Of the same bytes, the one with the longest tail is first.
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

    pub(crate) fn is_empty(&self) -> bool {
        self.sorted.is_empty()
    }

    /// Is one in this text, which is in lower case? Compared without regard to case.
    pub(super) fn is_in_lower_case(&self, text: &[u8]) -> bool {
        let needles = self.by_length.iter().map(|place| self.sorted[*place].bytes.as_slice());
        let is_in = |needle: &[u8]| text.windows(needle.len()).any(|part| part.eq_ignore_ascii_case(needle));
        needles.take_while(|needle| needle.len() <= text.len()).any(is_in)
    }

    /// Is the end of one in this text? See [`Anchors`].
    pub(crate) fn is_end_in(&self, text: &[u8]) -> bool {
        !self.is_empty() && !self.anchors.find(&Text::new(text)).is_nothing()
    }

    /// Is one in this text, in whatever spelling, or in lower case as in the name of a header field?
    pub(crate) fn is_in(&self, text: &[u8]) -> bool {
        !self.find(&Text::new(text)).is_empty() || self.is_in_lower_case(text)
    }

    /// Where matches begin, with the characters before them that hold bits of the value.
    pub(crate) fn places(&self, text: &Text<'_>) -> Vec<usize> {
        self.find(text).iter().map(|found| found.start).collect()
    }

    /// Every match, wherever it begins, overlapping ones too.
    pub(super) fn find(&self, text: &Text<'_>) -> Vec<Match> {
        self.search(text).0
    }

    /// Every match, and where the ends of needles are that belong to none.
    pub(super) fn search(&self, text: &Text<'_>) -> (Vec<Match>, Vec<usize>) {
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

    /// The same, without a look at whether the end of one is there: takes the longer the further the text agrees.
    fn follow_all(&self, text: &Text<'_>) -> Vec<Match> {
        let mut matches: Vec<Match> = Vec::new();
        let mut idle = vec![false; text.ways()];
        let mut search =
            Search { needles: &self.sorted, text, heads: Default::default(), best: None, lead: 0 };
        let mut next = 0;
        while let Some(at) = self.next_beginning(text.raw(), next) {
            next = at + 1;
            // Most ways to read an introducer begin no needle: that is found once for each.
            let idle = text.way(at).and_then(|way| idle.get_mut(way));
            if idle.as_ref().is_some_and(|idle| **idle) {
                continue;
            }
            let begins = self.follow(&mut search, at);
            if let Some(idle) = idle {
                *idle = !begins;
            }
            // A backslash before a value may be read as part of it: that is the same match, not a second one.
            let beyond = matches.last().map_or((Tail::NONE, 0), |found| (found.tail, found.end));
            let lead = std::mem::take(&mut search.lead);
            if let Some((tail, end)) = search.best.take().filter(|best| *best > beyond) {
                matches.push(Match { start: edges::beginning(text, at, lead), end, tail });
            }
        }
        matches
    }

    /// Follows all needles from `start` on. Does any begin with a reading of what is there?
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

/// Needles that have the same beginning, as places in their order.
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

/// Follows all needles at once through the readings of a text.
struct Search<'t, 'b> {
    needles: &'t [Needle],
    text: &'t Text<'b>,
    /// Where the readings that agree so far have got to, and with which needles, by how much of those they have read:
    /// several, where a text can be read in several ways. A ring, as a character is some bytes at once.
    heads: [Vec<(usize, Range)>; RING],
    /// The match that masks most.
    best: Option<(Tail, usize)>,
    /// The most bytes before a match that hold bits of the value.
    lead: usize,
}

impl Search<'_, '_> {
    /// Goes on behind the first byte, that of all of `range`.
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

    /// Goes on from all heads, of which none has read less than `read` bytes.
    fn branch(&mut self, mut read: usize) {
        while !self.heads.iter().all(Vec::is_empty) {
            let now = std::mem::take(&mut self.heads[read % RING]);
            for &(head, range) in &now {
                let range = self.complete(range, head, read);
                if !range.is_empty() {
                    self.step(range, read, head);
                }
            }
            // The place is kept for its memory.
            self.heads[read % RING] = now;
            self.heads[read % RING].clear();
            read += 1;
        }
    }

    /// Reads what is at `head`: a character, or a line break and a character.
    fn step(&mut self, range: Range, read: usize, head: usize) {
        let text = self.text;
        text.readings(head).for_each(|reading| self.enter(range, read, reading));
        if text.raw().get(head).is_some_and(|byte| !is_plain(*byte)) {
            // One break may be within a wrapped value; an empty line ends an event, a head, a block.
            let mut behind = Vec::new();
            text.line_breaks(head, &mut behind);
            for head in behind {
                text.readings(head).for_each(|reading| self.enter(range, read, reading));
            }
        }
    }

    /// Notes the needle that is read to its end, which is the first of them; the others go on.
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

    /// Notes a head behind this character, with the needles that go on with it.
    fn enter(&mut self, range: Range, read: usize, reading: Reading) {
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

    /// The needles of `range` that have `byte` behind the `read` bytes that they share.
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
    fn nothing_begins_where_no_pair_is_noted() {
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
