//! Finds credentials by how they begin, wherever they stand.

use std::ops::Range;

use onecli_model::Placeholder;

use super::kinds::Prefix;

/// A beginning that was met.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    prefix: usize,
    /// Where it began, as a position in the stream.
    start: u64,
    /// Bytes so far, with the prefix.
    length: usize,
    /// Bytes behind the prefix that agree with a placeholder; `None` once one does not.
    placeholder: Option<usize>,
}

/// A scanner over one body. At most one candidate for each prefix is followed, so time is linear.
#[derive(Debug)]
pub(super) struct Shapes {
    prefixes: Vec<Prefix>,
    /// May a prefix begin with this byte?
    first: [bool; 256],
    candidates: Vec<Candidate>,
    /// Is the byte before part of a word, so that nothing begins here?
    in_word: bool,
    /// Within a match: is it masked?
    inside: Option<bool>,
    /// Matches that passed.
    pub(super) passed: u64,
    /// Matches that are masked.
    pub(super) masked: u64,
}

impl Shapes {
    pub(super) fn new(prefixes: Vec<Prefix>) -> Shapes {
        let mut first = [false; 256];
        for prefix in &prefixes {
            first[usize::from(prefix.text[0])] = true;
        }
        let (candidates, inside) = (Vec::new(), None);
        Shapes { prefixes, first, candidates, in_word: false, inside, passed: 0, masked: 0 }
    }

    /// Where bytes begin that may have to be masked. What only raises an alert is not held back.
    pub(super) fn open_from(&self) -> Option<u64> {
        let masked = self.candidates.iter().filter(|one| self.prefixes[one.prefix].is_masked);
        masked.map(|one| one.start).min()
    }

    /// Forgets what has begun: these bytes are judged by their member.
    pub(super) fn skip(&mut self) {
        (self.inside, self.in_word) = (None, false);
        self.candidates.clear();
    }

    /// Takes one byte at `position`; gives what is to be masked.
    pub(super) fn step(&mut self, position: u64, byte: u8) -> Option<Range<u64>> {
        let in_word = std::mem::replace(&mut self.in_word, byte.is_ascii_alphanumeric() || byte == b'_');
        if let Some(is_masked) = self.inside {
            if is_token(byte) {
                return is_masked.then_some(position..position + 1);
            }
            self.inside = None;
        }
        if !self.candidates.is_empty()
            && let Some(found) = self.advance(byte)
        {
            self.candidates.clear();
            let is_masked = self.prefixes[found.prefix].is_masked;
            self.inside = Some(is_masked);
            if is_masked {
                self.masked += 1;
                return Some(found.start..position + 1);
            }
            self.passed += 1;
            return None;
        }
        if !in_word && self.first[usize::from(byte)] {
            self.begin(position, byte);
        }
        None
    }

    fn begin(&mut self, start: u64, byte: u8) {
        for (at, prefix) in self.prefixes.iter().enumerate() {
            let is_new = !self.candidates.iter().any(|one| one.prefix == at);
            if is_new && prefix.text[0] == byte {
                self.candidates.push(Candidate { prefix: at, start, length: 1, placeholder: Some(0) });
            }
        }
    }

    /// Goes on with every candidate; gives the first that is complete.
    fn advance(&mut self, byte: u8) -> Option<Candidate> {
        let prefixes = &self.prefixes;
        self.candidates.retain_mut(|one| {
            let text = prefixes[one.prefix].text;
            let goes_on = if let Some(own) = text.get(one.length) {
                *own == byte
            } else {
                let expected = one.placeholder.and_then(|at| Placeholder::PREFIX.as_bytes().get(at));
                one.placeholder = one.placeholder.filter(|_| expected == Some(&byte)).map(|at| at + 1);
                is_token(byte) && one.placeholder != Some(Placeholder::PREFIX.len())
            };
            one.length += 1;
            goes_on
        });
        let whole = |one: &&Candidate| {
            let prefix = &prefixes[one.prefix];
            one.length >= prefix.text.len() + prefix.length
        };
        self.candidates.iter().find(whole).copied()
    }
}

/// Characters of credentials that have a prefix: base64url (RFC 4648 section 5), and the dots between their parts.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}
