//! Texts without their escapes.

use percent_encoding::percent_decode;

/// Returns the text in lower case, without escapes. A chain of servers may decode them more than once.
pub(super) fn unescaped(text: &[u8]) -> String {
    let mut bytes: Vec<u8> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    for _ in 0..2 {
        if bytes.contains(&b'%') {
            bytes = percent_decode(&bytes).collect();
        }
    }
    let text = String::from_utf8_lossy(&bytes);
    // Servers ignore a byte order mark at the beginning of a form.
    text.trim_matches(|c: char| c.is_whitespace() || matches!(c, '\0' | '\u{feff}')).to_ascii_lowercase()
}

/// Returns the body in lower case, with `\uXXXX` of ASCII characters decoded (RFC 8259 section 7).
pub(super) fn without_json_escapes(body: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(body.len());
    let mut at = 0;
    while let Some(&byte) = body.get(at) {
        let escape = (byte == b'\\').then(|| ascii_escape(&body[at..])).flatten();
        at += if escape.is_some() { 6 } else { 1 };
        text.push(escape.unwrap_or(byte).to_ascii_lowercase());
    }
    text
}

/// Returns the character of `\u00XX`.
fn ascii_escape(text: &[u8]) -> Option<u8> {
    let digits = text.strip_prefix(b"\\u00")?.get(..2)?;
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}
