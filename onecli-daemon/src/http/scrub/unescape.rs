//! A second view of a stream: escapes decoded and line breaks taken out, with the way back to the bytes as they came.
//!
//! A value is echoed in more spellings than can be listed: each character may stand for itself or be escaped, in
//! percent (RFC 3986), JSON (RFC 8259), string-literal or HTML form, and base64 may be wrapped (RFC 2045). All of them
//! read the same here.

/// Longest HTML entity that is decoded, `&` and `;` included.
const MAX_ENTITY: usize = 12;
/// Stands where no match may reach across. No value and no spelling of one holds it.
const BREAK: u8 = 0;

/// The decoded view of some bytes.
#[derive(Default)]
pub(in crate::http) struct Unescaped {
    text: Vec<u8>,
    pieces: Vec<Piece>,
    /// Where the bytes end in an escape that is not complete.
    incomplete: Option<usize>,
}

/// Some bytes of the view, and where they came from.
#[derive(Debug, Clone, Copy)]
struct Piece {
    /// Offset in the view.
    text: usize,
    /// Offset in the bytes.
    raw: usize,
    /// Length in the bytes of an escape; `None` where bytes stand for themselves.
    escape: Option<usize>,
}

/// What begins at a special byte.
enum Token {
    /// An escape of so many bytes, for these (at most four, a character in UTF-8).
    Escape(usize, [u8; 4], usize),
    /// A line break of so many bytes, written out or escaped.
    LineBreak(usize),
    /// Just that byte.
    Literal,
    /// Perhaps an escape: more bytes would tell.
    Incomplete,
}

impl Unescaped {
    /// Decodes; `None` where nothing is escaped or broken over lines, so that the bytes are their own view.
    pub(in crate::http) fn of(raw: &[u8]) -> Option<Unescaped> {
        let mut at = next_special(raw, 0)?;
        let mut view = Unescaped::default();
        view.text.reserve(raw.len());
        view.literal(raw, 0, at);
        let mut breaks = 0;
        while at < raw.len() {
            match token(&raw[at..]) {
                Token::Escape(length, bytes, count) => {
                    view.escape(at, length, &bytes[..count]);
                    at += length;
                    breaks = 0;
                }
                Token::LineBreak(length) => {
                    breaks += 1;
                    // One break may be within a wrapped value; an empty line ends an event, a head, a block.
                    if breaks == 2 {
                        view.escape(at, length, &[BREAK]);
                    }
                    at += length;
                }
                Token::Literal => {
                    let end = next_special(raw, at + 1).unwrap_or(raw.len());
                    view.literal(raw, at, end);
                    at = end;
                    breaks = 0;
                    continue;
                }
                Token::Incomplete => {
                    view.incomplete = Some(at);
                    break;
                }
            }
            let end = next_special(raw, at).unwrap_or(raw.len());
            if end > at {
                view.literal(raw, at, end);
                breaks = 0;
            }
            at = end;
        }
        Some(view)
    }

    /// The decoded text.
    pub(in crate::http) fn text(&self) -> &[u8] {
        &self.text
    }

    /// The bytes behind `start..end` of the text.
    pub(in crate::http) fn raw_range(&self, start: usize, end: usize) -> (usize, usize) {
        let first = self.piece(start);
        let last = self.piece(end - 1);
        let raw_start = match first.escape {
            Some(_) => first.raw,
            None => first.raw + (start - first.text),
        };
        let raw_end = match last.escape {
            Some(length) => last.raw + length,
            None => last.raw + (end - last.text),
        };
        (raw_start, raw_end)
    }

    /// Where an escape begins that the bytes end within.
    pub(in crate::http) fn incomplete(&self) -> Option<usize> {
        self.incomplete
    }

    fn piece(&self, text: usize) -> Piece {
        let after = self.pieces.partition_point(|piece| piece.text <= text);
        self.pieces.get(after.wrapping_sub(1)).copied().unwrap_or(Piece { text: 0, raw: 0, escape: None })
    }

    fn literal(&mut self, raw: &[u8], from: usize, to: usize) {
        if from < to {
            self.pieces.push(Piece { text: self.text.len(), raw: from, escape: None });
            self.text.extend_from_slice(&raw[from..to]);
        }
    }

    fn escape(&mut self, raw: usize, length: usize, bytes: &[u8]) {
        self.pieces.push(Piece { text: self.text.len(), raw, escape: Some(length) });
        self.text.extend_from_slice(bytes);
    }
}

fn next_special(raw: &[u8], from: usize) -> Option<usize> {
    let rest = raw.get(from..)?;
    let escape = memchr::memchr3(b'%', b'\\', b'&', rest);
    let rest = &rest[..escape.unwrap_or(rest.len())];
    memchr::memchr2(b'\r', b'\n', rest).or(escape).map(|at| from + at)
}

fn token(raw: &[u8]) -> Token {
    match raw[0] {
        b'\r' if raw.get(1) == Some(&b'\n') => Token::LineBreak(2),
        b'\r' | b'\n' => Token::LineBreak(1),
        b'%' => hex_escape(&raw[1..], 1, 2),
        b'\\' => backslash(raw),
        _ => entity(raw),
    }
}

/// `prefix` bytes, then `digits` hexadecimal ones that name a character.
fn hex_escape(digits: &[u8], prefix: usize, wanted: usize) -> Token {
    let there = digits.iter().take(wanted).take_while(|b| b.is_ascii_hexdigit()).count();
    if there == wanted {
        return character(prefix + wanted, number(&digits[..wanted], 16));
    }
    if there == digits.len() { Token::Incomplete } else { Token::Literal }
}

/// JSON's escapes (RFC 8259 section 7), and `\xXX` of string literals.
fn backslash(raw: &[u8]) -> Token {
    match raw.get(1) {
        None => Token::Incomplete,
        Some(b'u') => hex_escape(&raw[2..], 2, 4),
        Some(b'x') => hex_escape(&raw[2..], 2, 2),
        Some(b'n' | b'r') => Token::LineBreak(2),
        Some(&other) => Token::Escape(2, [other, 0, 0, 0], 1),
    }
}

/// HTML's character references (the five of XML, decimal, hexadecimal).
fn entity(raw: &[u8]) -> Token {
    let within = &raw[1..raw.len().min(MAX_ENTITY)];
    let Some(end) = within.iter().position(|b| !(b.is_ascii_alphanumeric() || *b == b'#')) else {
        return if raw.len() < MAX_ENTITY { Token::Incomplete } else { Token::Literal };
    };
    if within[end] != b';' {
        return Token::Literal;
    }
    let length = end + 2;
    let plain = |byte| Token::Escape(length, [byte, 0, 0, 0], 1);
    match &within[..end] {
        b"amp" => plain(b'&'),
        b"lt" => plain(b'<'),
        b"gt" => plain(b'>'),
        b"quot" => plain(b'"'),
        b"apos" => plain(b'\''),
        [b'#', b'x' | b'X', digits @ ..] if !digits.is_empty() => character(length, number(digits, 16)),
        [b'#', digits @ ..] if !digits.is_empty() => character(length, number(digits, 10)),
        _ => Token::Literal,
    }
}

fn number(digits: &[u8], radix: u32) -> Option<u32> {
    u32::from_str_radix(std::str::from_utf8(digits).ok()?, radix).ok()
}

/// A byte of percent form is itself; a character above ASCII is its UTF-8.
fn character(length: usize, code: Option<u32>) -> Token {
    let Some(code) = code else { return Token::Literal };
    if length == 3
        && let Ok(byte) = u8::try_from(code)
    {
        return Token::Escape(length, [byte, 0, 0, 0], 1);
    }
    match char::from_u32(code) {
        Some(character) => {
            let mut bytes = [0; 4];
            let count = character.encode_utf8(&mut bytes).len();
            Token::Escape(length, bytes, count)
        }
        // Half of a surrogate pair: a value with such characters is not recognised in this form.
        None => Token::Escape(length, [BREAK, 0, 0, 0], 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(raw: &str, text: &str, incomplete: Option<usize>) {
        let view = Unescaped::of(raw.as_bytes()).unwrap();
        assert_eq!(
            (String::from_utf8_lossy(view.text()).as_ref(), view.incomplete()),
            (text, incomplete),
            "{raw:?}"
        );
    }

    #[test]
    fn every_form_reads_the_same() {
        check("a%2Fb%2fc", "a/b/c", None);
        check(r#"a\/b\u002Fc\u002fd\x2fe\"f\\g"#, "a/b/c/d/e\"f\\g", None);
        check("a&amp;b&#47;c&#x2F;d&quot;e&apos;f", "a&b/c/d\"e'f", None);
        check("abc\r\nde\nf\\ng", "abcdefg", None);
        check("abc\n\ndef", "abc\0def", None);
        check("%C3%A9\\u00e9&#233;", "ééé", None);
        check("100% &x; a&b \\q %zz &;", "100% &x; a&b q %zz &;", None);
        assert!(Unescaped::of(b"nothing special").is_none());
    }

    #[test]
    fn an_escape_that_is_cut_off_is_told() {
        for (raw, at) in
            [("ab%", 2), ("ab%2", 2), ("ab\\", 2), ("ab\\u00", 2), ("ab&", 2), ("ab&quo", 2), ("a%41&#x2", 4)]
        {
            assert_eq!(Unescaped::of(raw.as_bytes()).unwrap().incomplete(), Some(at), "{raw:?}");
        }
    }

    #[test]
    fn the_way_back() {
        let raw = b"xx a%2Fb\\u002fc yy";
        let view = Unescaped::of(raw).unwrap();
        let at = view.text().windows(5).position(|w| w == b"a/b/c").unwrap();
        let (start, end) = view.raw_range(at, at + 5);
        assert_eq!(&raw[start..end], b"a%2Fb\\u002fc");
        let (start, end) = view.raw_range(at + 1, at + 2);
        assert_eq!(&raw[start..end], b"%2F");
    }
}
