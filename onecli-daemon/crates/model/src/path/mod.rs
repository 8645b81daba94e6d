//! Request paths, canonicalised once (RFC 3986 section 6.2.2).

use std::fmt;

mod ambiguity;
mod fold;
mod readings;

pub use ambiguity::Ambiguity;
pub(super) use fold::fold;
pub(super) use readings::Names;
pub use readings::PathReadings;

/// The maximum length of a path, in bytes: of its canonical form, and of each text that servers may derive from it.
/// The query does not count.
pub const MAX_PATH: usize = 16 * 1024;
/// The maximum number of segments of a path, in every way in which a server may split it. An encoded slash or
/// backslash counts.
pub const MAX_SEGMENTS: usize = 512;

/// A request path in canonical form: ASCII, starts with `/`, no query, no fragment. Percent-escapes of unreserved
/// characters are decoded, the others are in upper case.
///
/// A path that servers are known to read in different ways has an [`Ambiguity`]. It matches only patterns that match
/// every path, so that it cannot reach a place other than the one that was matched.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CanonicalPath {
    text: String,
    ambiguity: Option<Ambiguity>,
    /// Whether it contains characters that some servers replace by separators or delimiters (`／`, `？`).
    is_respelled: bool,
}

/// The reason why no HTTP request may have a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// The path does not begin with `/`.
    #[error("the path does not begin with '/'")]
    NotAbsolute,
    /// The path contains a character outside RFC 3986's set: space, control, non-ASCII, `?`, `#`, `"`, `<`, `>`.
    #[error("the path contains {0:?}, which must be percent-encoded")]
    BadCharacter(char),
    /// The path is longer than [`MAX_PATH`].
    #[error("the path is longer than {MAX_PATH} bytes")]
    TooLong,
    /// The path has more than [`MAX_SEGMENTS`].
    #[error("the path has more than {MAX_SEGMENTS} segments")]
    TooManySegments,
}

impl CanonicalPath {
    /// Canonicalises the path component of a request target.
    ///
    /// # Errors
    /// [`PathError`] for a text that is not a valid path.
    pub fn parse(raw: &str) -> Result<CanonicalPath, PathError> {
        if !raw.starts_with('/') {
            return Err(PathError::NotAbsolute);
        }
        // A canonical path is at least a third as long, because only escapes of unreserved characters are decoded.
        if raw.len() > 3 * MAX_PATH {
            return Err(PathError::TooLong);
        }
        let mut text = String::with_capacity(raw.len());
        // The position in `text` of a `%` without two hex digits after it.
        let mut broken = None;
        let bytes = raw.as_bytes();
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            at += 1;
            match byte {
                b'%' => {
                    let Some(decoded) = escaped(bytes, at) else {
                        broken = Some(text.len());
                        text.push('%');
                        continue;
                    };
                    at += 2;
                    // Immediately after an incomplete escape, a decoded digit would complete it.
                    let completes = broken.is_some_and(|broken| text.len() - broken <= 2);
                    if is_unreserved(decoded) && !completes {
                        text.push(char::from(decoded));
                    } else {
                        push_escape(&mut text, decoded);
                    }
                }
                b'\\' => push_escape(&mut text, byte),
                0..=0x20 | 0x7f.. | b'?' | b'#' | b'"' | b'<' | b'>' => {
                    let named = raw.get(at - 1..).and_then(|rest| rest.chars().next());
                    return Err(PathError::BadCharacter(named.unwrap_or(char::REPLACEMENT_CHARACTER)));
                }
                b => text.push(char::from(b)),
            }
        }
        if text.len() > MAX_PATH {
            return Err(PathError::TooLong);
        }
        let texts = readings::texts(&text);
        // One character (`㌖`) may become six in compatibility normalization.
        if texts.iter().any(|text| text.len() > MAX_PATH) {
            return Err(PathError::TooLong);
        }
        // Each separator takes at least one byte of the path.
        if text.len() > MAX_SEGMENTS && readings::most_segments(&texts) > MAX_SEGMENTS {
            return Err(PathError::TooManySegments);
        }
        let is_respelled = readings::is_respelled(&texts);
        // Judges the forwarded text: decoding may have formed a sequence that the raw text did not show.
        let ambiguity = ambiguity_of(&text);
        Ok(CanonicalPath { text, ambiguity, is_respelled })
    }

    /// Returns the path as it is matched and forwarded.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the reason why servers may disagree about this path; `None` if they agree.
    pub fn ambiguity(&self) -> Option<Ambiguity> {
        self.ambiguity
    }

    /// Returns whether a server might resolve the path to a place above its beginning. Coarse: two dots anywhere in
    /// an ambiguous path count.
    pub(super) fn may_climb(&self) -> bool {
        self.ambiguity.is_some() && fold::expanded(&self.text).contains("..")
    }

    /// Returns whether it contains characters that some servers replace by separators or delimiters.
    pub(super) fn is_respelled(&self) -> bool {
        self.is_respelled
    }

    /// Returns the segments after the leading `/`. A trailing `/` gives an empty last segment.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.text[1..].split('/')
    }
}

impl fmt::Display for CanonicalPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Returns the first ambiguity in a canonical path.
fn ambiguity_of(text: &str) -> Option<Ambiguity> {
    let bytes = text.as_bytes();
    let found = bytes.iter().enumerate().find_map(|(at, byte)| match byte {
        b'%' => match escaped(bytes, at + 1) {
            None => Some(Ambiguity::DoubleEncoding),
            Some(b'%') if escaped(bytes, at + 3).is_some() || is_wide(bytes, at + 3) => {
                Some(Ambiguity::DoubleEncoding)
            }
            Some(b'/') => Some(Ambiguity::EncodedSlash),
            Some(b'\\') => Some(Ambiguity::Backslash),
            Some(b';') => Some(Ambiguity::PathParameter),
            Some(b'?' | b'#' | 0..=0x1f | 0x7f) => Some(Ambiguity::EncodedDelimiter),
            Some(_) => None,
        },
        b';' => Some(Ambiguity::PathParameter),
        b'/' if bytes.get(at + 1) == Some(&b'/') => Some(Ambiguity::EmptySegment),
        _ => None,
    });
    let navigates = || text.split('/').find_map(fold::navigates);
    let garbled = || bytes.contains(&b'%') && percent_encoding::percent_decode(bytes).decode_utf8().is_err();
    found.or_else(|| garbled().then_some(Ambiguity::NotUtf8)).or_else(navigates)
}

/// Returns whether `uXXXX` is at `at`. After a percent sign this is an escape of IIS.
fn is_wide(bytes: &[u8], at: usize) -> bool {
    matches!(bytes.get(at), Some(b'u' | b'U'))
        && escaped(bytes, at + 1).is_some()
        && escaped(bytes, at + 3).is_some()
}

/// Returns the byte encoded by the two hex digits at `at`.
fn escaped(bytes: &[u8], at: usize) -> Option<u8> {
    bytes.get(at..at + 2).and_then(decode_hex)
}

fn push_escape(text: &mut String, byte: u8) {
    text.push('%');
    text.push(char::from(HEX[usize::from(byte >> 4)]));
    text.push(char::from(HEX[usize::from(byte & 15)]));
}

const HEX: &[u8; 16] = b"0123456789ABCDEF";

fn decode_hex(pair: &[u8]) -> Option<u8> {
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    }
}

/// Returns whether a byte is unreserved (RFC 3986 section 2.3).
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(raw: &str, text: &str, ambiguity: Option<Ambiguity>) {
        let path = CanonicalPath::parse(raw).unwrap();
        assert_eq!((path.as_str(), path.ambiguity()), (text, ambiguity), "{raw:?}");
    }

    #[test]
    fn spellings_of_one_path_become_one() {
        check("/", "/", None);
        check("/v1/chat", "/v1/chat", None);
        check("/v1/%63hat", "/v1/chat", None);
        check("/a%3ab", "/a%3Ab", None);
        check("/a%20b/", "/a%20b/", None);
        check("/100%25", "/100%25", None);
        check("/.well-known/x", "/.well-known/x", None);
    }

    #[test]
    fn encoded_slashes_alone_are_opaque() {
        let check = |raw: &str| {
            PathReadings::new(&CanonicalPath::parse(raw).unwrap()).is_plain_but_for_encoded_slashes()
        };
        assert!(check("/api/v4/projects/group%2fname/issues") && check("/@scope%2Fname") && check("/a"));
        for bad in ["/a%2F..%2Fb", "/a%2F%2Fb", "/a%2Fb;c", "/a%2Fb%5Cc", "/a%252Fb", "/%2Fa", "/a%2F."] {
            assert!(!check(bad), "{bad}");
        }
    }

    #[test]
    fn ambiguous_paths_are_marked() {
        check("/v1/../admin", "/v1/../admin", Some(Ambiguity::DotSegment));
        check("/v1/%2e%2E/admin", "/v1/../admin", Some(Ambiguity::DotSegment));
        check("/v1/.%2e", "/v1/..", Some(Ambiguity::DotSegment));
        check("/v1/%2fadmin", "/v1/%2Fadmin", Some(Ambiguity::EncodedSlash));
        check("/v1\\..\\admin", "/v1%5C..%5Cadmin", Some(Ambiguity::Backslash));
        check("/v1/%5cadmin", "/v1/%5Cadmin", Some(Ambiguity::Backslash));
        check("//v1", "//v1", Some(Ambiguity::EmptySegment));
        check("/v1;x=1/a", "/v1;x=1/a", Some(Ambiguity::PathParameter));
        check("/v1/%252e%252e", "/v1/%252e%252e", Some(Ambiguity::DoubleEncoding));
        check("/v1/%zz", "/v1/%zz", Some(Ambiguity::DoubleEncoding));
        check("/v1/%u002e", "/v1/%u002e", Some(Ambiguity::DoubleEncoding));
        check("/v1/a%25u002fb", "/v1/a%25u002fb", Some(Ambiguity::DoubleEncoding));
        check("/v1/100%25up", "/v1/100%25up", None);
        check("/v1/%0d%0a", "/v1/%0D%0A", Some(Ambiguity::EncodedDelimiter));
        check("/v1/%3fa", "/v1/%3Fa", Some(Ambiguity::EncodedDelimiter));
        check("/v1/%c0%ae%c0%ae/admin", "/v1/%C0%AE%C0%AE/admin", Some(Ambiguity::NotUtf8));
        check("/v1/%c3%a9", "/v1/%C3%A9", None);
        check("/v1/%c3/%a9", "/v1/%C3/%A9", Some(Ambiguity::NotUtf8));
    }

    #[test]
    fn dot_segments_are_found_after_folding() {
        for segment in [
            "..%20",
            "%20..",
            ".%20.",
            "...",
            "....",
            "..%20.",
            "%09..",
            "..%C2%A0",
            "..%E3%80%80",
            "%EF%BC%8E%EF%BC%8E",
            ".%EF%BC%8E",
            "%E2%80%A5",
            "%E2%80%A6",
            "%E2%80%A4.",
            "%E2%80%8B..",
            "..%EF%BB%BF",
            "..::$INDEX_ALLOCATION",
            "..:$I30:$INDEX_ALLOCATION",
            ".::$DATA",
            "..%EF%BC%8Fadmin",
            "..%EF%BC%BCadmin",
            "..%E2%88%95admin",
            "a%EF%BC%8F..%EF%BC%8Fb",
            "%EF%BC%852e%EF%BC%852e",
            "%EF%B9%92%EF%B9%92",
        ] {
            let path = CanonicalPath::parse(&format!("/v1/{segment}/x")).unwrap();
            // A control character is found first.
            assert!(
                matches!(path.ambiguity(), Some(Ambiguity::DotSegment | Ambiguity::EncodedDelimiter)),
                "{path}"
            );
        }
        check("/v1/%20/x", "/v1/%20/x", Some(Ambiguity::EmptySegment));
        check("/v1/a%EF%BC%8F%EF%BC%8Fb", "/v1/a%EF%BC%8F%EF%BC%8Fb", Some(Ambiguity::EmptySegment));
    }

    #[test]
    fn ordinary_names_are_not_ambiguous() {
        for name in [
            "a..",
            "..a",
            "a...b",
            ".hidden",
            "v1.",
            "a%20b%20",
            "%20a",
            "レポート２０２４．pdf",
            "２０２４／０１",
            "質問？.txt",
            "Straße",
            "naïve…",
            "a‥b",
            "Ⅳ",
            "½",
            "x:sign",
            ":batch",
            "a::$DATA",
            "５０％",
        ] {
            let escaped: String =
                percent_encoding::utf8_percent_encode(name, percent_encoding::CONTROLS).collect();
            let path = CanonicalPath::parse(&format!("/v1/{escaped}/x")).unwrap();
            assert_eq!(path.ambiguity(), None, "{name}");
        }
    }

    #[test]
    fn length_and_segments_are_limited() {
        let check = |path: String, expected: Option<PathError>| {
            assert_eq!(CanonicalPath::parse(&path).err(), expected, "{} bytes", path.len());
        };
        check(format!("/{}", "a".repeat(MAX_PATH - 1)), None);
        check(format!("/{}", "a".repeat(MAX_PATH)), Some(PathError::TooLong));
        check(format!("/{}", "%61".repeat(MAX_PATH - 1)), None);
        check(format!("/{}", "\\".repeat(MAX_PATH / 3 + 1)), Some(PathError::TooLong));
        let growing = |count: usize| format!("/{}", "%E3%8C%96".repeat(count));
        check(growing((MAX_PATH - 1) / "キロメートル".len()), None);
        check(growing((MAX_PATH - 1) / "キロメートル".len() + 1), Some(PathError::TooLong));
        check("/a".repeat(MAX_SEGMENTS), None);
        for separator in
            ["/", "%2f", "%5C", "\\", "%252f", "%25255c", "%EF%BC%8F", "%E2%84%80", "%EF%BC%85%32f"]
        {
            let path = |count: usize| format!("/a{}", format!("{separator}a").repeat(count));
            check(path(MAX_SEGMENTS - 1), None);
            check(path(MAX_SEGMENTS), Some(PathError::TooManySegments));
        }
    }

    #[test]
    fn invalid_paths_are_errors() {
        for raw in ["", "*", "v1", "/a b", "/a\u{7f}", "/é", "/a?b", "/a#b"] {
            assert!(CanonicalPath::parse(raw).is_err(), "{raw:?}");
        }
    }

    /// Decoding an escape must not form another escape. The path would be judged by the first reading and served by
    /// the second.
    #[test]
    fn an_escape_within_an_escape_is_a_double_encoding() {
        for raw in
            ["%25%32e", "%25%32%65", "%252%65", "%2%35%32e", "%25%32f", "%25%35c", "%25%32%35", "%%32e"]
        {
            let path = CanonicalPath::parse(&format!("/v1/{raw}/admin")).unwrap();
            assert_eq!(path.ambiguity(), Some(Ambiguity::DoubleEncoding), "{raw}: {path}");
        }
        check("/v1/%25%32e", "/v1/%252e", Some(Ambiguity::DoubleEncoding));
        check("/v1/%%32e", "/v1/%%32e", Some(Ambiguity::DoubleEncoding));
        check("/v1/%2%35e", "/v1/%2%35e", Some(Ambiguity::DoubleEncoding));
        check("/v1/100%25%20", "/v1/100%25%20", None);
    }

    /// Paths with many sequences that are hard for parsers.
    fn paths() -> impl Strategy<Value = String> {
        let parts = [
            "%", "%25", "%2", "2", "3", "5", "e", "E", "f", "c", "%32", "%35", "%65", "%2e", "%2F", "%5c",
            "%3b", "%20", "%c3", "/", "//", ".", "..", "\\", ";", "a", "~", "%zz",
        ];
        let dense = prop::collection::vec(prop::sample::select(parts.to_vec()), 0..12)
            .prop_map(|parts| format!("/{}", parts.concat()));
        prop_oneof![4 => dense, 1 => "/[ -~]{0,24}"]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        /// The forwarded path is the judged path: parsed again, it has the same text and the same ambiguity.
        #[test]
        fn canonical_form_is_a_fixed_point(raw in paths()) {
            if let Ok(once) = CanonicalPath::parse(&raw) {
                prop_assert_eq!(CanonicalPath::parse(once.as_str()).unwrap(), once);
            }
        }

        /// However often a server decodes a path without ambiguity, it has the segments that were matched.
        #[test]
        fn decoding_again_keeps_the_segments(raw in paths()) {
            let Ok(path) = CanonicalPath::parse(&raw) else { return Ok(()) };
            if path.ambiguity().is_some() {
                return Ok(());
            }
            let mut decoded = path.as_str().as_bytes().to_vec();
            for _ in 0..3 {
                decoded = percent_encoding::percent_decode(&decoded).collect();
                prop_assert_eq!(decoded.split(|&byte| byte == b'/').count(), path.as_str().split('/').count());
                prop_assert!(!decoded.contains(&b'\\') && !decoded.contains(&b';'));
                prop_assert!(decoded.split(|&byte| byte == b'/').all(|s| s != b"." && s != b".."));
            }
        }
    }
}
