//! Finds credentials by their prefix, anywhere in the text.

use std::ops::Range;

use onecli_model::Placeholder;

use super::kinds::Prefix;

/// A prefix that was found.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    prefix: usize,
    /// The stream position where it begins.
    start: u64,
    /// Number of bytes so far, with the prefix.
    length: usize,
    /// Number of bytes after the prefix that match a placeholder; `None` after a byte that does not.
    placeholder: Option<usize>,
}

/// A scanner over one body. It follows at most one candidate for each prefix, so it runs in linear time.
#[derive(Debug)]
pub(super) struct Shapes {
    prefixes: Vec<Prefix>,
    /// Set for each byte that may begin a prefix.
    first: [bool; 256],
    candidates: Vec<Candidate>,
    /// Set if the previous byte is part of a word, so that no prefix begins here.
    in_word: bool,
    /// Within a match: whether it is masked.
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

    /// The first position that may have to be masked. Text that only raises an alert is not held back.
    pub(super) fn open_from(&self) -> Option<u64> {
        let masked = self.candidates.iter().filter(|one| self.prefixes[one.prefix].is_masked);
        masked.map(|one| one.start).min()
    }

    /// Drops all candidates, because their member decides about these bytes.
    pub(super) fn skip(&mut self) {
        (self.inside, self.in_word) = (None, false);
        self.candidates.clear();
    }

    /// Processes one byte at `position`, and returns the range to mask.
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

    /// Advances every candidate, and returns the first that is complete.
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

/// Returns whether the byte may occur in a credential with a prefix: base64url (RFC 4648 section 5), and dots between
/// its parts.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}
