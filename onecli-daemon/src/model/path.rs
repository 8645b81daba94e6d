//! Request paths, canonicalised once (RFC 3986 section 6.2.2).

use std::fmt;

/// A request path in canonical form: ASCII, starts with `/`, no query, no fragment; percent-escapes of
/// unreserved characters decoded, the others in upper case.
///
/// A path that servers are known to read in different ways keeps an [`Ambiguity`]. It only matches patterns
/// that match every path, so that it cannot reach a place other than the one that was matched.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CanonicalPath {
    text: String,
    ambiguity: Option<Ambiguity>,
}

/// Why servers disagree about a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ambiguity {
    /// A `.` or `..` segment, written out or percent-encoded.
    DotSegment,
    /// An encoded `/` (`%2F`).
    EncodedSlash,
    /// A `\` or `%5C`.
    Backslash,
    /// `//`.
    EmptySegment,
    /// `;`, which some servers cut off with what follows.
    PathParameter,
    /// An encoded percent sign before two hex digits, or a `%` that begins no escape.
    DoubleEncoding,
    /// An encoded control character, or an encoded `?` or `#`.
    EncodedDelimiter,
}

impl fmt::Display for Ambiguity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Ambiguity::DotSegment => "a '.' or '..' segment",
            Ambiguity::EncodedSlash => "an encoded slash (%2F)",
            Ambiguity::Backslash => "a backslash",
            Ambiguity::EmptySegment => "an empty segment (//)",
            Ambiguity::PathParameter => "a path parameter (;)",
            Ambiguity::DoubleEncoding => "a doubly encoded or broken percent escape",
            Ambiguity::EncodedDelimiter => "an encoded control character, '?' or '#'",
        })
    }
}

/// A path that no HTTP request may carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Does not begin with `/`.
    #[error("the path does not begin with '/'")]
    NotAbsolute,
    /// Holds a character outside RFC 3986's set: space, control, non-ASCII, `?`, `#`, `"`, `<`, `>`.
    #[error("the path holds a character that must be percent-encoded")]
    BadCharacter,
}

impl CanonicalPath {
    /// Canonicalises the path component of a request target.
    ///
    /// # Errors
    /// [`PathError`] for what is no path at all.
    pub fn parse(raw: &str) -> Result<CanonicalPath, PathError> {
        if !raw.starts_with('/') {
            return Err(PathError::NotAbsolute);
        }
        let mut text = String::with_capacity(raw.len());
        let mut ambiguity = None;
        let mut note = |found| ambiguity = ambiguity.or(Some(found));
        let bytes = raw.as_bytes();
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            at += 1;
            match byte {
                b'%' => {
                    let Some(decoded) = bytes.get(at..at + 2).and_then(decode_hex) else {
                        note(Ambiguity::DoubleEncoding);
                        text.push('%');
                        continue;
                    };
                    at += 2;
                    match decoded {
                        b if is_unreserved(b) => text.push(char::from(b)),
                        b => {
                            match b {
                                b'/' => note(Ambiguity::EncodedSlash),
                                b'\\' => note(Ambiguity::Backslash),
                                b';' => note(Ambiguity::PathParameter),
                                b'%' if bytes.get(at..at + 2).and_then(decode_hex).is_some() => {
                                    note(Ambiguity::DoubleEncoding);
                                }
                                b'?' | b'#' | 0..=0x1f | 0x7f => note(Ambiguity::EncodedDelimiter),
                                _ => {}
                            }
                            text.push('%');
                            text.push(char::from(HEX[usize::from(b >> 4)]));
                            text.push(char::from(HEX[usize::from(b & 15)]));
                        }
                    }
                }
                b'\\' => {
                    note(Ambiguity::Backslash);
                    text.push_str("%5C");
                }
                b';' => {
                    note(Ambiguity::PathParameter);
                    text.push(';');
                }
                b'/' if text.ends_with('/') => {
                    note(Ambiguity::EmptySegment);
                    text.push('/');
                }
                0..=0x20 | 0x7f.. | b'?' | b'#' | b'"' | b'<' | b'>' => return Err(PathError::BadCharacter),
                b => text.push(char::from(b)),
            }
        }
        if text.split('/').any(|segment| segment == "." || segment == "..") {
            note(Ambiguity::DotSegment);
        }
        Ok(CanonicalPath { text, ambiguity })
    }

    /// The path as it is matched and forwarded.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Why servers may disagree about this path, if they may.
    pub fn ambiguity(&self) -> Option<Ambiguity> {
        self.ambiguity
    }

    /// The segments after the leading `/`; a trailing `/` gives a last, empty one.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.text[1..].split('/')
    }
}

impl fmt::Display for CanonicalPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

const HEX: &[u8; 16] = b"0123456789ABCDEF";

fn decode_hex(pair: &[u8]) -> Option<u8> {
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    }
}

/// RFC 3986 section 2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

#[cfg(test)]
mod tests {
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
    fn what_servers_read_differently_is_marked() {
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
        check("/v1/%0d%0a", "/v1/%0D%0A", Some(Ambiguity::EncodedDelimiter));
        check("/v1/%3fa", "/v1/%3Fa", Some(Ambiguity::EncodedDelimiter));
    }

    #[test]
    fn what_is_no_path_is_an_error() {
        for raw in ["", "*", "v1", "/a b", "/a\u{7f}", "/é", "/a?b", "/a#b"] {
            assert!(CanonicalPath::parse(raw).is_err(), "{raw:?}");
        }
    }

    #[test]
    fn canonical_form_is_a_fixed_point() {
        for raw in ["/v1/%63hat", "/a%3ab", "/v1/%252e", "/v1\\a", "/%zz%2f;//.."] {
            let once = CanonicalPath::parse(raw).unwrap();
            assert_eq!(CanonicalPath::parse(once.as_str()).unwrap().as_str(), once.as_str(), "{raw:?}");
        }
    }
}
