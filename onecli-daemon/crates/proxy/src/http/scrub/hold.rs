//! Decides which bytes at the end of a text wait for later bytes.
//!
//! A match may continue in bytes that have not arrived yet. The decision depends only on the text and on the public
//! classes of the watched values, never on a value. Otherwise an agent that chooses the text could learn from frames
//! and delays which guess begins a value.

use onecli_model::{Alphabet, LengthClass, ValueClass};

use super::reading::{Character, Decoding, EscapedText, MAX_ESCAPE, is_plain, is_within_escape};

/// More bytes than any match has.
const NEVER: u16 = u16::MAX;

/// Number of decoded bytes that decide a match of a class. In hex and in UTF-16 a value has twice its bytes; for long
/// values the first 1 KiB decides.
pub(super) fn decisive(length: LengthClass) -> usize {
    match length {
        LengthClass::Short => 2 * length.bytes(),
        LengthClass::Medium | LengthClass::Long => 1024,
    }
}

/// Returns whether a match of this alphabet may continue with `byte`. In UTF-16 a NUL follows each ASCII character,
/// and other characters have any two bytes, but bytes of a line break end the match. A token that was sent in a query
/// contains percent signs.
pub(super) fn goes_on(alphabet: Alphabet, byte: u8) -> bool {
    match alphabet {
        Alphabet::Token => matches!(byte, 0 | b'%') || alphabet.contains(byte),
        Alphabet::Text => !matches!(byte, b'\r' | b'\n'),
    }
}

/// The part that is masked after the bytes that decided a match: the rest of a long value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tail {
    /// Number of decoded bytes left to mask.
    left: usize,
    alphabet: Alphabet,
}

impl Default for Tail {
    fn default() -> Tail {
        Tail::NONE
    }
}

impl Tail {
    /// An empty tail.
    pub(super) const NONE: Tail = Tail { left: 0, alphabet: Alphabet::Token };

    /// A tail of `left` decoded bytes in this alphabet.
    pub(super) fn new(left: usize, alphabet: Alphabet) -> Tail {
        if left == 0 { Tail::NONE } else { Tail { left, alphabet } }
    }

    /// Skips the bytes to mask from `at` on. Returns where they end in this text, and the tail that continues after
    /// it.
    pub(super) fn follow(mut self, text: &EscapedText<'_>, mut at: usize) -> (usize, Tail) {
        while self.left > 0 {
            if text.is_cut(at) {
                return (at, self);
            }
            if let Some((length, end)) = self.character(text, at) {
                self.left = self.left.saturating_sub(length);
                at = end;
                continue;
            }
            let mut ends = Vec::new();
            text.line_breaks(at, &mut ends);
            match ends.into_iter().max() {
                Some(end) if text.is_cut(end) => return (at, self),
                Some(end) if self.character(text, end).is_some() => at = end,
                _ => break,
            }
        }
        (at, Tail::NONE)
    }

    /// The longest character at `at`: its number of decoded bytes, and where it ends.
    fn character(self, text: &EscapedText<'_>, at: usize) -> Option<(usize, usize)> {
        let goes_on =
            |character: &Character| character.as_bytes().iter().all(|byte| goes_on(self.alphabet, *byte));
        let readings = text.readings(at).filter(|reading| goes_on(&reading.character));
        readings.map(|r| (r.character.as_bytes().len(), r.end)).max_by_key(|(_, end)| *end)
    }
}

/// How far a match can reach, for each class of the searched values.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct LookaheadLengths {
    /// Maximum number of decoded bytes that decide a match, by alphabet; 0 if no value of the alphabet is watched.
    token: usize,
    text: usize,
}

impl LookaheadLengths {
    pub(super) fn add(&mut self, class: ValueClass) {
        let most = match class.alphabet {
            Alphabet::Token => &mut self.token,
            Alphabet::Text => &mut self.text,
        };
        *most = (*most).max(decisive(class.length));
    }

    /// Returns whether no value is watched.
    pub(super) fn is_empty(self) -> bool {
        self.token == 0 && self.text == 0
    }

    /// The union of both.
    pub(super) fn and(self, other: LookaheadLengths) -> LookaheadLengths {
        LookaheadLengths { token: self.token.max(other.token), text: self.text.max(other.text) }
    }

    /// Returns where the longest end of `text` begins that may begin a match of a value of these classes.
    pub(super) fn open_from(self, text: &EscapedText<'_>, costs: &mut Costs) -> usize {
        let of = |costs: &mut Costs, alphabet, most| match most {
            0 => text.raw().len(),
            most => costs.open_from(text, alphabet, most),
        };
        let open = of(costs, Alphabet::Text, self.text);
        // A token is also a text.
        if self.token <= self.text { open } else { open.min(of(costs, Alphabet::Token, self.token)) }
    }
}

/// For each distance from the end of a text: the minimum number of decoded bytes on a path to the end.
#[derive(Debug, Default)]
pub(super) struct Costs(Vec<Cost>);

#[derive(Debug, Clone, Copy)]
struct Cost {
    /// If a character comes first.
    character: u16,
    /// If a character comes first that is not [`is_padding`].
    printable: u16,
    /// If a character or one line break comes first, after a character.
    any: u16,
}

impl Cost {
    const NONE: Cost = Cost { character: NEVER, printable: NEVER, any: NEVER };
    const END: Cost = Cost { character: 0, printable: 0, any: 0 };
}

impl Costs {
    fn open_from(&mut self, text: &EscapedText<'_>, alphabet: Alphabet, most: usize) -> usize {
        let raw = text.raw();
        let most = u16::try_from(most).unwrap_or(NEVER);
        self.0.clear();
        self.0.push(Cost::END);
        let (mut at, mut open, mut lowest) = (raw.len(), raw.len(), raw.len());
        while at > 0 {
            at -= 1;
            let cost = self.cost(text, at, alphabet, most);
            self.0.push(cost);
            if cost.printable < most {
                open = at;
            }
            if cost.any < most {
                lowest = at;
            } else if at + 1 < lowest {
                // Further to the left, only an escape can continue the path.
                let Some(next) = escape_before(raw, at, lowest) else { break };
                self.0.resize(raw.len() - next, Cost::NONE);
                at = next + 1;
            }
        }
        open
    }

    fn cost(&self, text: &EscapedText<'_>, at: usize, alphabet: Alphabet, most: u16) -> Cost {
        let byte = text.raw()[at];
        if is_plain(byte) {
            // The byte can only be read as itself.
            let character = self.with(text, Decoding::literal(byte, at), alphabet);
            let character = if character < most { character } else { NEVER };
            let printable = if is_padding(alphabet, &[byte]) { NEVER } else { character };
            return Cost { character, printable, any: character };
        }
        if text.is_cut(at) {
            return Cost::END;
        }
        let mut cost = Cost::NONE;
        for reading in text.readings(at) {
            let with = self.with(text, reading, alphabet);
            cost.character = cost.character.min(with);
            if !is_padding(alphabet, reading.character.as_bytes()) {
                cost.printable = cost.printable.min(with);
            }
        }
        let behind = self.behind_break(text, at, |cost| cost.character);
        cost.any = cost.character.min(behind);
        cost
    }

    /// The cost of a path that begins with this character.
    fn with(&self, text: &EscapedText<'_>, reading: Decoding, alphabet: Alphabet) -> u16 {
        let bytes = reading.character.as_bytes();
        if !bytes.iter().all(|byte| goes_on(alphabet, *byte)) {
            return NEVER;
        }
        let rest = if is_padding(alphabet, bytes) {
            let next = self.of(text, reading.end).printable;
            next.min(self.behind_break(text, reading.end, |cost| cost.printable))
        } else {
            self.of(text, reading.end).any
        };
        rest.saturating_add(u16::try_from(bytes.len()).unwrap_or(NEVER))
    }

    /// The cost after a line break at `at`, if there is one.
    fn behind_break(&self, text: &EscapedText<'_>, at: usize, of: impl Fn(&Cost) -> u16) -> u16 {
        if text.raw().get(at).is_none_or(|byte| is_plain(*byte)) {
            return NEVER;
        }
        let mut ends = Vec::new();
        text.line_breaks(at, &mut ends);
        ends.into_iter().map(|end| of(&self.of(text, end))).min().unwrap_or(NEVER)
    }

    fn of(&self, text: &EscapedText<'_>, at: usize) -> Cost {
        self.0.get(text.raw().len() - at).copied().unwrap_or(Cost::NONE)
    }
}

/// Returns whether the character is the NUL half of an ASCII character in UTF-16. No match begins with it, and a
/// match contains no two in a row.
fn is_padding(alphabet: Alphabet, character: &[u8]) -> bool {
    alphabet == Alphabet::Token && character == [0]
}

/// The last position before `at` where an escape may begin that ends at or after `lowest`.
fn escape_before(raw: &[u8], at: usize, lowest: usize) -> Option<usize> {
    let from = lowest.saturating_sub(MAX_ESCAPE);
    let within = raw.get(from..at)?;
    let next = from + memchr::memrchr3(b'%', b'\\', b'&', within)?;
    // The byte before `lowest` may be the last character of the escape, which may be any byte.
    raw[next..=at].iter().all(|byte| is_within_escape(*byte)).then_some(next)
}
