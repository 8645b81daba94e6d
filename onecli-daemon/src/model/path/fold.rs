//! Spellings of a path segment that some servers take for one another.

use std::borrow::Cow;

use icu_normalizer::ComposingNormalizerBorrowed;
use percent_encoding::percent_decode_str;

use super::Ambiguity;

/// How often escapes are decoded: a server behind a server may decode them again.
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

/// Decodes percent-escapes once. Bytes that are not UTF-8 become U+FFFD.
pub(super) fn decode(text: &str) -> Cow<'_, str> {
    if text.contains('%') { percent_decode_str(text).decode_utf8_lossy() } else { Cow::Borrowed(text) }
}

/// NFKC, without ignorable code points, and with the best-fit mappings of Windows code pages to `/` and `\`.
pub(super) fn compatible(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return Cow::Borrowed(text);
    }
    let visible: String = text.chars().filter(|c| !is_ignorable(*c)).map(best_fit).collect();
    Cow::Owned(NFKC.normalize(&visible).into_owned())
}

fn is_ignorable(c: char) -> bool {
    let c = u32::from(c);
    IGNORABLE.iter().any(|(first, last)| (*first..=*last).contains(&c))
}

/// What Windows makes of a character that a code page lacks (bestfit1252, bestfit932, bestfit949 of Unicode.org).
/// Two ligatures stand for whole phrases: they are replaced, so that no text grows more than sixfold.
fn best_fit(c: char) -> char {
    match c {
        '\u{2044}' | '\u{2215}' => '/',
        '\u{2216}' | '\u{00A5}' | '\u{20A9}' => '\\',
        '\u{FDFA}' | '\u{FDFB}' => char::REPLACEMENT_CHARACTER,
        other => other,
    }
}

/// A text as the most lenient server reads it: escapes decoded and characters made compatible until neither changes it.
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

/// A segment in the form in which restrictions compare it: [`expanded`], in one letter case, without white space
/// around it, and without what Windows ignores at the end of a name (`a.`, `a::$DATA`, `a:$I30:$INDEX_ALLOCATION`).
pub(in crate::model) fn fold(segment: &str) -> Cow<'_, str> {
    if segment.bytes().all(is_settled) {
        return Cow::Borrowed(segment);
    }
    Cow::Owned(fold_expanded(&expanded(segment)).into_owned())
}

/// [`fold`] of what is [`expanded`] already.
pub(super) fn fold_expanded(text: &str) -> Cow<'_, str> {
    if text.bytes().all(is_settled) {
        return Cow::Borrowed(text);
    }
    let text: String = text.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect();
    let stream = text.find("::").into_iter().chain(text.find(":$")).min();
    let name = &text[..stream.unwrap_or(text.len())];
    let bare = name.trim_start().trim_end_matches(|c: char| c == '.' || is_blank(c));
    Cow::Owned(if bare.is_empty() { text } else { bare.to_owned() })
}

/// Is this a byte that [`fold`] never changes?
fn is_settled(byte: u8) -> bool {
    byte.is_ascii_graphic() && !byte.is_ascii_uppercase() && !matches!(byte, b'%' | b'.' | b':')
}

fn is_blank(c: char) -> bool {
    c.is_whitespace() || c.is_control()
}

/// Does some server take this non-empty segment for `.`, `..` or nothing? Whole names only: `a..`, `..a` and names
/// with full-width characters are ordinary.
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
