//! Bodies in which denials search for parameters: the selection of bodies, and the search.

use http::header::{self, HeaderMap, HeaderName};

/// Character sets in which ASCII is encoded as itself (RFC 8259 section 8.1 permits only UTF-8).
const ASCII_BASED: [&str; 4] = ["utf-8", "utf8", "us-ascii", "iso-8859-1"];
/// Media types whose names and values are not text between `&` or quotes.
const UNSEARCHED: [&str; 2] = ["multipart/", "cbor"];

/// Returns whether a body can be read as received: no content coding, no chunk signatures, a character set that
/// includes ASCII, and neither multipart nor CBOR.
pub(super) fn is_plain(headers: &HeaderMap) -> bool {
    let values = |name| headers.get_all(name).iter().map(|value: &http::HeaderValue| value.as_bytes());
    let identity = values(header::CONTENT_ENCODING).all(|coding| coding.eq_ignore_ascii_case(b"identity"));
    let chunks =
        values(HeaderName::from_static("x-amz-content-sha256")).any(|hash| hash.starts_with(b"STREAMING"));
    let charset = values(header::CONTENT_TYPE).all(has_ascii);
    let kind = values(header::CONTENT_TYPE).all(is_searched);
    identity && !chunks && charset && kind
}

/// Returns whether each `charset` of a Content-Type names a set that includes ASCII.
fn has_ascii(kind: &[u8]) -> bool {
    let kind = kind.to_ascii_lowercase();
    memchr::memmem::find_iter(&kind, b"charset").all(|at| {
        let rest = kind[at + b"charset".len()..].trim_ascii_start();
        // `charset*=` has a separate syntax (RFC 8187).
        let Some(set) = rest.strip_prefix(b"=") else { return !rest.starts_with(b"*") };
        let set = set.trim_ascii_start();
        let set = set.strip_prefix(b"\"").unwrap_or(set);
        ASCII_BASED.iter().any(|own| set.starts_with(own.as_bytes()))
    })
}

/// Returns whether a Content-Type names a form or a text.
fn is_searched(kind: &[u8]) -> bool {
    let kind = kind.to_ascii_lowercase();
    !UNSEARCHED.iter().any(|other| memchr::memmem::find(&kind, other.as_bytes()).is_some())
}

/// Returns the text after a UTF-16 byte order mark. Null characters are omitted, because UTF-32 contains them.
pub(super) fn of_utf16(body: &[u8]) -> Option<String> {
    let unit: fn([u8; 2]) -> u16 = match body.get(..2)? {
        [0xff, 0xfe] => u16::from_le_bytes,
        [0xfe, 0xff] => u16::from_be_bytes,
        _ => return None,
    };
    let units = body[2..].chunks_exact(2).map(|two| unit([two[0], two[1]])).filter(|unit| *unit != 0);
    let text = char::decode_utf16(units).map(|read| read.unwrap_or(char::REPLACEMENT_CHARACTER));
    Some(text.collect())
}

/// Returns whether a body begins like a JSON object or array, regardless of its Content-Type.
pub(super) fn is_json(body: &[u8]) -> bool {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    matches!(body.trim_ascii_start().first(), Some(b'{' | b'['))
}

/// Returns whether the text contains `name` other than as part of a longer name. Quotes are not required, because
/// some parsers accept names without them.
pub(super) fn has_name(text: &[u8], name: &str) -> bool {
    let is_part = |at: Option<&u8>| at.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    memchr::memmem::find_iter(text, name.as_bytes()).any(|at| {
        let before = at.checked_sub(1).and_then(|before| text.get(before));
        !is_part(before) && !is_part(text.get(at + name.len()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_whole_words_only() {
        let check = |text: &str, expected: bool| {
            assert_eq!(has_name(text.as_bytes(), "password"), expected, "{text}");
        };
        check(r#"{"password":1}"#, true);
        check("{password:1}", true);
        check(r#"{"mypassword":1,"password":2}"#, true);
        check(r#"{"mypassword":1,"passwords":2,"pass_password":3}"#, false);
        check("password", true);
        check("", false);
    }

    #[test]
    fn byte_order_marks_are_read() {
        let wide = |bytes: fn(u16) -> [u8; 2]| -> Vec<u8> {
            "\u{feff}Action=x".encode_utf16().flat_map(bytes).collect()
        };
        assert_eq!(of_utf16(&wide(u16::to_le_bytes)).as_deref(), Some("Action=x"));
        assert_eq!(of_utf16(&wide(u16::to_be_bytes)).as_deref(), Some("Action=x"));
        assert_eq!(of_utf16(b"\xff\xfe\0\0A\0\0\0=").as_deref(), Some("A"));
        for body in [&b"Action=x"[..], b"\xef\xbb\xbfAction=x", b"\xff", b""] {
            assert_eq!(of_utf16(body), None, "{body:?}");
        }
        assert!(is_json(b"\xef\xbb\xbf {\"a\":1}"));
        assert!(!is_json(b"a={}"));
    }
}
