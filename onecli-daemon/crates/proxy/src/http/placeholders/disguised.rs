//! Finds placeholders in other spellings than the plain one: in escapes that the scrubber reads, in base64 or base32
//! (RFC 4648), in hex, in UTF-16, and in combinations. Such a text is worthless anywhere, but indicates an attempt to
//! get a credential past a search.

use std::cmp::Reverse;
use std::sync::LazyLock;

use data_encoding::{BASE32, BASE64, BASE64URL, Encoding, HEXLOWER_PERMISSIVE};
use http::HeaderMap;
use memchr::memmem::Finder;
use onecli_model::{Placeholder, SecretValue, WireForm};

use crate::http::scrub::{Decoding, EscapedText, Needles, spellings};

/// Maximum number of characters in a spelling of a placeholder, with its escapes decoded: hex, or UTF-16 with half a
/// character before it.
const LONGEST: usize = 2 * Placeholder::LEN + 2;
/// Minimum number of bytes in a spelling with escapes: one escaped character.
const SHORTEST: usize = Placeholder::LEN + 1;
/// Minimum number of characters in a spelling without escapes: base64.
const SHORTEST_CODED: usize = (Placeholder::LEN * 8).div_ceil(6);
/// Bytes of a spelling that may precede the border of two pieces: hex with each digit escaped as `%xx` or `\u00xx`,
/// and more.
const TAIL: usize = 640;
/// Bytes that are searched at once.
const PIECE: usize = 2048;
/// The number of content bytes that are read in every spelling. After them, base64, hex and UTF-16 are found only if
/// they are not escaped.
const DEEP: usize = 64 * 1024;
/// Maximum number of texts in one content that are examined closely. Each examination takes some microseconds.
const MAX_LOOKS: usize = 256;

/// Spellings of the placeholders' common prefix.
static BEGINNINGS: LazyLock<Needles> = LazyLock::new(|| {
    let mut needles = Needles::default();
    needles.extend(spellings(&prefix()));
    needles
});

/// The common spellings among them, without the plain one.
static COMMON: LazyLock<Vec<Finder<'static>>> = LazyLock::new(|| {
    let prefix = Placeholder::PREFIX;
    let wide =
        |text: &str| text.bytes().flat_map(|byte| [byte, 0]).take(2 * text.len() - 1).collect::<Vec<u8>>();
    let mut all = vec![wide(prefix), hex(prefix, false), hex(prefix, true)];
    // Bytes before the prefix change at most the spelling of its first byte.
    all.extend((0..3).map(|offset| {
        let padded = format!("{}{prefix}", &"   "[..offset]);
        let end = padded.len() * 8 / 6;
        BASE64.encode(padded.as_bytes()).as_bytes()[(offset * 8).div_ceil(6)..end].to_vec()
    }));
    all.into_iter().map(|needle| Finder::new(&needle).into_owned()).collect()
});

fn prefix() -> Vec<WireForm> {
    SecretValue::new(Placeholder::PREFIX.as_bytes().to_vec())
        .map(|value| WireForm::plain(&value))
        .unwrap_or_default()
}

fn hex(text: &str, is_upper: bool) -> Vec<u8> {
    let digits = HEXLOWER_PERMISSIVE.encode(text.as_bytes());
    if is_upper { digits.to_ascii_uppercase() } else { digits }.into_bytes()
}

/// Searches one content as it passes. It stores at most [`PIECE`] and [`TAIL`] bytes.
#[derive(Debug, Clone)]
pub(super) struct DisguisedScan {
    /// Bytes that are not searched yet, after the last bytes that were.
    waiting: Vec<u8>,
    /// The number of waiting bytes that were searched.
    searched: usize,
    deep: usize,
    looks: usize,
}

impl Default for DisguisedScan {
    fn default() -> DisguisedScan {
        DisguisedScan { waiting: Vec::new(), searched: 0, deep: DEEP, looks: MAX_LOOKS }
    }
}

impl DisguisedScan {
    /// Scans the next bytes, and calls `found` with each placeholder in the bytes that are searched now.
    pub(crate) fn push(&mut self, mut bytes: &[u8], mut found: impl FnMut(&str)) {
        while !bytes.is_empty() {
            let (piece, rest) = bytes.split_at(bytes.len().min(PIECE + self.searched - self.waiting.len()));
            self.waiting.extend_from_slice(piece);
            bytes = rest;
            if self.waiting.len() - self.searched >= PIECE {
                self.search(&mut found);
            }
        }
    }

    /// Ends the content; the next bytes belong to another one.
    pub(crate) fn end(&mut self, mut found: impl FnMut(&str)) {
        if self.waiting.len() > self.searched {
            self.search(&mut found);
        }
        (self.waiting, self.searched) = (Vec::new(), 0);
    }

    fn search(&mut self, found: &mut impl FnMut(&str)) {
        search(&self.waiting, self.deep > 0, &mut self.looks, found);
        self.deep = self.deep.saturating_sub(self.waiting.len() - self.searched);
        let tail = self.waiting.len().saturating_sub(TAIL);
        self.waiting.drain(..tail);
        self.searched = self.waiting.len();
    }
}

/// Returns the placeholders in the URL and header fields of a request, with those in plain spelling in a field's
/// name.
pub(crate) fn in_head(path: &str, query: Option<&str>, headers: &HeaderMap) -> Vec<Placeholder> {
    let (mut all, mut looks) = (Vec::new(), MAX_LOOKS);
    let names =
        || headers.keys().map(|name| name.as_str().as_bytes()).filter(|name| name.len() >= Placeholder::LEN);
    let values = headers.values().map(http::HeaderValue::as_bytes);
    let url = [path.as_bytes(), query.unwrap_or_default().as_bytes()];
    names().for_each(|name| all.extend(Placeholder::find_all(name)));
    for text in url.into_iter().chain(names()).chain(values).filter(|text| text.len() >= SHORTEST) {
        search(text, true, &mut looks, &mut |text| all.extend(Placeholder::find_all(text.as_bytes())));
    }
    all.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    all.dedup();
    all
}

fn search(text: &[u8], is_deep: bool, looks: &mut usize, found: &mut impl FnMut(&str)) {
    if !may_hide_one(text) {
        return;
    }
    let read = EscapedText::new(text);
    let places = if is_deep { BEGINNINGS.places(&read) } else { common_places(text) };
    for at in places.into_iter().filter(|at| !text[*at..].starts_with(Placeholder::PREFIX.as_bytes())) {
        let Some(left) = looks.checked_sub(1) else { return };
        *looks = left;
        for placeholder in decoded(&characters(&read, at)) {
            found(placeholder.as_str());
        }
    }
}

/// Returns whether there is an escape, or a text as long as a placeholder in base64. Most heads and short bodies
/// contain neither.
fn may_hide_one(text: &[u8]) -> bool {
    if memchr::memchr3(b'%', b'\\', b'&', text).is_some() {
        return true;
    }
    let mut run = 0;
    text.iter().filter(|byte| !matches!(byte, b'\r' | b'\n')).any(|byte| {
        run = if is_own(*byte) { run + 1 } else { 0 };
        run >= SHORTEST_CODED
    })
}

fn common_places(text: &[u8]) -> Vec<usize> {
    let places = COMMON.iter().flat_map(|finder| finder.find_iter(text));
    // In base64, the character before the match also contains bits of the prefix.
    places.map(|at| if at > 0 && is_own(text[at - 1]) { at - 1 } else { at }).collect()
}

/// The characters of a spelling that starts at `at`. Each is read in its longest form, as programs write escapes.
fn characters(text: &EscapedText<'_>, mut at: usize) -> Vec<u8> {
    let mut all = Vec::with_capacity(LONGEST);
    while all.len() < LONGEST {
        let mut behind = Vec::new();
        // A line break counts only if no other reading continues: `\\u006e` is an n, and an escaped line break.
        let Some(longest) = longest(text, at).or_else(|| {
            text.line_breaks(at, &mut behind);
            behind.iter().filter_map(|place| longest(text, *place)).max_by_key(|reading| reading.end)
        }) else {
            break;
        };
        all.extend_from_slice(longest.character.as_bytes());
        at = longest.end;
    }
    all
}

/// The longest reading of a character that may occur in a spelling; the first one of equals, so that `\141` is octal.
fn longest(text: &EscapedText<'_>, at: usize) -> Option<Decoding> {
    let is_own = |reading: &Decoding| reading.character.as_bytes().iter().all(|byte| is_own(*byte));
    text.readings(at).filter(is_own).min_by_key(|reading| Reverse(reading.end))
}

/// Returns whether `byte` may occur in a spelling of a placeholder.
fn is_own(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'+' | b'/' | b'-' | 0)
}

/// Returns the placeholders that the characters encode.
fn decoded(characters: &[u8]) -> Vec<Placeholder> {
    let plain: Vec<u8> = characters.iter().copied().filter(|byte| *byte != 0).collect();
    let mut all: Vec<Placeholder> = Placeholder::find_all(&plain).collect();
    for skipped in 0..2 {
        let digits = plain.iter().skip(skipped).take_while(|byte| byte.is_ascii_hexdigit());
        let mut digits: Vec<u8> = digits.copied().collect();
        digits.truncate(digits.len() & !1);
        all.extend(HEXLOWER_PERMISSIVE.decode(&digits).iter().flat_map(|text| Placeholder::find_all(text)));
    }
    let upper = plain.to_ascii_uppercase();
    all.extend(in_groups(&BASE64, 4, &plain));
    all.extend(in_groups(&BASE64URL, 4, &plain));
    all.extend(in_groups(&BASE32, 8, &upper));
    all
}

/// Returns the placeholders in a text whose character groups start at an unknown offset.
fn in_groups(encoding: &Encoding, group: usize, characters: &[u8]) -> Vec<Placeholder> {
    let is_of = |byte: &&u8| encoding.specification().symbols.as_bytes().contains(byte);
    let own: Vec<u8> = characters.iter().take_while(is_of).copied().collect();
    let all = (0..group).flat_map(|before| {
        let mut padded = vec![b'A'; before];
        padded.extend_from_slice(&own);
        // A truncated group is padded, because its first bytes are complete.
        padded.resize(padded.len().next_multiple_of(group), b'A');
        encoding.decode(&padded).unwrap_or_default()
    });
    let decoded: Vec<u8> = all.collect();
    Placeholder::find_all(&decoded).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::format_collect, reason = "test texts are short")]

    use data_encoding::{BASE32_NOPAD, BASE64_NOPAD, HEXUPPER};

    use super::*;

    fn own() -> Placeholder {
        Placeholder::from_bits(*b"0123456789abcdefghij")
    }

    /// All spellings except the plain one.
    fn spelt(text: &str) -> Vec<(&'static str, String)> {
        let percent = |text: &str| text.bytes().map(|b| format!("%{b:02x}")).collect::<String>();
        let again = |text: &str| text.replace('%', "%25");
        let encoded = |before: &str| BASE64_NOPAD.encode(format!("{before}{text}:x").as_bytes());
        let wrapped = |text: &str| {
            text.as_bytes()
                .chunks(19)
                .map(|line| String::from_utf8_lossy(line))
                .collect::<Vec<_>>()
                .join("\r\n")
        };
        vec![
            ("percent", percent(text)),
            ("percent twice", again(&percent(text))),
            ("percent thrice", again(&again(&percent(text)))),
            ("one escape", text.replacen('_', "%5F", 1)),
            ("JSON", text.bytes().map(|b| format!("\\u{b:04x}")).collect()),
            ("JSON in JSON", text.bytes().map(|b| format!("\\\\u{b:04x}")).collect()),
            ("HTML", text.bytes().map(|b| format!("&#{b};")).collect()),
            ("octal", text.bytes().map(|b| format!("\\{b:03o}")).collect()),
            ("base64", encoded("")),
            ("base64 after one", encoded("a")),
            ("base64 after two", encoded("u:")),
            ("base64 after many", encoded("{\"key\": \"")),
            ("base64 in lines", wrapped(&encoded("user:"))),
            ("base64 in percent", percent(&encoded("u:"))),
            ("base32", BASE32_NOPAD.encode(format!("abc{text}").as_bytes())),
            ("base32 in lower case", BASE32_NOPAD.encode(text.as_bytes()).to_lowercase()),
            ("hex", HEXUPPER.encode(text.as_bytes())),
            ("hex in lower case", HEXUPPER.encode(text.as_bytes()).to_lowercase()),
            ("UTF-16", text.chars().flat_map(|c| [c, '\0']).collect()),
            ("UTF-16, high bytes first", text.chars().flat_map(|c| ['\0', c]).collect()),
        ]
    }

    fn found(text: &str, before: usize, size: usize) -> Vec<String> {
        let (mut scan, mut all) = (DisguisedScan::default(), Vec::new());
        let text = format!("{}{text}\" and more", "- ".repeat(before));
        text.as_bytes().chunks(size).for_each(|piece| scan.push(piece, |text| all.push(text.to_owned())));
        assert!(scan.waiting.capacity() <= 2 * (PIECE + TAIL));
        scan.end(|text| all.push(text.to_owned()));
        all.dedup();
        all
    }

    #[test]
    fn placeholders_are_found_in_every_spelling_and_chunking() {
        for (what, text) in spelt(own().as_str()) {
            for (before, size) in
                [(0, usize::MAX), (1, 1), (2, 7), (PIECE / 2 - 20, 100), (PIECE / 2 - 100, 5000)]
            {
                assert_eq!(found(&text, before, size), [own().as_str()], "{what} {before} {size}: {text}");
            }
        }
    }

    #[test]
    fn common_spellings_are_found_after_text_of_any_length() {
        for (what, text) in spelt(own().as_str()) {
            let is_common =
                ["base64", "base64 after one", "base64 after two", "base64 after many", "hex", "UTF-16"];
            if is_common.contains(&what) {
                assert_eq!(found(&text, DEEP, 16_384), [own().as_str()], "{what}");
            }
        }
    }

    #[test]
    fn other_text_is_not_reported_as_placeholder() {
        let short = BASE64_NOPAD.encode(&own().as_str().as_bytes()[..41]);
        for text in [own().as_str(), &short, "onecli%5Fph%5F and more", "b25lY2xpX3BoX", ""] {
            assert!(found(text, 3, 50).is_empty(), "{text}");
        }
    }

    /// Examining a candidate takes some microseconds, so the number of candidates is limited.
    #[test]
    fn examined_candidates_are_limited() {
        let mut scan = DisguisedScan::default();
        scan.push("onecli%5fph_".repeat(100_000).as_bytes(), |text| panic!("{text}"));
        assert_eq!(scan.looks, 0);
    }

    #[test]
    fn disguised_placeholders_are_found_in_heads() {
        let mut headers = HeaderMap::new();
        headers.insert("x-key", BASE64.encode(format!("me:{}", own()).as_bytes()).parse().unwrap());
        let name: http::HeaderName = Placeholder::from_bits([7; 20]).as_str().parse().unwrap();
        headers.insert(name, http::HeaderValue::from_static("1"));
        headers.insert("x-plain", Placeholder::from_bits([9; 20]).as_str().parse().unwrap());
        let thrice = spelt(Placeholder::from_bits([8; 20]).as_str()).remove(2).1;
        let all = in_head("/", Some(&format!("a={thrice}")), &headers);
        let mut expected = [own(), Placeholder::from_bits([7; 20]), Placeholder::from_bits([8; 20])];
        expected.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        assert_eq!(all, expected);
    }
}
