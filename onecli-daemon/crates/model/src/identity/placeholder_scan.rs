//! Finds placeholders in a stream of bytes without storing the stream.

use std::sync::LazyLock;

use memchr::memmem::Finder;

use super::token::Placeholder;

/// The maximum number of bytes of a placeholder before the boundary between two pieces.
const TAIL: usize = Placeholder::LEN - 1;

static PREFIX: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(Placeholder::PREFIX));

/// Searches for placeholders, also across the boundaries between pieces. The work is linear in the bytes. Nothing is
/// allocated, and only the last 41 bytes are stored.
#[derive(Debug, Clone)]
pub struct PlaceholderScan {
    tail: [u8; TAIL],
    length: usize,
}

impl Default for PlaceholderScan {
    fn default() -> PlaceholderScan {
        PlaceholderScan { tail: [0; TAIL], length: 0 }
    }
}

impl PlaceholderScan {
    /// Processes the next piece, and calls `found` with each text that has the form of a placeholder and ends in the
    /// piece.
    pub fn push(&mut self, piece: &[u8], mut found: impl FnMut(&str)) {
        let (mut edge, tail) = ([0; 2 * TAIL], self.length);
        let ahead = piece.len().min(TAIL);
        edge[..tail].copy_from_slice(&self.tail[..tail]);
        edge[tail..tail + ahead].copy_from_slice(&piece[..ahead]);
        let edge = &edge[..tail + ahead];
        if tail > 0 {
            in_bytes(edge).take_while(|(at, _)| *at < tail).for_each(|(_, text)| found(text));
        }
        in_bytes(piece).for_each(|(_, text)| found(text));
        let last = if piece.len() >= TAIL { piece } else { edge };
        self.length = last.len().min(TAIL);
        self.tail[..self.length].copy_from_slice(&last[last.len() - self.length..]);
    }

    /// Starts a new text: later bytes do not continue the previous ones.
    pub fn reset(&mut self) {
        self.length = 0;
    }
}

/// Returns each text in `bytes` that has the form of a placeholder, with its position.
pub fn in_bytes(bytes: &[u8]) -> impl Iterator<Item = (usize, &str)> {
    PREFIX.find_iter(bytes).filter_map(|at| {
        let text = bytes.get(at..at + Placeholder::LEN)?;
        let body = &text[Placeholder::PREFIX.len()..];
        let is_base32 = body.iter().all(|byte| matches!(byte, b'a'..=b'z' | b'2'..=b'7'));
        std::str::from_utf8(text).ok().filter(|_| is_base32).map(|text| (at, text))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &[u8], size: usize) -> Vec<String> {
        let (mut scan, mut found) = (PlaceholderScan::default(), Vec::new());
        text.chunks(size).for_each(|piece| scan.push(piece, |text| found.push(text.to_owned())));
        found
    }

    #[test]
    fn placeholders_are_found_once_in_every_chunking() {
        let (one, two) = (Placeholder::from_bits([7; 20]), Placeholder::from_bits([9; 20]));
        let text = format!("a {one}{two} onecli_ph_onecli_ph_ {one}, onecli_ph_{}1 end", "a".repeat(31));
        let expected = [one.as_str(), two.as_str(), one.as_str()];
        for size in 1..=text.len() {
            assert_eq!(found(text.as_bytes(), size), expected, "in pieces of {size}");
        }
    }

    #[test]
    fn placeholder_is_not_found_across_a_reset() {
        let one = Placeholder::from_bits([7; 20]);
        let (mut scan, mut count) = (PlaceholderScan::default(), 0);
        let (before, after) = one.as_str().as_bytes().split_at(20);
        scan.push(before, |_| count += 1);
        scan.reset();
        scan.push(after, |_| count += 1);
        assert_eq!(count, 0);
    }
}
