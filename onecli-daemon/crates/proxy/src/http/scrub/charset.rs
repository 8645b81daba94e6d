//! Spellings of a non-ASCII text by programs that disagree about its charset.
//!
//! A server may interpret the UTF-8 that it received as ISO-8859-1, and respond in UTF-8 or JSON. RFC 7617 allows
//! that for Basic credentials, and most libraries do so for header fields. A server may also respond in an older
//! charset, or in another normal form.

use std::borrow::Cow;

use icu_normalizer::{ComposingNormalizerBorrowed, DecomposingNormalizerBorrowed};
use zeroize::Zeroizing;

/// Minimum number of other characters if a charset lacks some characters of the text, because question marks alone
/// are no value.
const LEAST_KNOWN: usize = 8;
/// The characters of Windows-1252 from 0x80 to 0x9f, where ISO-8859-1 has control characters (WHATWG Encoding, index
/// windows-1252).
const WINDOWS_1252: [char; 32] = [
    '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}', '\u{90}',
    '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
];

/// A charset with one byte for each character.
#[derive(Clone, Copy)]
enum Charset {
    Latin1,
    Windows1252,
}

impl Charset {
    const ALL: [Charset; 2] = [Charset::Latin1, Charset::Windows1252];

    fn decode(self, byte: u8) -> char {
        match (self, byte) {
            (Charset::Windows1252, 0x80..=0x9f) => WINDOWS_1252[usize::from(byte - 0x80)],
            _ => char::from(byte),
        }
    }

    fn encode(self, character: char) -> Option<u8> {
        let byte = u8::try_from(u32::from(character)).ok().filter(|byte| self.decode(*byte) == character);
        byte.or_else(|| (0x80..=0x9f).find(|byte| self.decode(*byte) == character))
    }
}

/// The other forms of `raw`; none if it is ASCII.
pub(super) fn forms(raw: &[u8]) -> Vec<Zeroizing<Vec<u8>>> {
    let mut all = Vec::new();
    if raw.is_ascii() {
        return all;
    }
    let mut add = |form: Zeroizing<Vec<u8>>| {
        if form.as_slice() != raw && !all.contains(&form) {
            all.push(form);
        }
    };
    for charset in Charset::ALL {
        add(mistaken(raw, charset));
    }
    if let Ok(text) = std::str::from_utf8(raw) {
        Charset::ALL.into_iter().filter_map(|charset| encoded(text, charset)).for_each(&mut add);
        add(owned(ComposingNormalizerBorrowed::new_nfc().normalize(text)));
        add(owned(DecomposingNormalizerBorrowed::new_nfd().normalize(text)));
    }
    all
}

/// The bytes, interpreted as text in this charset, in UTF-8.
fn mistaken(raw: &[u8], charset: Charset) -> Zeroizing<Vec<u8>> {
    let mut out = Zeroizing::new(String::with_capacity(raw.len() * 3));
    out.extend(raw.iter().map(|byte| charset.decode(*byte)));
    Zeroizing::new(out.as_bytes().to_vec())
}

/// The text in this charset, with `?` for each missing character.
fn encoded(text: &str, charset: Charset) -> Option<Zeroizing<Vec<u8>>> {
    let known = text.chars().filter(|character| charset.encode(*character).is_some()).count();
    let is_telling = known >= LEAST_KNOWN || known == text.chars().count();
    let encode = |character| charset.encode(character).unwrap_or(b'?');
    is_telling.then(|| Zeroizing::new(text.chars().map(encode).collect()))
}

fn owned(text: Cow<'_, str>) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(text.into_owned().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_cover_charset_mistakes_of_programs() {
        let check = |raw: &[u8], expected: &[&[u8]]| {
            let all = forms(raw);
            let all: Vec<&[u8]> = all.iter().map(|form| form.as_slice()).collect();
            assert_eq!(all, expected, "{}", raw.escape_ascii());
        };
        check(b"correct horse", &[]);
        check("Zürich-1".as_bytes(), &["ZÃ¼rich-1".as_bytes(), b"Z\xfcrich-1", "Zu\u{308}rich-1".as_bytes()]);
        check("ten €".as_bytes(), &["ten â\u{82}¬".as_bytes(), "ten â‚¬".as_bytes(), b"ten \x80"]);
        check(
            "pass-wört-漢".as_bytes(),
            &["pass-wÃ¶rt-æ¼¢".as_bytes(), b"pass-w\xf6rt-?", "pass-wo\u{308}rt-漢".as_bytes()],
        );
        check(
            "漢字漢字".as_bytes(),
            &["æ¼¢å\u{ad}\u{97}æ¼¢å\u{ad}\u{97}".as_bytes(), "æ¼¢å\u{ad}—æ¼¢å\u{ad}—".as_bytes()],
        );
        check(b"Z\xfcrich-1", &["Zürich-1".as_bytes()]);
    }
}
