//! The last bytes of a stream, read as characters.

/// The number of bytes that are stored.
const REACH: usize = 8;
/// The escaped forms of a double quote in HTML attributes and in scripts.
const ESCAPED_QUOTES: [&[u8]; 4] = [b"&quot;", b"&#34;", b"&#x22;", b"\\u0022"];
/// Maximum depth to which JSON within JSON strings is read.
const MAX_LEVEL: u32 = 3;

/// A quote, with its position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Quote {
    /// `"`, `'`, or the first byte of an escape.
    pub(super) kind: u8,
    /// How often the quote itself is escaped within JSON strings.
    pub(super) level: u32,
    /// Number of its bytes, without NUL bytes.
    pub(super) width: usize,
}

/// The last bytes. NUL bytes are omitted, so that ASCII characters in UTF-16 and UTF-32 are read as ASCII.
#[derive(Debug, Default)]
pub(super) struct Recent {
    bytes: [u8; REACH],
    places: [u64; REACH],
    count: usize,
    /// Backslashes directly before the newest byte.
    backslashes: u32,
}

impl Recent {
    /// Adds the next byte, which is at `place`.
    pub(super) fn push(&mut self, byte: u8, place: u64) {
        let is_escaped = self.count > 0 && self.byte(1) == b'\\';
        self.backslashes = if is_escaped { self.backslashes.saturating_add(1) } else { 0 };
        let at = self.count % REACH;
        (self.bytes[at], self.places[at]) = (byte, place);
        self.count += 1;
    }

    /// The byte `back` places ago; 1 is the newest.
    pub(super) fn byte(&self, back: usize) -> u8 {
        self.bytes[(self.count + REACH - back) % REACH]
    }

    /// The place of that byte, at most [`REACH`] back.
    pub(super) fn place(&self, back: usize) -> u64 {
        self.places[(self.count + REACH - back) % REACH]
    }

    /// The first place whose bytes may belong to the end of a value.
    pub(super) fn first_place(&self) -> u64 {
        self.place(self.count.min(REACH))
    }

    /// Returns whether the last bytes equal `text`, in any letter case.
    pub(super) fn ends_with(&self, text: &[u8]) -> bool {
        let mut back = text.iter().rev().zip(1..);
        text.len() <= self.count && back.all(|(byte, back)| self.byte(back).eq_ignore_ascii_case(byte))
    }

    /// The quote that the newest byte ends.
    pub(super) fn quote(&self) -> Option<Quote> {
        let kind = self.byte(1);
        match kind {
            b'"' | b'\'' => {
                // Each level doubles the backslashes of the inner level, and adds one for the quote.
                let level = (self.backslashes + 1).trailing_zeros().min(MAX_LEVEL);
                Some(Quote { kind, level, width: 1 << level })
            }
            b';' | b'2' => {
                let escape = ESCAPED_QUOTES.iter().find(|escape| self.ends_with(escape))?;
                Some(Quote { kind: escape[0], level: 0, width: escape.len() })
            }
            _ => None,
        }
    }

    /// Returns whether the last bytes may begin a quote.
    pub(super) fn begins_quote(&self) -> bool {
        let begins = |escape: &&[u8]| (1..escape.len()).any(|length| self.ends_with(&escape[..length]));
        self.byte(1) == b'\\' || ESCAPED_QUOTES.iter().any(begins)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quote_level_and_width_are_detected() {
        let check = |text: &str, expected: Option<(u8, u32, usize)>| {
            let mut recent = Recent::default();
            text.bytes().zip(0..).for_each(|(byte, place)| recent.push(byte, place));
            let expected = expected.map(|(kind, level, width)| Quote { kind, level, width });
            assert_eq!(recent.quote(), expected, "{text}");
        };
        check("a\"", Some((b'"', 0, 1)));
        check("\\\"", Some((b'"', 1, 2)));
        check("\\\\\"", Some((b'"', 0, 1)));
        check("\\\\\\\"", Some((b'"', 2, 4)));
        check("\\\\\\\\\\\"", Some((b'"', 1, 2)));
        check("a&quot;", Some((b'&', 0, 6)));
        check("&#34;", Some((b'&', 0, 5)));
        check("\\u0022", Some((b'\\', 0, 6)));
        check("u0022", None);
        check(";", None);
    }
}
