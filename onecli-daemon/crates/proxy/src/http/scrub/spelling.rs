//! The spellings of a text that a response is searched for.

use std::sync::Arc;

use onecli_model::coding::Coding;
use onecli_model::{Alphabet, ValueClass, WireForm};
use zeroize::Zeroizing;

use super::charset;
use super::hold::{Tail, decisive};

/// A spelling to search for. All responses that are searched for it share it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Needle {
    /// The bytes that decide a match, at least one.
    pub(super) bytes: Arc<Zeroizing<Vec<u8>>>,
    /// Number of preceding decoded bytes that also contain bits of the value, and are masked.
    pub(super) lead: usize,
    /// The part that is masked after them.
    pub(super) tail: Tail,
    class: ValueClass,
}

impl Needle {
    /// Returns a needle for a value of this class, without edges.
    #[cfg(test)]
    pub(super) fn new(spelling: Zeroizing<Vec<u8>>, class: ValueClass) -> Option<Needle> {
        Needle::with_edges(spelling, (0, 0), class)
    }

    /// Returns a needle for a value of this class. `lead` and `behind` count the bytes before and after the spelling
    /// that also contain bits of the value. `None` if it can never be found: two line breaks end each match, and
    /// UTF-16 of a few characters looks like line breaks (U+0A0A, U+0D0A).
    fn with_edges(
        mut spelling: Zeroizing<Vec<u8>>,
        (lead, behind): (usize, usize),
        class: ValueClass,
    ) -> Option<Needle> {
        let is_break = |byte: &u8| matches!(byte, b'\r' | b'\n');
        let is_ended = spelling.first().is_none_or(is_break)
            || spelling.windows(2).any(|pair| is_break(&pair[0]) && is_break(&pair[1]));
        if is_ended {
            return None;
        }
        // The preceding bytes wait together with those that decide.
        let left = spelling.len().saturating_sub(decisive(class.length) - lead);
        let decides = spelling.len() - left;
        spelling.truncate(decides);
        // A byte that is shared with a neighbour is a character of an encoding.
        let tail = Tail::new(left + behind, if left == 0 { Alphabet::Token } else { class.alphabet });
        Some(Needle { bytes: Arc::new(spelling), lead, tail, class })
    }

    /// Number of bytes that are stored.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The class of the value.
    pub(super) fn class(&self) -> ValueClass {
        self.class
    }
}

/// Returns every spelling of these texts. The spellings are plain, in other charsets, in UTF-16, in base64 (both
/// alphabets, also of UTF-16) and base32 at any offset in a longer text, in hex, and in quoted-printable.
/// [`super::reading`] finds escapes and line breaks.
pub(crate) fn spellings(forms: &[WireForm]) -> Vec<Needle> {
    let mut all: Vec<Needle> = Vec::new();
    for form in forms {
        let class = form.class();
        spell(form, &mut |spelling, edges, alphabet| {
            let class = ValueClass { alphabet: alphabet.unwrap_or(class.alphabet), ..class };
            let needle = Needle::with_edges(spelling, edges, class);
            all.extend(needle.filter(|needle| !all.contains(needle)));
        });
    }
    all
}

/// A function that adds a spelling. Its arguments are the spelling, the number of bytes before and after it that
/// contain bits of the value, and the alphabet if it differs from the value's.
type Add<'a> = dyn FnMut(Zeroizing<Vec<u8>>, (usize, usize), Option<Alphabet>) + 'a;

fn spell(form: &WireForm, add: &mut Add<'_>) {
    spell_bytes(form.expose(), form.shared(), add);
    for other in charset::forms(form.expose()) {
        spell_bytes(&other, form.shared(), add);
    }
}

fn spell_bytes(raw: &[u8], (before, behind): (usize, usize), add: &mut Add<'_>) {
    let in_pairs = (2 * before, 2 * behind);
    add(Zeroizing::new(raw.to_vec()), (before, behind), None);
    if raw.contains(&b' ') {
        // application/x-www-form-urlencoded
        let pluses = raw.iter().map(|b| if *b == b' ' { b'+' } else { *b }).collect();
        add(Zeroizing::new(pluses), (before, behind), None);
    }
    for wide in in_utf16(raw) {
        in_codings(&wide, in_pairs, &Coding::ALL[..2], add);
        add(without_outer_zero(wide), in_pairs, None);
    }
    in_codings(raw, (before, behind), &Coding::ALL, add);
    for encoding in [&data_encoding::HEXLOWER, &data_encoding::HEXUPPER] {
        add(Zeroizing::new(encoding.encode(raw).into_bytes()), in_pairs, Some(Alphabet::Token));
    }
    add(quoted_printable(raw, |byte| byte == b'=' || !byte.is_ascii()), (before, behind), None);
    add(quoted_printable(raw, |_| true), (3 * before, 3 * behind), Some(Alphabet::Token));
}

fn in_codings(raw: &[u8], shared: (usize, usize), codings: &[Coding], add: &mut Add<'_>) {
    for coding in codings {
        for offset in coding.offsets() {
            let core = coding.core(raw, offset, shared);
            add(core.text, core.shared, Some(Alphabet::Token));
        }
    }
}

/// Returns the text with these bytes as `=XX` (RFC 2045 section 6.7).
fn quoted_printable(raw: &[u8], is_quoted: fn(u8) -> bool) -> Zeroizing<Vec<u8>> {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = Zeroizing::new(Vec::with_capacity(raw.len() * 3));
    for &byte in raw {
        if is_quoted(byte) {
            let digit = |value: u8| DIGITS[usize::from(value)];
            out.extend_from_slice(&[b'=', digit(byte >> 4), digit(byte & 0xf)]);
        } else {
            out.push(byte);
        }
    }
    out
}

/// Returns the text in both byte orders; nothing if it is not UTF-8.
fn in_utf16(raw: &[u8]) -> Vec<Zeroizing<Vec<u8>>> {
    let Ok(text) = std::str::from_utf8(raw) else { return Vec::new() };
    let wide = |encode: fn(u16) -> [u8; 2]| {
        let mut bytes = Zeroizing::new(Vec::with_capacity(text.len() * 2));
        text.encode_utf16().for_each(|unit| bytes.extend_from_slice(&encode(unit)));
        bytes
    };
    vec![wide(u16::to_le_bytes), wide(u16::to_be_bytes)]
}

/// Removes the outer zero, because in the other byte order it belongs to another character.
fn without_outer_zero(mut wide: Zeroizing<Vec<u8>>) -> Zeroizing<Vec<u8>> {
    if wide.last() == Some(&0) {
        wide.pop();
    } else if wide.first() == Some(&0) {
        wide.remove(0);
    }
    wide
}
