//! Which bytes at the end of a text wait for those behind them.
//!
//! A match may go on in bytes that have not come yet. What waits depends on the text and on the public classes of the
//! watched values alone, never on a value: an agent that chooses the text would otherwise learn from frames and delays
//! which guess begins a value.

use onecli_model::{Alphabet, LengthClass, ValueClass};

use super::reading::{Character, MAX_ESCAPE, Reading, Text, is_plain, is_within_escape};

/// More than any match has.
const NEVER: u16 = u16::MAX;

/// So many decoded bytes decide a match of a class. In hex and in UTF-16 a value has twice its bytes; of long values the
/// first 1 KiB decides.
pub(super) fn decisive(length: LengthClass) -> usize {
    match length {
        LengthClass::Short => 2 * length.bytes(),
        LengthClass::Medium | LengthClass::Long => 1024,
    }
}

/// Whether a match of this alphabet may go on with `byte`. In UTF-16 a NUL stands behind each ASCII character, and
/// others have any two bytes; bytes of a line break end there. A token that was sent in a query has percent signs.
pub(super) fn goes_on(alphabet: Alphabet, byte: u8) -> bool {
    match alphabet {
        Alphabet::Token => matches!(byte, 0 | b'%') || alphabet.contains(byte),
        Alphabet::Text => !matches!(byte, b'\r' | b'\n'),
    }
}

/// What is masked behind the bytes that decided a match: the rest of a long value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tail {
    /// Decoded bytes that are left.
    left: usize,
    alphabet: Alphabet,
}

impl Default for Tail {
    fn default() -> Tail {
        Tail::NONE
    }
}

impl Tail {
    /// Nothing is left.
    pub(super) const NONE: Tail = Tail { left: 0, alphabet: Alphabet::Token };

    /// So many decoded bytes of this alphabet.
    pub(super) fn new(left: usize, alphabet: Alphabet) -> Tail {
        if left == 0 { Tail::NONE } else { Tail { left, alphabet } }
    }

    /// Passes over what it masks from `at` on: where that ends, and what is left behind the end of the text.
    pub(super) fn follow(mut self, text: &Text<'_>, mut at: usize) -> (usize, Tail) {
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

    /// The longest character at `at`: how many bytes it is decoded, and where it ends.
    fn character(self, text: &Text<'_>, at: usize) -> Option<(usize, usize)> {
        let goes_on =
            |character: &Character| character.as_bytes().iter().all(|byte| goes_on(self.alphabet, *byte));
        let readings = text.readings(at).filter(|reading| goes_on(&reading.character));
        readings.map(|r| (r.character.as_bytes().len(), r.end)).max_by_key(|(_, end)| *end)
    }
}

/// The classes that are watched for.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Watched {
    /// Most decoded bytes that decide a match, by alphabet; 0 where none of its values is watched for.
    token: usize,
    text: usize,
}

impl Watched {
    pub(super) fn add(&mut self, class: ValueClass) {
        let most = match class.alphabet {
            Alphabet::Token => &mut self.token,
            Alphabet::Text => &mut self.text,
        };
        *most = (*most).max(decisive(class.length));
    }

    /// Is no value watched for?
    pub(super) fn is_empty(self) -> bool {
        self.token == 0 && self.text == 0
    }

    /// These, and those.
    pub(super) fn and(self, other: Watched) -> Watched {
        Watched { token: self.token.max(other.token), text: self.text.max(other.text) }
    }

    /// Where the longest end of `text` begins that may begin a match of some value of these classes.
    pub(super) fn open_from(self, text: &Text<'_>, costs: &mut Costs) -> usize {
        let of = |costs: &mut Costs, alphabet, most| match most {
            0 => text.raw().len(),
            most => costs.open_from(text, alphabet, most),
        };
        let open = of(costs, Alphabet::Text, self.text);
        // A token is a text, too.
        if self.token <= self.text { open } else { open.min(of(costs, Alphabet::Token, self.token)) }
    }
}

/// By distance from the end of a text: how many decoded bytes, at least, lead from there to the end.
#[derive(Debug, Default)]
pub(super) struct Costs(Vec<Cost>);

#[derive(Debug, Clone, Copy)]
struct Cost {
    /// With a character first.
    character: u16,
    /// With a character first that is not [`is_padding`].
    printable: u16,
    /// With a character or one line break first: behind a character.
    any: u16,
}

impl Cost {
    const NONE: Cost = Cost { character: NEVER, printable: NEVER, any: NEVER };
    const END: Cost = Cost { character: 0, printable: 0, any: 0 };
}

impl Costs {
    fn open_from(&mut self, text: &Text<'_>, alphabet: Alphabet, most: usize) -> usize {
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
                // From further up, only an escape leads on.
                let Some(next) = escape_before(raw, at, lowest) else { break };
                self.0.resize(raw.len() - next, Cost::NONE);
                at = next + 1;
            }
        }
        open
    }

    fn cost(&self, text: &Text<'_>, at: usize, alphabet: Alphabet, most: u16) -> Cost {
        let byte = text.raw()[at];
        if is_plain(byte) {
            // It stands for itself.
            let character = self.with(text, Reading::literal(byte, at), alphabet);
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

    /// Beginning with this character.
    fn with(&self, text: &Text<'_>, reading: Reading, alphabet: Alphabet) -> u16 {
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

    /// Behind a line break at `at`, if there is one.
    fn behind_break(&self, text: &Text<'_>, at: usize, of: impl Fn(&Cost) -> u16) -> u16 {
        if text.raw().get(at).is_none_or(|byte| is_plain(*byte)) {
            return NEVER;
        }
        let mut ends = Vec::new();
        text.line_breaks(at, &mut ends);
        ends.into_iter().map(|end| of(&self.of(text, end))).min().unwrap_or(NEVER)
    }

    fn of(&self, text: &Text<'_>, at: usize) -> Cost {
        self.0.get(text.raw().len() - at).copied().unwrap_or(Cost::NONE)
    }
}

/// The half of an ASCII character in UTF-16: no match begins with it, and two in a row are none.
fn is_padding(alphabet: Alphabet, character: &[u8]) -> bool {
    alphabet == Alphabet::Token && character == [0]
}

/// The last place before `at` where an escape may begin that ends at `lowest` or behind it.
fn escape_before(raw: &[u8], at: usize, lowest: usize) -> Option<usize> {
    let from = lowest.saturating_sub(MAX_ESCAPE);
    let within = raw.get(from..at)?;
    let next = from + memchr::memrchr3(b'%', b'\\', b'&', within)?;
    // The byte before `lowest` may be its last character, which is any.
    raw[next..=at].iter().all(|byte| is_within_escape(*byte)).then_some(next)
}
