//! Equivalent spellings of a path segment, as some servers treat them.

use std::borrow::Cow;

use icu_normalizer::ComposingNormalizerBorrowed;
use percent_encoding::percent_decode_str;

use super::ambiguity::Ambiguity;

/// The number of times that escapes are decoded. A server behind another may decode them again.
pub(super) const DECODINGS: usize = 3;

const NFKC: ComposingNormalizerBorrowed<'static> = ComposingNormalizerBorrowed::new_nfkc();

/// Code points that some file systems and frameworks ignore in names (Unicode 16, `Default_Ignorable_Code_Point`).
const IGNORABLE: [(u32, u32); 17] = [
    (0x00AD, 0x00AD),
    (0x034F, 0x034F),
    (0x061C, 0x061C),
    (0x115F, 0x1160),
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),
    (0x200B, 0x200F),
    (0x202A, 0x202E),
    (0x2060, 0x206F),
    (0x3164, 0x3164),
    (0xFE00, 0xFE0F),
    (0xFEFF, 0xFEFF),
    (0xFFA0, 0xFFA0),
    (0xFFF0, 0xFFF8),
    (0x1BCA0, 0x1BCA3),
    (0x1D173, 0x1D17A),
    (0xE0000, 0xE0FFF),
];

/// Decodes percent-escapes once, including those of IIS and of JavaScript's `escape` (`%u006B`). Overlong forms of
/// UTF-8 are read as lenient decoders read them; other bytes that are not UTF-8 become U+FFFD.
pub(super) fn decode(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let bytes = if text.contains("%u") || text.contains("%U") { wide_decoded(text) } else { None };
    let bytes = bytes.unwrap_or_else(|| percent_decode_str(text).collect());
    Cow::Owned(String::from_utf8(bytes).unwrap_or_else(|error| leniently(error.as_bytes())))
}

/// Decodes `%uXXXX` as well; `None` if there is none.
fn wide_decoded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    let mut any = false;
    while let Some(at) = rest.find('%') {
        let (before, escape) = rest.split_at(at);
        bytes.extend(before.bytes());
        if let Some(wide) = wide_escape(escape) {
            bytes.extend(wide.encode_utf8(&mut [0; 4]).bytes());
            (rest, any) = (&escape[6..], true);
            continue;
        }
        // Three bytes are one escape, or a `%` and the two bytes after it.
        let end =
            (1..=3).rev().find(|end| escape.is_char_boundary(*end) && *end <= escape.len()).unwrap_or(1);
        let end = if escape[1..end].contains('%') { 1 } else { end };
        bytes.extend(percent_decode_str(&escape[..end]));
        rest = &escape[end..];
    }
    bytes.extend(rest.bytes());
    any.then_some(bytes)
}

/// Returns the character of `%uXXXX`. Half a surrogate pair is U+FFFD.
fn wide_escape(text: &str) -> Option<char> {
    let digits = text.strip_prefix("%u").or_else(|| text.strip_prefix("%U"))?.get(..4)?;
    let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let code = is_hex.then(|| u32::from_str_radix(digits, 16).ok()).flatten()?;
    Some(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER))
}

/// Decodes UTF-8 like a decoder that accepts overlong forms, of up to six bytes (RFC 2279 section 2).
fn leniently(mut bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    while let Some(chunk) = bytes.utf8_chunks().next() {
        text.push_str(chunk.valid());
        bytes = &bytes[chunk.valid().len()..];
        if bytes.is_empty() {
            break;
        }
        let (c, length) = overlong(bytes).unwrap_or((char::REPLACEMENT_CHARACTER, chunk.invalid().len()));
        text.push(c);
        bytes = &bytes[length..];
    }
    text
}

/// Returns the character of an overlong form, and its length in bytes.
fn overlong(bytes: &[u8]) -> Option<(char, usize)> {
    let lead = *bytes.first()?;
    let length = usize::try_from(lead.leading_ones()).ok().filter(|length| (2..=6).contains(length))?;
    let tail = bytes.get(1..length)?;
    let first = u32::from(lead & (0x7f_u8 >> length));
    let code = tail
        .iter()
        .try_fold(first, |code, byte| (byte & 0xc0 == 0x80).then(|| code << 6 | u32::from(byte & 0x3f)))?;
    char::from_u32(code).map(|c| (c, length))
}

/// Applies NFKC, removes ignorable code points, and applies the best-fit mappings of Windows code pages to `/` and
/// `\`.
pub(super) fn compatible(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return Cow::Borrowed(text);
    }
    if text.chars().all(|c| !is_ignorable(c) && best_fit(c) == c) {
        return NFKC.normalize(text);
    }
    let visible: String = text.chars().filter(|c| !is_ignorable(*c)).map(best_fit).collect();
    Cow::Owned(NFKC.normalize(&visible).into_owned())
}

fn is_ignorable(c: char) -> bool {
    let c = u32::from(c);
    IGNORABLE.iter().any(|(first, last)| (*first..=*last).contains(&c))
}

/// Returns the character that Windows substitutes for one that a code page lacks (bestfit1252, bestfit932, bestfit949
/// of Unicode.org). Two ligatures that expand to whole phrases are replaced, so that no text grows more than sixfold.
fn best_fit(c: char) -> char {
    match c {
        '\u{2044}' | '\u{2215}' => '/',
        '\u{2216}' | '\u{00A5}' | '\u{20A9}' => '\\',
        '\u{FDFA}' | '\u{FDFB}' => char::REPLACEMENT_CHARACTER,
        other => other,
    }
}

/// Returns a text as the most lenient server reads it: decodes escapes and makes characters compatible until neither
/// changes it.
pub(super) fn expanded(text: &str) -> Cow<'_, str> {
    let mut expanded = Cow::Borrowed(text);
    for round in 0..DECODINGS {
        let is_compatible = round > 0 || text.is_ascii();
        if is_compatible && !expanded.contains('%') {
            break;
        }
        expanded = Cow::Owned(compatible(&decode(&expanded)).into_owned());
    }
    expanded
}

/// Returns a segment in the form in which restrictions compare it: [`expanded`], in one letter case, without white
/// space around it, and without the endings of a name that Windows ignores (`a.`, `a::$DATA`,
/// `a:$I30:$INDEX_ALLOCATION`).
pub(crate) fn fold(segment: &str) -> Cow<'_, str> {
    if segment.bytes().all(is_settled) {
        return Cow::Borrowed(segment);
    }
    Cow::Owned(fold_expanded(&expanded(segment)).into_owned())
}

/// [`fold`] for a text that is already [`expanded`].
pub(super) fn fold_expanded(text: &str) -> Cow<'_, str> {
    if text.bytes().all(is_settled) {
        return Cow::Borrowed(text);
    }
    let text = in_one_case(text);
    let stream = text.find("::").into_iter().chain(text.find(":$")).min();
    let name = &text[..stream.unwrap_or(text.len())];
    let bare = name.trim_start().trim_end_matches(|c: char| c == '.' || is_blank(c));
    Cow::Owned(if bare.is_empty() { text } else { bare.to_owned() })
}

/// Converts to upper case, then to lower case. Texts that become equal may be the same name to some server.
fn in_one_case(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\0'..='\x7f' => folded.push(c.to_ascii_lowercase()),
            // CJK, kana and Hangul have no case. The tables of Unicode take ten times as long to determine this.
            '\u{2E80}'..='\u{A4CF}' | '\u{AC00}'..='\u{D7FF}' => folded.push(c),
            _ => folded.extend(c.to_uppercase().flat_map(char::to_lowercase)),
        }
    }
    folded
}

/// Returns whether [`fold`] never changes this byte.
fn is_settled(byte: u8) -> bool {
    byte.is_ascii_graphic() && !byte.is_ascii_uppercase() && !matches!(byte, b'%' | b'.' | b':')
}

fn is_blank(c: char) -> bool {
    c.is_whitespace() || c.is_control()
}

/// Returns the ambiguity if some server reads this non-empty segment as `.`, `..` or nothing. Only whole names count:
/// `a..`, `..a` and names with full-width characters are ordinary.
pub(super) fn navigates(segment: &str) -> Option<Ambiguity> {
    if !segment.starts_with('.') && !segment.contains('%') {
        return None;
    }
    expanded(segment).split(['/', '\\']).find_map(|part| {
        // NTFS: `..::$INDEX_ALLOCATION` is the directory itself.
        let name = part.split([':', ';', '?', '#']).next().unwrap_or_default();
        let dots = |c: char| c == '.' || is_blank(c);
        match () {
            () if name.contains('.') && name.chars().all(dots) => Some(Ambiguity::DotSegment),
            () if part.chars().all(is_blank) => Some(Ambiguity::EmptySegment),
            () => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_shortcuts_change_no_result() {
        for c in '\0'..=char::MAX {
            let by_tables: String = c.to_uppercase().flat_map(char::to_lowercase).collect();
            assert_eq!(in_one_case(&c.to_string()), by_tables, "{c:?}");
        }
    }
}
